"""The lab for minutes on end, with a browser that looks. `python tests/benchmarks/lab_soak.py 10`.

First prints how long a turned knob takes to change the picture, for each preset: from the key to the paint after the
data with the new value arrived. Then a row every 30 seconds: resident memory of the server's process, cycles per
second, frames drawn per second. In a process of its own, as users run it: the tests check types at run time.
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


STATUS = """Bokeh.documents.map((d) => d.get_model_by_name("status")).find((s) => s != null)?.data"""
"""What the page says of the frame that it shows."""

TURNED = """() => {
    const source = Bokeh.documents.map((d) => d.get_model_by_name("status")).find((s) => s != null);
    const of = (data) => [data.amplitude[0], data.period[0], data.intensity[0]].join();
    window.turned = new Promise((resolve) => {
        let began = 0, before = "";
        document.addEventListener("keydown", () => { began = performance.now(); before = of(source.data); },
                                  {capture: true, once: true});
        const look = () => {
            if (began > 0 && of(source.data) !== before) {
                source.properties.data.change.disconnect(look);
                requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
            }
        };
        source.properties.data.change.connect(look);
    });
}"""

PRESETS = {
    "Classic EP drowns in noise": "amplitude[0] === 0.01",
    "Finite amplitude survives": "amplitude[0] === 0.39",
    "Too large: past the radius": "amplitude[0] === 3",
    "Period too short: lag": "period[0] === 12",
}


def turn_knobs(page):
    """Median and 90th percentile over 42 turns, in milliseconds, for each preset."""
    print("preset                        median (ms)  90 % (ms)")
    for title, arrived in PRESETS.items():
        page.get_by_role("button", name=title, exact=True).click()
        page.wait_for_function(f"() => {STATUS}.{arrived} && {STATUS}.number[0] > 10", timeout=120_000)
        page.wait_for_timeout(8000)  # the map is drawn
        times = []
        for _ in range(7):
            for name in ("amplitude", "period", "intensity"):
                for key in ("ArrowRight", "ArrowLeft"):
                    page.evaluate(TURNED)
                    handle = page.locator(f".knob-{name} .noUi-handle")
                    handle.focus()
                    handle.press(key)
                    times.append(page.evaluate("window.turned"))
        times.sort()
        print(f"{title:28}  {times[len(times) // 2]:11.0f}  {times[len(times) * 9 // 10]:9.0f}", flush=True)


def main(minutes):
    command = [
        sys.executable,
        "-c",
        "from oscsim.cli.commands import main; main(['lab', '--port', '0', '--no-browser'])",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().split(" at ")[1].split()[0]
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_function(f"() => {STATUS}?.number[0] > 0", timeout=120_000)
        page.wait_for_timeout(90_000)  # the server compiles what the presets need
        turn_knobs(page)
        print("minutes  memory (MB)  cycles/s  frames/s")
        began = time.monotonic()
        before = page.evaluate(f"() => [{STATUS}.number[0], {STATUS}.drawing[0]]")
        last = began
        while time.monotonic() - began < 60 * minutes:
            page.wait_for_timeout(30_000)
            now, seen = time.monotonic(), page.evaluate(f"() => [{STATUS}.number[0], {STATUS}.drawing[0]]")
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
