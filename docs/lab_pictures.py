"""The pictures of docs/lab.md: the presets as a browser shows them. `python docs/lab_pictures.py`; needs chromium."""

import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("OSCSIM_CHROMIUM", "/usr/bin/chromium")
STATUS = 'Bokeh.documents.map((d) => d.get_model_by_name("status")).find((s) => s != null)?.data'
AFTER = {"classic": 60, "finite": 60, "too-large": 40, "learns": 400}
"""Cycles from the start of a preset to its picture."""


def main():
    from oscsim.lab import PRESETS

    images = Path(__file__).parent / "images"
    command = [sys.executable, "-m", "oscsim.cli", "lab", "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split(" at ")[1].split()[0]
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(300_000)
            page.goto(url)
            page.wait_for_function(f"() => window.Bokeh && {STATUS}?.number[0] > 0")
            for name, cycles in AFTER.items():
                preset = PRESETS[name]
                page.get_by_role("button", name=preset.title).first.click()
                amplitude = preset.changes["amplitude"]
                page.wait_for_function(
                    f"() => {STATUS}.amplitude[0] === {amplitude} && {STATUS}.number[0] >= {cycles}"
                    f" && {STATUS}.number[0] < {cycles + 200}"
                )
                page.wait_for_timeout(3000)
                page.screenshot(path=images / f"lab-{name}.png")
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
