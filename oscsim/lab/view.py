"""The page: knobs, figures, words. It shows the runner's frames and computes no cycle itself."""

import html
import io
import json
import math
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, CustomJS, Range1d
from bokeh.plotting import figure
from panel.io.notebook import push_notebook

import oscsim as osc
from oscsim.core import checkpoint
from oscsim.dynamics import TOLERANCE
from oscsim.lab.call import python_call
from oscsim.lab.engine import BATCH, Engine, Frame
from oscsim.lab.figures import Pictures
from oscsim.lab.runner import HISTORY, Runner
from oscsim.lab.settings import (
    DEMODULATORS,
    EXAMPLES,
    LONGEST,
    MOST_REALISATIONS,
    NOISES,
    PRESETS,
    SHORTEST,
    SIGNALS,
    Example,
    Settings,
    Value,
    steps_for,
)
from oscsim.networks import Data

DRAWN_EVERY = 10
"""Milliseconds between two queries for new frames."""

PATIENCE, SAID_EVERY = 1.0, 0.25
"""Seconds until a browser that does not answer is sent the next frame; seconds between two changes of the words."""

GATHERED = 5
"""Milliseconds that a turned knob waits for further turns; Panel's own 50 are a third of what the eye allows."""

WIDTHS = {"classic": 184, "finite": 178, "too-large": 184, "lag": 160, "learns": 90, "diverges": 110}
"""Of the presets' buttons, in pixels."""

E24 = "1.0 1.1 1.2 1.3 1.5 1.6 1.8 2.0 2.2 2.4 2.7 3.0 3.3 3.6 3.9 4.3 4.7 5.1 5.6 6.2 6.8 7.5 8.2 9.1"
"""Steps of logarithmic knobs: the preferred numbers of IEC 60063."""


def _grid(low: float, high: float) -> list[float]:
    return [value for e in range(-4, 3) for digits in E24.split() if low <= (value := float(f"{digits}e{e}")) <= high]


GRIDS = {
    "amplitude": _grid(0.001, 5.1),
    "intensity": [0.0, *_grid(0.001, 1.0)],
    "correlation_time": _grid(0.5, 51.0),
    "learning_rate": _grid(0.01, 3.0),
}
"""What logarithmic knobs can be turned to."""

GREETING = "A teaching signal turns at the output; its response is the gradient. Turn a knob."
"""What is said without a preset, or once its settings were changed."""

STYLE = (Path(__file__).parent / "style.css").read_text("utf-8")

STYLED: dict[str, Any] = {"stylesheets": [STYLE]}
WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "stylesheets": [STYLE]}
FULL: dict[str, Any] = {"sizing_mode": "stretch_both", "margin": 0}
LINE: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": 0, "align": "center"}


class NoiseLab(pn.viewable.Viewer):
    """An oscilloscope for learning: a network runs live, and the page shows how good its gradient is.

    In a Jupyter cell `osc.lab.NoiseLab()` as the last line shows it; `oscsim lab` serves it in the browser.

    Args:
        network: an example's name (`"6-4-4-4"`, `"digits"`), a network of your own, or the folder or file that
            `oscsim train` wrote one to.
        data: `(x, y)` for a network of your own; not with an example.
        held_out: `(x, y)` for the held-out accuracy while it learns; by default the data themselves.
        running: whether it runs at once.
        predict: whether to compute predictions beside the cycles.
        **settings: of `Settings`, such as `amplitude=0.4, noise="white", intensity=0.1`.

    Raises:
        ValueError: a value out of its range, data that do not fit; names it and says what to use.
        TypeError: something that is no network.
        FileNotFoundError: no network in that place.

    Example:
        >>> lab = osc.lab.NoiseLab("6-4-4-4", running=False, amplitude=0.2)
        >>> lab.change(amplitude=0.4)
        >>> lab.settings.amplitude
        0.4
        >>> lab.close()
    """

    def __init__(
        self,
        network: str | Path | osc.AbstractNetwork = "6-4-4-4",
        data: tuple[Data, Data] | None = None,
        *,
        held_out: tuple[Data, Data] | None = None,
        running: bool = True,
        predict: bool = True,
        **settings: Value,
    ):
        super().__init__()
        own, self._origin = _own(network, data, held_out)
        name = next(iter(own)) if own else str(network)
        self.engine = Engine(Settings().changed(network=name, **settings), own)
        self.runner = Runner(self.engine, predict=predict)
        self.settings = self.engine.settings
        self._frame: Frame | None = None
        self._pictures = Pictures()
        self._drawing: pn.io.PeriodicCallback | None = None
        self._syncing = False
        self._turned = -PATIENCE  # when a knob was turned whose picture is still to come
        self._waiting: list[Frame] = []
        self._saying, self._said_of = GREETING, self.settings
        self._status = ColumnDataSource(_status(self.settings, 0, 0, 0), name="status")
        self._drawing_number, self._sent, self._said = 0, 0.0, 0.0
        self._build()
        self.runner.run(running)

    # What a program may do with it.

    def change(self, **changes: Value) -> None:
        """Change settings, as the knobs do.

        Raises:
            ValueError: a value out of its range.
        """
        self.settings = self.settings.changed(**changes)
        self._sync()
        self.runner.change(**changes)

    def preset(self, name: str) -> None:
        """Choose a preset, start from rest, and run.

        Raises:
            ValueError: an unknown preset.
        """
        if name not in PRESETS:
            raise osc.BadValue(f"name={name!r}: use one of {', '.join(map(repr, PRESETS))}")
        found = PRESETS[name]
        self.change(**found.changes)
        self._saying, self._said_of = found.explanation, self.settings
        self.runner.reset()
        self.runner.run()

    @property
    def call(self) -> str:
        """The Python call that repeats what is shown, from rest."""
        counted = 0 if self._frame is None else self._frame.counted
        return python_call(self.settings, counted, self._origin, steps_for(self.engine.net))

    def close(self) -> None:
        """Stop all work."""
        if self._drawing is not None:
            self._drawing.stop()
            self._drawing = None
        self.runner.close()

    def __panel__(self) -> pn.Row:
        if self._drawing is None:
            self._drawing = pn.state.add_periodic_callback(self._tick, period=DRAWN_EVERY)
        return self._page

    # How it is laid out.

    def _build(self) -> None:
        self._knobs = self._make_knobs()
        self._words = pn.pane.HTML("", css_classes=["words"], **WIDE)
        self._numbers = pn.pane.HTML("", css_classes=["numbers"], **WIDE)
        label = "Python call that repeats these settings from rest (copied)"
        self._code = pn.widgets.TextAreaInput(label=label, height=330, max_length=20_000, css_classes=["code"], **WIDE)
        hide = _button("Close", lambda _: setattr(self._sheet, "visible", False))
        self._sheet = pn.Column(self._code, hide, visible=False, css_classes=["sheet"], **WIDE)
        self._carrier = _carrier(self._status)
        status = pn.pane.Bokeh(self._carrier, width=1, height=1, margin=0, css_classes=["hidden"])
        figures = self._pictures.figures.values()
        panes = self._panes = [pn.pane.Bokeh(plot, min_height=220, **FULL) for plot in figures]
        grid = pn.Column(pn.Row(*panes[:4], **FULL), pn.Row(*panes[4:], **FULL), **FULL)
        below = pn.Row(self._numbers, status, margin=0, sizing_mode="stretch_width")
        right = pn.Column(self._bar(), self._words, self._sheet, grid, below, css_classes=["main"], **FULL, **STYLED)
        self._page = pn.Row(self._sidebar(), right, min_height=640, css_classes=["lab"], **FULL, **STYLED)
        self._say()

    def _bar(self) -> pn.Column:
        self._run = _button("Run", lambda _: self.runner.run(not self.runner.running), "primary", width=74)
        single = _button("Single cycle", lambda _: self.runner.single(), width=96)
        reset = _button("Reset", lambda _: self._on_reset(), width=64)
        reseed = _button("Reseed", lambda _: self.change(seed=self.settings.seed + 1), width=68)
        presets = [
            _button(preset.title, lambda _, name=name: self.preset(name), "primary", width=WIDTHS[name], outline=True)
            for name, preset in PRESETS.items()
        ]
        copy = _button("Copy call", lambda _: self._on_copy(), width=82)
        copy.js_on_click(
            args={"code": self._code},
            code="""
            const clipboard = navigator.clipboard;
            const copied = () => { if (clipboard) clipboard.writeText(code.value).catch(() => {}); };
            const once = () => { code.properties.value.change.disconnect(once); copied(); };
            code.properties.value.change.connect(once); copied();
            """,
        )
        save = _download("Save data", self._archive, "oscsim-lab.zip", 92)
        network = _download("Save network", self._saved_network, "network.osc", 108)
        gap = pn.Spacer(sizing_mode="stretch_width")
        lead = pn.pane.HTML("Show me:", css_classes=["lead"], margin=(0, 4), **STYLED)
        top = pn.Row(self._run, single, reset, reseed, gap, copy, save, network, **LINE)
        around = {"sizing_mode": "stretch_width", "margin": (8, 8, 2, 8), "styles": {"gap": "6px"}}
        return pn.Column(top, pn.Row(lead, *presets, **LINE), **around)

    def _make_knobs(self) -> dict[str, pn.widgets.Widget]:
        choice, grid, count = pn.widgets.Select, _logarithmic, pn.widgets.IntSlider
        networks = list(dict.fromkeys([*EXAMPLES, *self.engine.own]))
        kinds = {
            "signal": partial(choice, label="Signal", options=SIGNALS),
            "amplitude": partial(grid, label="Amplitude A", grid=GRIDS["amplitude"]),
            "period": partial(pn.widgets.FloatSlider, label="Period T (τ)", start=SHORTEST, end=LONGEST, step=2.0),
            "noise": partial(choice, label="Noise", options=NOISES),
            "intensity": partial(grid, label="Intensity q", grid=GRIDS["intensity"]),
            "correlation_time": partial(grid, label="Correlation time (τ)", grid=GRIDS["correlation_time"]),
            "demodulator": partial(choice, label="Demodulator", options=DEMODULATORS),
            "discard": partial(count, label="Discarded cycles", start=0, end=20),
            "realisations": partial(count, label="Realisations", start=1, end=MOST_REALISATIONS),
            "network": partial(choice, label="Network", options=networks),
            "sample": partial(count, label="Input sample", start=0, end=len(self.engine.example.x) - 1),
            "learning": partial(pn.widgets.Checkbox, label="Weights learn"),
            "learning_rate": partial(grid, label="Learning rate", grid=GRIDS["learning_rate"]),
        }
        knobs = {name: make(value=vars(self.settings)[name], margin=(1, 6), **WIDE) for name, make in kinds.items()}
        for name, knob in knobs.items():
            knob.css_classes = [f"knob-{name}"]
            for part in knob.select():
                part._debounce = GATHERED
            knob.param.watch(lambda event, name=name: self._on_knob(name, event.new), "value")
        self._neurons = pn.widgets.MultiSelect(
            label="Neurons shown (layer.neuron)", options=[], value=[], size=5, margin=(1, 6), **WIDE
        )
        self._neurons.param.watch(lambda event: self._on_neurons(event.new), "value")
        return knobs

    def _sidebar(self) -> pn.Column:
        parts = [pn.pane.HTML("oscsim <b>lab</b>", css_classes=["title"], margin=(8, 6, 0, 6), **STYLED)]
        for title, names in (
            ("Teaching signal", ("signal", "amplitude", "period")),
            ("Noise", ("noise", "intensity", "correlation_time")),
            ("Reading", ("demodulator", "discard", "realisations")),
            ("Network", ("network", "sample", "learning", "learning_rate")),
        ):
            parts.append(pn.pane.HTML(title, css_classes=["heading"], margin=(7, 6, 0, 6), **STYLED))
            parts += [self._knobs[name] for name in names]
            parts += [self._neurons] if title == "Reading" else []
        side = {"width": 236, "sizing_mode": "stretch_height", "margin": 0, "scroll": True}
        return pn.Column(*parts, css_classes=["side"], **side, **STYLED)

    def _name(self, names: tuple[str, ...], arrays: tuple[str, ...]) -> None:
        """Show another network."""
        self._pictures.name(names, arrays)
        self._syncing = True
        self._neurons.param.update(options=list(names), value=list(self._pictures.chosen))
        self._knobs["sample"].param.update(end=len(self.engine.example.x) - 1, value=self.settings.sample)
        self._syncing = False

    # What the visitor does.

    def _on_knob(self, name: str, value: Value) -> None:
        before = vars(self.settings)[name]
        if self._syncing or before == value:
            return
        changes: dict[str, Value] = {name: type(before)(value)}  # a slider at 100 says 100, not 100.0
        if name == "network":
            changes.update(sample=0, learning=False)
        if name == "learning" and value and self.settings.signal == "turning":
            changes["signal"] = "adaptive"  # a fixed amplitude is soon past the radius of weights that grow
        try:
            self.settings = self.settings.changed(**changes)
        except ValueError as error:
            self.runner.problem = str(error)
            return
        self._turned = time.monotonic()
        self._sync()
        diverged = self._frame is not None and self._frame.diverged
        self.runner.change(**changes)
        if diverged:
            self.runner.run()

    def _on_neurons(self, names: list[str]) -> None:
        if not self._syncing:
            self._pictures.chosen = tuple(names)
            self._draw()

    def _on_reset(self) -> None:
        self.runner.reset()
        self._pictures.forget()
        if self._frame is not None and self._frame.diverged:
            self.runner.single()

    def _on_copy(self) -> None:
        self._code.value = self.call
        self._sheet.visible = True

    def _sync(self) -> None:
        """Set the knobs to the settings."""
        self._syncing = True
        try:
            for name, knob in self._knobs.items():
                value = vars(self.settings)[name]
                if name == "sample" and self.settings.network != self.engine.settings.network:
                    continue
                if name in GRIDS and value not in knob.param.values()["options"].values():
                    knob.param.update(options=_named([*GRIDS[name], value]))
                knob.param.update(value=value)
            two = self.settings.signal == "two-phase"
            self._knobs["demodulator"].disabled = two
            self._knobs["correlation_time"].disabled = self.settings.noise not in ("ornstein-uhlenbeck", "teaching")
            self._knobs["intensity"].disabled = self.settings.noise == "none"
            self._knobs["sample"].disabled = self._knobs["realisations"].disabled = self.settings.learning
        finally:
            self._syncing = False

    # What it shows.

    def _tick(self) -> None:
        """Draw the new frames, unless the browser still draws the one before."""
        now = time.monotonic()
        self._waiting += self.runner.frames()
        if self.runner.running and now - self._turned < PATIENCE:
            # the first picture after a turned knob waits for no other, and none of before is sent ahead of it
            if not any(frame.settings == self.settings for frame in self._waiting):
                return
        elif self._carrier.tags != [self._drawing_number] and now - self._sent < PATIENCE:
            del self._waiting[:-HISTORY]
            return
        self._turned = -PATIENCE
        frames, self._waiting = self._waiting, []
        with pn.io.hold():
            if frames:
                self._take(frames)
                self._draw(False)
            if not frames or now - self._said > SAID_EVERY:
                self._said = now
                self._say()

    def _take(self, frames: list[Frame]) -> None:
        frame, before = frames[-1], self._frame
        self._frame = frame
        if before is None or (frame.names, list(frame.cosines)) != (before.names, list(before.cosines)):
            self._name(frame.names, tuple(frame.cosines))
        current = [f for f in frames if f.names == frame.names and f.settings.network == frame.settings.network]
        self._pictures.add(current, self.runner.forecaster.forecast, self.runner.forecaster.test)

    def _draw(self, all_of_them: bool = True) -> None:
        frame, forecaster = self._frame, self.runner.forecaster
        if frame is None:
            return
        self._pictures.draw(forecaster.forecast, forecaster.map, all_of_them or not self.runner.running)
        self._drawing_number, self._sent = self._drawing_number + 1, time.monotonic()
        self._status.data = _status(frame.settings, frame.number, frame.updates, self._drawing_number)
        if pn.state.curdoc is None:
            push_notebook(*self._panes)

    def _say(self) -> None:
        self._run.label, self._run.color = ("Pause", "warning") if self.runner.running else ("Run", "primary")
        self._words.object = self._words_now(self._frame)
        self._numbers.object = self._numbers_now(self._frame)

    def _words_now(self, frame: Frame | None) -> str:
        runner = self.runner
        if runner.problem:
            return _box("problem", f"<b>Refused:</b> {html.escape(runner.problem)}")
        if frame is not None and frame.diverged and frame.settings.amplitude == self.settings.amplitude:
            found = runner.forecaster.forecast
            turn = f"below {found.radius:.2g}, the convergence radius" if found else "or the intensity"
            what = frame.diverged.split(", under")[0]
            what = html.escape(what[0].upper() + what[1:])
            said = f"<b>Diverged.</b> {what}. Turn the amplitude back {turn}: it starts again from rest."
            return _box("problem", said)
        if frame is None or runner.compiling:
            return _box("busy", "Compiling the equations of these neurons, once: it takes a few seconds …")
        found = runner.forecaster.forecast
        found = found if found and found.fits(self.settings) else None
        note = runner.forecaster.problem or (found and found.note) or ""
        # what a preset says is of its settings, not of those that somebody turned to since
        same = self.settings.changed(seed=self._said_of.seed, realisations=self._said_of.realisations)
        said = self._saying if same == self._said_of else GREETING
        own = bar_in_words(frame, found.radius if found else math.inf) if frame.settings == self.settings else ""
        own = own and f" <b>It says of itself:</b> {html.escape(own)}."
        note = note and f" <i>Note: {html.escape(note)}.</i>"
        return _box("saying", html.escape(said) + own + note)

    def _numbers_now(self, frame: Frame | None) -> str:
        if frame is None:
            return ""
        s = frame.settings
        parts = [
            f"cycle <b>{frame.number}</b>",
            f"{self.runner.rate:.0f} cycles/s" if self.runner.running else "paused",
            f"averaged over {frame.averaged}",
            f"loss {frame.loss:.3f}" if np.isfinite(frame.loss) else "no loss",
            f"|∇L| {frame.norm:.3g}",
        ]
        error = frame.errors["all"]
        if np.isfinite(error).any():
            parts.append(f"relative error {np.nanmean(error):.2g}")
            parts.append(f"its own bar {np.mean(frame.bars):.2g}")
        if s.signal == "adaptive":
            low, high = frame.amplitudes.min(), frame.amplitudes.max()
            spread = f" ({low:.2g} to {high:.2g})" if low < high else ""
            parts.append(f"median amplitude <b>{frame.amplitude:.2g}</b>{spread}")
        if s.learning or frame.updates:
            test = self.runner.forecaster.test.get("error")
            parts.append(f"{frame.updates} updates of {BATCH} samples")
            if test is not None:
                parts.append(f"held-out accuracy {100 - test:.1f} %")
        parts.append(f"seed {s.seed}")
        return " &nbsp;·&nbsp; ".join(parts)

    # What can be saved.

    def _archive(self) -> io.BytesIO:
        """All data that are drawn, one CSV file for each curve, with the settings and the call."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("settings.json", json.dumps(vars(self.settings), indent=2) + "\n")
            archive.writestr("call.py", self.call)
            for name, table in self._pictures.tables().items():
                archive.writestr(f"{name}.csv", table.to_csv(index=False, na_rep="nan"))
        buffer.seek(0)
        return buffer

    def _saved_network(self) -> io.BytesIO:
        """The network with its weights of now; `oscsim.load` reads it."""
        with tempfile.TemporaryDirectory() as folder:
            path = checkpoint.save(self.engine.net, Path(folder) / "network.osc")
            return io.BytesIO(path.read_bytes())


def bar_in_words(frame: Frame, radius: float = math.inf) -> str:
    """What the gradient says of its own error, with the cause where the radius tells it; empty while it is not read."""
    if frame.error is None:
        return ""
    if frame.settings.signal != "two-phase":
        total = float(frame.error.total)
        if total > TOLERANCE and frame.amplitude > radius:
            return (
                f"gradient good to {100 * total:.2g} %: outside the analytic regime, past the convergence radius; "
                "lower the amplitude, or let it tune itself"
            )
        return str(frame.error)
    scatter = float(frame.error.contamination)
    if not np.isfinite(scatter):
        return "nothing after one cycle of two phases"
    return f"from cycle to cycle it scatters by {100 * scatter:.2g} %; the bias of its amplitude it cannot know"


def _own(
    network: str | Path | osc.AbstractNetwork, data: tuple[Data, Data] | None, held_out: tuple[Data, Data] | None
) -> tuple[dict[str, Example], str | None]:
    """A network of the user's own by its name, and the code that makes it."""
    if isinstance(network, str) and network in EXAMPLES:
        if data is not None:
            raise osc.BadValue(f"data belongs to a network of your own; network={network!r} has its own: leave it out")
        return {}, None
    origin = None
    if isinstance(network, (str, Path)):
        origin = f"net = osc.load({str(network)!r})\nx, y = ...  # the data that you gave to the lab"
        name, network = Path(network).name or "checkpoint", osc.load(network)
    else:
        name = "your network"
    if not isinstance(network, osc.AbstractNetwork):
        raise osc.BadType(f"network={network!r}: use a network with dynamics, such as LayeredNetwork(...)")
    if data is None:
        raise osc.BadValue("data is None: give data=(x, y) for a network of your own")
    x, y = data
    x_test, y_test = data if held_out is None else held_out
    return {name: Example(network, np.asarray(x), np.asarray(y), np.asarray(x_test), np.asarray(y_test))}, origin


def _logarithmic(value: float, grid: list[float], **kwargs: Any) -> pn.widgets.DiscreteSlider:
    return pn.widgets.DiscreteSlider(options=_named([*grid, value]), value=value, **kwargs)


def _named(values: Iterable[float]) -> dict[str, float]:
    return {f"{v:.4g}": v for v in sorted(set(values))}


def _button(
    label: str, action: Callable[[object], None], kind: str = "default", width: int = 90, outline: bool = False
) -> pn.widgets.Button:
    variant = "outline" if outline else "solid"
    button = pn.widgets.Button(
        label=label, color=kind, variant=variant, width=width, height=30, margin=(0, 3), **STYLED
    )
    button.on_click(action)
    return button


def _download(label: str, callback: Callable[[], io.BytesIO], filename: str, width: int) -> pn.widgets.FileDownload:
    file: dict[str, Any] = {"callback": callback, "filename": filename, "embed": False, "auto": True}
    return pn.widgets.FileDownload(label=label, icon=None, width=width, height=30, margin=(0, 3), **file, **STYLED)


def _carrier(source: ColumnDataSource) -> figure:
    """An empty figure that carries a source to the page."""
    plot = figure(
        width=1, height=1, toolbar_location=None, x_range=Range1d(start=0, end=1), y_range=Range1d(start=0, end=1)
    )
    plot.axis.visible = plot.grid.visible = False
    plot.scatter("number", "number", source=source, size=0)
    plot.tags = [0]
    # the page says what it has drawn: no frame is sent to a browser that still draws the one before
    code = "requestAnimationFrame(() => requestAnimationFrame(() => { plot.tags = [source.data.drawing[0]]; }));"
    source.js_on_change("data", CustomJS(args={"plot": plot, "source": source}, code=code))
    return plot


TOLD = ("amplitude", "period", "intensity", "correlation_time", "discard", "realisations", "sample", "learning_rate")
"""Settings that the page is told with each frame."""


def _status(settings: Settings, number: int, updates: int, drawing: int) -> dict[str, Any]:
    """What a frame is of, as columns of one row."""
    row = {"number": number, "updates": updates, "drawing": drawing, **{name: vars(settings)[name] for name in TOLD}}
    return {name: [value] for name, value in row.items()}


def _box(kind: str, text: str) -> str:
    return f"<div class='box {kind}'>{text}</div>"
