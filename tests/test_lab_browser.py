"""The lab in a real browser, without sleeps: what is clicked there is looked for in the data that reach the page."""

import io
import logging
import os
import re
import shutil
import time
import zipfile

import numpy as np
import pytest

pytest.importorskip("panel", reason="the lab needs the extra `lab`")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")

from oscsim.lab.words import KNOBS, PICTURES, TOUR  # noqa: E402
from tests.benchmarks.lab_soak import TURNED  # noqa: E402
from tests.helpers import Served  # noqa: E402

CHROMIUM = os.environ.get("OSCSIM_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, or its path in OSCSIM_CHROMIUM"),
    # what Panel, Bokeh and tornado warn about is not for users of oscsim to mend
    pytest.mark.filterwarnings("default"),
]

logging.getLogger("panel").setLevel(logging.ERROR)  # it tells of every tick
playwright.expect.set_options(timeout=120_000)  # a first compilation may come between

ARGUMENTS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--no-first-run",
]
PATIENCE = 120_000
"""Milliseconds that a first compilation may take on a busy machine."""

SOURCE = """(name) => {
    for (const document of Bokeh.documents) {
        const source = document.get_model_by_name(name);
        if (source != null) return Object.fromEntries(Object.entries(source.data).map(
            ([key, all]) => [key, Array.from(all, (a) => typeof a === "object" && a !== null ? Array.from(a) : a)]));
    }
    return null;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served():
    server = Served(predict=False)
    yield server
    server.stop()


@pytest.fixture
def serving():
    """A lab with everything, for one test."""
    server = Served()
    yield server
    server.stop()


class Visitor:
    """One page, and what a hand does there. Leaving checks that nothing went wrong and nobody else was asked."""

    def __init__(self, browser, url):
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.errors, self.elsewhere, self.url = [], [], url
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        here = url.split("://")[1].split("?")[0]
        own = re.compile(rf"^(https?|wss?)://{re.escape(here)}|^(data|blob):")
        self.page.on("request", lambda r: None if own.match(r.url) else self.elsewhere.append(r.url))
        self.page.on("websocket", lambda s: None if own.match(s.url) else self.elsewhere.append(s.url))
        self.page.goto(url)

    def source(self, name):
        """The data of a curve as they are in the page."""
        return self.page.evaluate(SOURCE, name)

    def until(self, condition, argument=None):
        """Wait until JavaScript says so; `get(name)` gives it the data of a curve."""
        code = f"(argument) => {{ const get = {SOURCE}; return {condition}; }}"
        self.page.wait_for_function(code, arg=argument, timeout=PATIENCE)

    def cycles(self, more=2):
        """Wait for some more cycles."""
        now = self.source("status")["number"][0]
        self.until("get('status').number[0] >= argument", now + more)

    def click(self, name):
        self.page.get_by_role("button", name=re.compile(f"^{re.escape(name)}(:|$)")).click()  # its help follows

    def slider(self, name, key="ArrowRight"):
        """Move the slider of that setting one step by the keyboard."""
        handle = self.page.locator(f".knob-{name} .noUi-handle")
        handle.focus()
        handle.press(key)

    def select(self, label, option):
        row = self.page.locator("label", has_text=re.compile(f"^{label}$")).locator("xpath=..")
        row.locator("select").select_option(option)

    def leave(self):
        self.context.close()
        assert self.errors == []
        assert self.elsewhere == []


@pytest.fixture
def visitor(browser, served):
    found = Visitor(browser, served.url)
    found.until("get('status') !== null && get('status').number[0] > 0")
    yield found
    found.leave()


@pytest.mark.slow
def test_a_visitor_runs_it_turns_every_number_pauses_and_takes_the_data_along(visitor, served):
    lab = served.labs[-1]
    visitor.cycles(3)
    for name in ("amplitude", "period", "intensity", "discard", "realisations", "sample"):
        before = getattr(lab.settings, name)
        visitor.slider(name)
        visitor.until(f"get('status').{name}[0] > argument", before)
        assert lab.runner.problem == ""
    status = visitor.source("status")
    assert status["amplitude"] == [lab.settings.amplitude]
    assert status["period"] == [lab.settings.period]
    beta = visitor.source("teaching")
    np.testing.assert_allclose(np.hypot(beta["x"], beta["y"]), lab.settings.amplitude, rtol=1e-4)

    visitor.click("Pause")
    playwright.expect(visitor.page.get_by_text("paused")).to_be_visible()
    stood = visitor.source("status")["number"][0]
    visitor.click("Single cycle")
    visitor.until("get('status').number[0] === argument", stood + 1)
    visitor.click("Reset")
    visitor.click("Single cycle")
    visitor.until("get('status').number[0] === 1")
    visitor.click("Reseed")
    visitor.click("Run")
    visitor.cycles(4)
    assert lab.settings.seed == 1
    visitor.until("get('error/all').y.length >= 4")
    assert np.nanmax(np.array(visitor.source("error/all")["y"], float)) < 1

    visitor.click("Copy call")
    code = visitor.page.get_by_label(re.compile("Python call"))
    playwright.expect(code).to_have_value(re.compile(rf"amplitude={lab.settings.amplitude}.*jax.random.key\(1\)", re.S))
    visitor.click("Close")
    with visitor.page.expect_download() as download:
        visitor.page.get_by_text("Save data", exact=True).click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = set(archive.namelist())
        rows = np.genfromtxt(io.BytesIO(archive.read("error all.csv")), delimiter=",", names=True)
    assert {"settings.json", "call.py", "traces.csv", "orbits.csv", "spectrum.csv", "map.csv", "loss.csv"} <= names
    assert np.isfinite(rows["y"][-1])


def drawn_after(visitor, name, key):
    """Milliseconds from a key on a slider to the first paint of data with the new value."""
    visitor.page.evaluate(TURNED)
    visitor.slider(name, key)
    return visitor.page.evaluate("window.turned")


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset",
    ["Classic EP drowns in noise", "Finite amplitude survives", "Too large: past the radius", "Period too short: lag"],
)
def test_a_knob_changes_the_picture_at_once(browser, serving, preset, record_property):
    visitor = Visitor(browser, serving.url)
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    visitor.click(preset)
    visitor.cycles(5)
    visitor.until("get('map').image[0].length > 4")
    while (found := serving.labs[-1]._answers()[1]) is None or not found.complete:
        visitor.cycles(1)
    times = [
        drawn_after(visitor, name, key)
        for _ in range(7)
        for name in ("amplitude", "period", "intensity")
        for key in ("ArrowRight", "ArrowLeft")
    ]
    median = float(np.median(times))
    record_property("median_ms", median)
    print(f"\n{preset}: median {median:.0f} ms, 90 % {np.percentile(times, 90):.0f} ms, {len(times)} turns")
    visitor.leave()
    assert median < 150


@pytest.mark.slow
def test_presets_kinds_learning_and_a_divergence_and_back(browser, serving):
    visitor = Visitor(browser, serving.url)
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    lab = serving.labs[-1]
    page = visitor.page
    for title, check in (
        ("Classic EP drowns in noise", "get('status').amplitude[0] === 0.01 && Math.max(...get('error/all').y) > 0.3"),
        (
            "Finite amplitude survives",
            "get('status').amplitude[0] === 0.39 && Math.min(...get('cosine/all').y.slice(-2)) > 0.99",
        ),
        (
            "Too large: past the radius",
            "get('status').amplitude[0] === 3 && Math.min(...get('error/all').y.slice(-2)) > 0.3",
        ),
        ("Period too short: lag", "get('status').period[0] === 12 && Math.min(...get('error/all').y.slice(-2)) > 0.2"),
    ):
        visitor.click(title)
        visitor.until(f"get('error/all').y.length > 8 && {check}")
    # what theory expects: the bias of the lag, a map with its circle, the optimal amplitude
    visitor.until(
        "get('error_bias').y.slice(-1)[0] > 0.2 && get('radius').x.length > 0 && get('snr_best').x.length === 1"
    )
    visitor.until("get('error_predicted').y.slice(-1)[0] > 0.2 && get('floor').ys.length > 0")
    visitor.until("get('error_bar').y.slice(-1)[0] > 0.1")  # and what the gradient says of itself

    for label, options in (
        ("Noise", ("none", "Ornstein–Uhlenbeck", "multiplicative", "on the teaching signal", "in the readout")),
        ("Demodulator", ("exponential, 5 cycles", "Hann window, 4 cycles", "boxcar, one cycle")),
        ("Network", ("digits", "6-4-4-4")),
        ("Signal", ("turning, tunes itself", "two phases (classic EP)", "turning (holomorphic EP)")),
    ):
        for option in options:
            visitor.select(label, option)
            for _ in range(50):  # the cycle of before may come first
                visitor.cycles(1)
                if lab.engine.settings == lab.settings:
                    break
            assert lab.engine.settings == lab.settings, option
            assert lab.runner.problem == "", option

    visitor.click("Finite amplitude survives")
    visitor.cycles(2)
    page.locator(".knob-learning input").check()
    visitor.until("get('status').updates[0] >= 10")
    assert lab.settings.signal == "adaptive"  # the amplitude tunes itself while weights grow
    visitor.until("get('error_bar').y.length > 4 && get('error_bar').y.every((bar) => bar > 0)")
    visitor.until("get('loss').y.length > 10 && get('accuracy').y.slice(-1)[0] >= 0")
    page.locator(".knob-learning input").uncheck()
    visitor.cycles(2)

    visitor.click("It runs away")
    playwright.expect(page.get_by_text("Diverged.")).to_be_visible()
    playwright.expect(page.get_by_text(re.compile("Turn the amplitude back below 1.3"))).to_be_visible()
    for _ in range(20):
        visitor.slider("amplitude", "ArrowLeft")
    visitor.until("get('status').amplitude[0] < 0.5 && get('error/all').y.slice(-1)[0] < 0.1")
    playwright.expect(page.get_by_text("Diverged.")).to_have_count(0)
    visitor.leave()


@pytest.mark.slow
def test_two_visitors_do_not_disturb_each_other_and_one_who_leaves_takes_the_work_along(browser, serving):
    first = Visitor(browser, serving.url)
    first.until("get('status') !== null && get('status').number[0] > 2")
    second = Visitor(browser, serving.url)
    second.until("get('status') !== null && get('status').number[0] > 2")
    mine, other = serving.labs
    first.slider("amplitude")
    first.until("get('status').amplitude[0] > argument", other.settings.amplitude)
    assert mine.settings.amplitude != other.settings.amplitude
    # a long computation of the one does not stop the other
    second.select("Network", "digits")
    first.cycles(20)
    second.until("get('status').number[0] > 2")
    second.leave()
    deadline = time.monotonic() + 60
    while other.runner.alive and time.monotonic() < deadline:
        first.cycles(1)
    assert not other.runner.alive
    assert mine.runner.alive
    first.cycles(5)
    first.leave()


BOXES = """() => {
    const found = [], scrolls = [];
    const visit = (root, inside) => {
        for (const element of root.querySelectorAll("*")) {
            const style = getComputedStyle(element), box = element.getBoundingClientRect();
            const holder = ["auto", "scroll"].includes(style.overflowY) ? element : inside(element);
            if (element.shadowRoot) visit(element.shadowRoot, (inner) => near(inner, element) ?? holder);
            const name = [...element.classList].find((name) => /^(help|picture)-/.test(name));
            if (name && box.width > 0) {
                const view = holder?.getBoundingClientRect();
                found.push({name, left: box.left, right: box.right, top: box.top, bottom: box.bottom,
                            least: view ? view.left : 0, most: view ? view.right : innerWidth,
                            deep: view ? Math.max(view.bottom, view.top + holder.scrollHeight) : innerHeight});
            }
        }
    };
    const near = (element, host) => {
        for (let e = element.parentElement; e; e = e.parentElement)
            if (["auto", "scroll"].includes(getComputedStyle(e).overflowY)) return e;
        return ["auto", "scroll"].includes(getComputedStyle(host).overflowY) ? host : null;
    };
    visit(document, () => null);
    return found;
}"""
"""The boxes of all knobs, buttons and pictures, each with the box that it can be scrolled in."""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(800, 900), (1280, 720), (1440, 900), (2560, 1440)])
@pytest.mark.parametrize("large", [False, True], ids=["", "large type"])
def test_nothing_is_cut_off_or_covered(browser, served, size, large):
    visitor = Visitor(browser, served.url)
    visitor.page.set_viewport_size({"width": size[0], "height": size[1]})
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    if large:
        visitor.click("Large type")
    visitor.cycles(3)
    boxes = visitor.page.evaluate(BOXES)
    assert {box["name"] for box in boxes} >= {f"help-{name}" for name in KNOBS} | {f"picture-{n}" for n in PICTURES}
    for box in boxes:
        assert box["least"] - 1 <= box["left"] < box["right"] <= box["most"] + 1, box
        assert box["bottom"] <= box["deep"] + 1, box
        if box["name"].startswith("picture"):
            assert box["right"] - box["left"] > 230, box
            assert box["bottom"] - box["top"] > 200, box
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            across = min(one["right"], other["right"]) - max(one["left"], other["left"])
            along = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
            # a knob of several parts has its name on each of them
            assert across <= 1 or along <= 1 or one["name"] == other["name"], (one, other)
    knob = visitor.page.locator(".knob-amplitude").first
    playwright.expect(knob).to_have_attribute("title", KNOBS["amplitude"])
    visitor.leave()


@pytest.mark.slow
def test_captions_follow_what_is_measured_and_a_link_restores_the_settings(browser, serving):
    visitor = Visitor(browser, serving.url)
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    lab, page = serving.labs[-1], visitor.page
    visitor.click("Finite amplitude survives")
    playwright.expect(page.get_by_text("noise counts the less")).to_be_visible()
    while lab.settings.amplitude < 3:
        visitor.slider("amplitude", "PageUp")
    visitor.until("get('error/all').y.slice(-1)[0] > 0.3")
    playwright.expect(page.get_by_text("noise counts the less")).to_have_count(0)
    playwright.expect(page.get_by_text(re.compile(r"Measured: \d\d"))).to_be_visible()
    playwright.expect(page.get_by_text(re.compile("past the convergence radius"))).to_be_visible()

    assert f"amplitude={lab.settings.amplitude}" in page.url
    assert "token" not in page.url
    page.reload()
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    visitor.until(f"get('status').amplitude[0] === {lab.settings.amplitude}")
    again = serving.labs[-1]
    assert again is not lab
    assert again.settings == lab.settings

    visitor.click("It runs away")  # says what it shows, and one radius
    playwright.expect(page.get_by_text("Diverged.")).to_be_visible()
    playwright.expect(page.get_by_text("have nothing to hold them")).to_be_visible()
    visitor.until("get('radius').x.length > 0")
    radius = max(visitor.source("radius")["x"])
    words = page.get_by_text(re.compile(r"back below [\d.]+")).inner_text()  # a moment after the map
    said = re.search(r"back below ([\d.]+)", words)[1]
    assert abs(float(said) - radius) < 0.05 * radius
    visitor.leave()


@pytest.mark.slow
def test_the_tour_has_six_steps(browser, serving):
    visitor = Visitor(browser, serving.url)
    visitor.until("get('status') !== null && get('status').number[0] > 0")
    visitor.click("Tour")
    for number, step in enumerate(TOUR, 1):
        playwright.expect(visitor.page.get_by_text(f"Step {number} of 6. {step.title}.")).to_be_visible()
        playwright.expect(visitor.page.locator(f".picture-{step.picture}.pointed")).to_be_visible()
        visitor.until(f"get('status').amplitude[0] === {step.changes['amplitude']}")
        visitor.click("Next")
    playwright.expect(visitor.page.get_by_text("End the tour")).to_be_hidden()
    visitor.leave()
