"""The site of the documentation: it builds without a warning, and its reference holds every public name, once."""

import importlib
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import oscsim as osc

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Where a name is documented: the directive, and the module that is current there.
DIRECTIVE = re.compile(r"^\.\. (currentmodule|automodule|autoclass|autofunction|autodata|py:data):: ([\w.]+)$", re.M)


def documented() -> Counter:
    """How often the reference documents each name, by its full name."""
    found: Counter = Counter()
    for page in sorted((DOCS / "api").glob("*.md")):
        module = "oscsim"
        for kind, name in DIRECTIVE.findall(page.read_text("utf-8")):
            if kind in ("currentmodule", "automodule"):
                module = name
            if kind != "currentmodule":
                found[name if name.startswith("oscsim") else f"{module}.{name}"] += 1
    return found


def test_the_reference_holds_every_public_name_once():
    found = documented()
    public = {name: getattr(osc, name) for name in osc.__all__}
    # A module may stand in a room: `osc.models` is oscsim.networks.models.
    full = {name: it.__name__ if inspect.ismodule(it) else f"oscsim.{name}" for name, it in public.items()}
    assert {name: found[full[name]] for name in public} == dict.fromkeys(public, 1)
    for module in ("datasets", "lab", "plot", "response"):
        for name in importlib.import_module(f"oscsim.{module}").__all__:
            assert found[f"oscsim.{module}.{name}"] == 1, name
    assert max(found.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("gallery", ["off", pytest.param("force", marks=pytest.mark.slow)])
def test_the_site_builds_without_a_warning(gallery, tmp_path):
    """Broken links and images, names that cannot be imported, formulas that cannot be read: all are warnings.

    So is a cell of the gallery that fails; drawing it takes a minute.
    """
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "html"]
    command += ["-D", f"nb_execution_mode={gallery}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    built = subprocess.run([*command, "-d", tmp_path / "trees"], capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "://" not in " ".join(re.findall(r'<(?:script|link)[^>]+(?:src|href)="([^"]+)"', page(tmp_path, "concepts")))
    assert "$" not in re.sub(r"<pre>.*?</pre>", "", page(tmp_path, "api/response"), flags=re.S)


def test_the_gallery_shows_every_plot():
    shown = set(re.findall(r"osc\.plot\.(\w+)", (DOCS / "gallery.md").read_text("utf-8")))
    assert set(osc.plot.__all__) - {"style"} - shown == set()


def test_code_fits_its_column():
    """The column of the site holds 88 characters; what a program prints is broken there."""
    wide = []
    for path in sorted(DOCS.rglob("*.md")):
        code = re.findall(r"(?ms)^```(?:python|sh|\{code-cell\} ipython3)\n(.*?)^```", path.read_text("utf-8"))
        wide += [f"{path.name}: {line}" for block in code for line in block.splitlines() if len(line) > 88]
    assert wide == []


def page(folder: Path, name: str) -> str:
    """A built page."""
    return (folder / "html" / f"{name}.html").read_text("utf-8")


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_no_link_leads_to_a_file_that_is_missing(name):
    links = re.findall(r"\]\((?!\w+:)([^)#]+)", (ROOT / name).read_text("utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_moving_picture_is_small_enough():
    size = (DOCS / "images" / "landing.gif").stat().st_size
    assert 0 < size < 2 * 2**20


def test_a_room_imports_from_the_rows_above_it_in_the_map_of_the_house():
    told = (DOCS / "contributing.md").read_text("utf-8").split("Layout of the package")[1].split("\n## ")[0]
    rows = [
        re.findall(r"`(?:oscsim/)?(\w+)(?:/|\.py)`", line.split("|")[1]) for line in told.splitlines() if "| `" in line
    ]
    level = {room: number for number, row in enumerate(rows) for room in row}
    rooms = {
        path: path.relative_to(ROOT / "oscsim").parts[0].removesuffix(".py") for path in ROOT.glob("oscsim/**/*.py")
    }
    assert set(rooms.values()) - {"__init__"} <= set(level)
    upwards = [
        f"{path.relative_to(ROOT)} imports {used}"
        for path, room in rooms.items()
        if room != "__init__"
        for used in re.findall(r"^\s*(?:from|import) oscsim\.(\w+)", path.read_text("utf-8"), re.M)
        if level[used] > level[room]
    ]
    assert upwards == []


@pytest.mark.parametrize("room", ["paper", "lab", "cli"])
def test_what_is_built_on_top_imports_public_names_only(room):
    """From `oscsim` or from a room, never from a file of it."""
    private = []
    for path in ROOT.glob(f"oscsim/{room}/*.py"):
        for module, names in re.findall(
            r"^\s*from (oscsim[\w.]*) import (\([^)]*\)|.*)", path.read_text("utf-8"), re.M
        ):
            if module.startswith(f"oscsim.{room}"):
                continue
            public = importlib.import_module(module).__all__
            for name in re.findall(r"(\w+)(?: as \w+)?,?", names.strip("() ")):
                if module.count(".") > 1 or name not in public:
                    private.append(f"{path.name}: {module}.{name}")
    assert private == []
