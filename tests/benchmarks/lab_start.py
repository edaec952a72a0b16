"""How long a visitor waits. `python -m tests.benchmarks.lab_start`, twice: the first time keeps the programs.

Prints the seconds until `oscsim lab` has said its address and until chromium shows the first picture, then from the
first click on each preset to its picture; each with the processor time that the server took, which tells a busy machine
from a slow lab. Presets are clicked as soon as the page is there, and, of another server, after a minute.
"""

import time

from playwright.sync_api import sync_playwright

from tests.benchmarks.lab_soak import CHROMIUM, PRESETS, STATUS
from tests.benchmarks.lab_visitors import Lab

ALL = {**PRESETS, "It learns": "amplitude[0] === 0.051", "It runs away": "amplitude[0] === 2.4"}
LISTEN = (
    "document.addEventListener('click', () => { window.clicked = performance.now(); }, {capture: true, once: true})"
)


def clicked(page, title, arrived):
    """Seconds from the click to the first picture of these settings."""
    page.evaluate(LISTEN)
    page.get_by_role("button", name=title, exact=True).click()
    code = f"() => {STATUS}.{arrived} && performance.now() - window.clicked"
    return page.wait_for_function(code, timeout=120_000).json_value() / 1000


def main():
    with sync_playwright() as p:
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = p.chromium.launch(executable_path=CHROMIUM, args=arguments)
        for wait in (0, 60):
            began = time.monotonic()
            lab = Lab()
            print(f"address after {time.monotonic() - began:.1f} s (processor {lab.worked:.1f} s)")
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(lab.url)
            page.wait_for_function(f"() => {STATUS}?.number[0] > 0", timeout=120_000)
            print(f"first picture after {time.monotonic() - began:.1f} s (processor {lab.worked:.1f} s)")
            page.wait_for_timeout(1000 * wait)
            print(f"first clicks, {wait} s later:")
            for title, arrived in ALL.items():
                before, seconds = lab.worked, clicked(page, title, arrived)
                print(f"  {title:28}  {seconds:5.2f} s (processor {lab.worked - before:.1f} s)", flush=True)
                page.wait_for_timeout(2000)
            page.close()
            lab.close()
        browser.close()


if __name__ == "__main__":
    main()
