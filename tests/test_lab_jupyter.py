"""The lab inside a cell of JupyterLab, in a real browser that is cut off from everything but JupyterLab."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jupyterlab", reason="needs the extra `lab`")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from tests.benchmarks.lab_soak import STATUS  # noqa: E402
from tests.test_lab_browser import ARGUMENTS, CHROMIUM, PATIENCE  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, or its path in OSCSIM_CHROMIUM"),
]

CELL = """import panel as pn
import oscsim as osc

pn.extension(inline=True)
osc.lab.NoiseLab(predict=False)"""


@pytest.fixture
def jupyter(tmp_path):
    """The address of a JupyterLab with one notebook, `lab.ipynb`, whose cell shows the lab."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": None, "outputs": [], "source": CELL}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "lab.ipynb").write_text(json.dumps(notebook))
    own = {name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    own["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--port=0",
        "--ServerApp.token=t",
        "--allow-root",
        f"--ServerApp.root_dir={tmp_path / 'work'}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    server = subprocess.Popen(command, env={**os.environ, **own}, stderr=subprocess.PIPE, text=True)
    try:
        for line in server.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                yield found[0]
                break
        else:
            pytest.fail("JupyterLab did not start")
    finally:
        server.terminate()
        server.communicate(timeout=60)


def test_it_runs_in_a_cell_without_any_network(jupyter):
    elsewhere = []

    def refuse(route):
        elsewhere.append(route.request.url)
        route.abort()

    own = re.compile(rf"^(https?|wss?)://{re.escape(jupyter.split('://')[1])}|^(data|blob):")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.route(lambda url: not own.match(url), refuse)
        page.goto(f"{jupyter}lab/tree/lab.ipynb?token=t")
        page.locator(".jp-Notebook").wait_for()
        page.get_by_text("Python 3 (ipykernel) | Idle").or_(page.get_by_title("Python 3 | Idle")).first.wait_for()
        page.locator(".jp-Cell .cm-content").first.click()
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(f"() => window.Bokeh && {STATUS}?.number[0] > 3")
        before = page.evaluate(f"() => {STATUS}.amplitude[0]")
        page.locator(".knob-amplitude .noUi-handle").press("ArrowRight")
        page.wait_for_function(f"(before) => {STATUS}.amplitude[0] > before", arg=before)
        number = page.evaluate(f"() => {STATUS}.number[0]")
        page.wait_for_function(f"(number) => {STATUS}.number[0] > number + 3", arg=number)
        browser.close()
    # In notebooks Panel asks for its own style sheets, which the lab does without; nothing else is asked for.
    assert [url for url in elsewhere if not re.match(r"https://cdn\.holoviz\.org/panel/.*\.css", url)] == []
