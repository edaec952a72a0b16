"""Every notebook runs at small size; what is committed holds its outputs, and is small enough."""

import re
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
short = pytest.mark.parametrize("path", NOTEBOOKS[:1], ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def at_small_size(path):
    """The notebook with `quick = True` in its cell of parameters."""
    notebook = read(path)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert "quick = False" in parameters.source
    parameters.source = parameters.source.replace("quick = False", "quick = True")
    return notebook


@pytest.fixture
def data(request, path, monkeypatch):
    """MNIST for the notebook that wants it, or its test is skipped."""
    if path.stem == "06_paper_figures":
        request.getfixturevalue("mnist")
        monkeypatch.setenv("OSCSIM_DATA", str(request.getfixturevalue("shared") / "data"))


@short
def test_its_cells_run(path, monkeypatch):
    """In this process, where what others compiled is compiled already; all of them run in a kernel below."""
    monkeypatch.chdir(path.parent)
    namespace = {"__name__": "__main__"}
    with plt.rc_context(), jax.enable_x64(False):
        try:
            for number, cell in enumerate(code_cells(at_small_size(path)), start=1):
                exec(compile(cell.source, f"{path} [{number}]", "exec"), namespace)
        finally:
            jax.config.update("jax_enable_x64", False)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # what Jupyter's libraries warn of is not for users of oscsim to mend
@each
@pytest.mark.usefixtures("data")
def test_it_runs_in_a_kernel(path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = at_small_size(path)
    place = {"metadata": {"path": path.parent}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []


def test_all_seven_are_there():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


@each
def test_it_is_committed_with_its_outputs(path):
    assert path.stat().st_size < 2**20
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run from top to bottom
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    assert not any(re.search(r"(/tmp|/home|/root)/", output.get("text", "")) for output in outputs)


@each
def test_it_says_what_it_teaches_and_how_long_it_takes_and_asks_what_was_learnt(path):
    cells = read(path).cells
    goals, time = cells[0].source.split("**What you learn**")[1].split("Time to run:")
    assert len(re.findall(r"^- ", goals, re.M)) == 3
    assert re.match(r" \d+ seconds", time)
    (exercises,) = [cell.source for cell in cells if cell.source.startswith("## Exercises")]
    solutions = [cell for cell in code_cells(read(path)) if "solution" in cell.metadata.get("tags", ())]
    assert re.findall(r"^(\d)\. ", exercises, re.M) == ["1", "2", "3"]
    assert [cell.source[:4] for cell in solutions] == ["# 1.", "# 2.", "# 3."]
    assert all("hide-cell" in cell.metadata.tags for cell in solutions)  # the site folds them
