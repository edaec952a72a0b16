"""Every notebook runs, once, at small size; what is committed holds its outputs, and they are small enough."""

import os
import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which the extra `test` brings")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# nbclient starts a kernel, a process of its own; what jupyter's libraries warn of is not for users of oscsim to mend
pytestmark = pytest.mark.filterwarnings("default")


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_seven_are_there():
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_at_small_size(path, request, monkeypatch):
    if path.stem == "06_paper_figures":
        request.getfixturevalue("mnist")  # or skip
        monkeypatch.setenv("OSCSIM_DATA", str(request.getfixturevalue("shared") / "data"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTHONWARNINGS", "error::UserWarning:oscsim")
    notebook = read(path)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert "quick = False" in parameters.source
    parameters.source = parameters.source.replace("quick = False", "quick = True")
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.get("name") != "stderr", output.text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_with_its_outputs(path):
    assert path.stat().st_size < 2**20
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))  # run from top to bottom
    pictures = [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 2
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert not re.search(r"(/tmp|/home|/root)/", output.get("text", ""))
