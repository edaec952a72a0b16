"""The lab for minutes on end: memory and cycle rate while a browser looks. `python tests/benchmarks/lab_soak.py 10`.

Prints a row every 30 seconds: resident memory of the server's process, cycles per second, frames drawn per second.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = os.environ.get("OSCSIM_CHROMIUM", "/usr/bin/chromium")


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no process {pid}")


def main(minutes):
    command = [sys.executable, "-c", "from oscsim.cli import main; main(['lab', '--port', '0', '--no-browser'])"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().split(" at ")[1].split()[0]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        get = "Bokeh.documents.map((d) => d.get_model_by_name('status')).find((s) => s != null)?.data"
        page.wait_for_function(f"() => {get}?.number[0] > 0", timeout=120_000)
        page.wait_for_timeout(90_000)  # the server compiles what the presets need
        print("minutes  memory (MB)  cycles/s  frames/s")
        began = time.monotonic()
        before = page.evaluate(f"() => [{get}.number[0], {get}.drawing[0]]")
        last = began
        while time.monotonic() - began < 60 * minutes:
            page.wait_for_timeout(30_000)
            now, seen = time.monotonic(), page.evaluate(f"() => [{get}.number[0], {get}.drawing[0]]")
            rates = [(b - a) / (now - last) for a, b in zip(before, seen, strict=True)]
            print(
                f"{(now - began) / 60:7.1f}  {resident(server.pid):11.0f}  {rates[0]:8.1f}  {rates[1]:8.1f}", flush=True
            )
            before, last = seen, now
        browser.close()
    server.terminate()
    server.wait()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
