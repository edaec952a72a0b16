"""The page: knobs, pictures, words. It shows what the runner has, and never computes a cycle itself."""

import csv
import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, CustomJS, Range1d

from oscsim.core import checkpoint
from oscsim.core.errors import BadType, BadValue
from oscsim.dynamics.gradient_error import TOLERANCE
from oscsim.lab.call import python_call
from oscsim.lab.engine import BATCH, Engine, Frame
from oscsim.lab.figures import SLOTS, Pictures
from oscsim.lab.runner import HISTORY, Runner
from oscsim.lab.settings import EXAMPLES, LONGEST, MOST_REALISATIONS, PRESETS, SHORTEST, Example, Settings, steps_for
from oscsim.networks.base import AbstractNetwork
from oscsim.training.learning import load

DRAWN_EVERY = 10
"""Milliseconds between two looks at what is new."""

PATIENCE, SAID_EVERY = 1.0, 0.25
"""Seconds after which a browser that does not answer is sent the next frame, and between two changes of the words."""

GATHERED = 5
"""Milliseconds that a turned knob waits for further turns; Panel's own 50 are a third of what the eye allows."""

WIDTHS = {"classic": 184, "finite": 178, "too-large": 184, "lag": 160, "learns": 90, "diverges": 110}
"""Of the presets' buttons, in pixels."""

E24 = (
    1.0,
    1.1,
    1.2,
    1.3,
    1.5,
    1.6,
    1.8,
    2.0,
    2.2,
    2.4,
    2.7,
    3.0,
    3.3,
    3.6,
    3.9,
    4.3,
    4.7,
    5.1,
    5.6,
    6.2,
    6.8,
    7.5,
    8.2,
    9.1,
)
"""Steps of logarithmic knobs: the preferred numbers of IEC 60063."""

SHOWN = 6
"""Neurons that are drawn at first."""

GREETING = "A teaching signal turns at the output; its response is the gradient. Turn a knob."
"""What is said where no preset has been chosen, or its settings have been left."""

STYLE = (Path(__file__).parent / "style.css").read_text("utf-8")


class NoiseLab(pn.viewable.Viewer):
    """An oscilloscope for learning: a network oscillates live, and shows what its gradient is worth.

    In a Jupyter cell `osc.lab.NoiseLab()` as the last line shows it; `oscsim lab` serves it in the browser.

    Args:
        network: an example's name (`"6-4-4-4"`, `"digits"`), a network of your own, or the folder or file that
            `oscsim train` wrote one to.
        data: `(x, y)` for a network of your own; not with an example.
        held_out: `(x, y)` that it is judged on while it learns; by default the data themselves.
        running: whether it runs at once.
        predict: whether to compute, beside the cycles, what theory expects of them.
        **settings: see `Settings`, such as `amplitude=0.4, noise="white", intensity=0.1`.

    Raises:
        ValueError: a value out of its range, data that do not fit; names it and says what to use.
        TypeError: something that is no network.
        FileNotFoundError: no network in that place.
    """

    def __init__(
        self,
        network: str | AbstractNetwork = "6-4-4-4",
        data: Any = None,
        *,
        held_out: Any = None,
        running: bool = True,
        predict: bool = True,
        **settings: Any,
    ):
        super().__init__()
        own, self._origin = _own(network, data, held_out)
        name = next(iter(own)) if own else str(network)
        self.engine = Engine(Settings(network=name, **settings), own)
        self.runner = Runner(self.engine, predict=predict)
        self.settings = self.engine.settings
        self._frame: Frame | None = None
        self._pictures = Pictures()
        self._drawing: Any = None
        self._syncing = False
        self._turned = -PATIENCE  # when a knob was turned whose picture is still to come
        self._waiting: list[Frame] = []
        self._saying, self._said_of = GREETING, self.settings
        self._status = ColumnDataSource(_status(self.settings, 0, 0, 0), name="status")
        self._drawing_number, self._sent, self._said = 0, 0.0, 0.0
        self._build()
        self.runner.run(running)

    # What a program may do with it.

    def change(self, **changes: Any) -> None:
        """Turn knobs, as a hand would.

        Raises:
            ValueError: a value out of its range.
        """
        self.settings = self.settings.changed(**changes)
        self._sync()
        self.runner.change(**changes)

    def preset(self, name: str) -> None:
        """Set what shows one of the paper's points.

        Raises:
            ValueError: an unknown preset.
        """
        if name not in PRESETS:
            raise BadValue(f"name={name!r}: use one of {', '.join(map(repr, PRESETS))}")
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

    def __panel__(self) -> Any:
        if self._drawing is None:
            self._drawing = pn.state.add_periodic_callback(self._tick, period=DRAWN_EVERY)
        return self._page

    # How it is laid out.

    def _build(self) -> None:
        self._knobs = self._make_knobs()
        self._words = pn.pane.HTML("", css_classes=["words"], stylesheets=[STYLE], sizing_mode="stretch_width")
        self._numbers = pn.pane.HTML("", css_classes=["numbers"], stylesheets=[STYLE], sizing_mode="stretch_width")
        self._grid = pn.Column(sizing_mode="stretch_both", margin=0)
        self._code = pn.widgets.TextAreaInput(
            label="Python call that repeats these settings from rest (copied)",
            value="",
            height=330,
            sizing_mode="stretch_width",
            stylesheets=[STYLE],
            css_classes=["code"],
            max_length=20_000,
        )
        hide = _button("Close", lambda _: setattr(self._sheet, "visible", False))
        self._sheet = pn.Column(
            self._code, hide, visible=False, css_classes=["sheet"], stylesheets=[STYLE], sizing_mode="stretch_width"
        )
        self._carrier = _carrier(self._status)
        status = pn.pane.Bokeh(self._carrier, width=1, height=1, margin=0, css_classes=["hidden"])
        self._page = pn.Row(
            self._sidebar(),
            pn.Column(
                self._bar(),
                self._words,
                self._sheet,
                self._grid,
                pn.Row(self._numbers, status, margin=0, sizing_mode="stretch_width"),
                sizing_mode="stretch_both",
                margin=0,
                css_classes=["main"],
                stylesheets=[STYLE],
            ),
            sizing_mode="stretch_both",
            margin=0,
            min_height=640,
            css_classes=["lab"],
            stylesheets=[STYLE],
        )
        panes = self._panes = [
            pn.pane.Bokeh(figure, sizing_mode="stretch_both", margin=0, min_height=220)
            for figure in self._pictures.figures.values()
        ]
        self._grid[:] = [
            pn.Row(*panes[:4], sizing_mode="stretch_both", margin=0),
            pn.Row(*panes[4:], sizing_mode="stretch_both", margin=0),
        ]
        self._say()

    def _bar(self) -> Any:
        self._run = _button("Run", self._on_run, "primary", width=74)
        single = _button("Single cycle", lambda _: self._on_single(), width=96)
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
        save = pn.widgets.FileDownload(
            callback=self._archive,
            filename="oscsim-lab.zip",
            label="Save data",
            embed=False,
            auto=True,
            icon=None,
            width=92,
            height=30,
            margin=(0, 3),
            stylesheets=[STYLE],
        )
        network = pn.widgets.FileDownload(
            callback=self._saved_network,
            filename="network.osc",
            label="Save network",
            embed=False,
            auto=True,
            icon=None,
            width=108,
            height=30,
            margin=(0, 3),
            stylesheets=[STYLE],
        )
        gap = pn.Spacer(sizing_mode="stretch_width")
        lead = pn.pane.HTML("Show me:", css_classes=["lead"], stylesheets=[STYLE], margin=(0, 4))
        line: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": 0, "align": "center"}
        return pn.Column(
            pn.Row(self._run, single, reset, reseed, gap, copy, save, network, **line),
            pn.Row(lead, *presets, **line),
            sizing_mode="stretch_width",
            margin=(8, 8, 2, 8),
            styles={"gap": "6px"},
        )

    def _make_knobs(self) -> dict[str, Any]:
        settings = self.settings
        names = list(dict.fromkeys([*EXAMPLES, *self.engine.own]))
        slider: dict[str, Any] = {"sizing_mode": "stretch_width", "margin": (1, 6), "stylesheets": [STYLE]}
        knobs = {
            "signal": pn.widgets.Select(
                label="Signal",
                options={
                    "turning (holomorphic EP)": "turning",
                    "turning, tunes itself": "adaptive",
                    "two phases (classic EP)": "two-phase",
                },
                value=settings.signal,
                **slider,
            ),
            "amplitude": _logarithmic("Amplitude A", settings.amplitude, 0.001, 5.1, **slider),
            "period": pn.widgets.FloatSlider(
                label="Period T (τ)", start=SHORTEST, end=LONGEST, step=2.0, value=settings.period, **slider
            ),
            "noise": pn.widgets.Select(
                label="Noise",
                options={
                    "none": "none",
                    "white, on the potentials": "white",
                    "Ornstein–Uhlenbeck": "ornstein-uhlenbeck",
                    "multiplicative": "multiplicative",
                    "on the teaching signal": "teaching",
                    "in the readout": "readout",
                },
                value=settings.noise,
                **slider,
            ),
            "intensity": _logarithmic("Intensity q", settings.intensity, 0.001, 1.0, zero=True, **slider),
            "correlation_time": _logarithmic("Correlation time (τ)", settings.correlation_time, 0.5, 51.0, **slider),
            "demodulator": pn.widgets.Select(
                label="Demodulator",
                options={
                    "boxcar, one cycle": "boxcar",
                    "exponential, 5 cycles": "exponential",
                    "Hann window, 4 cycles": "hann",
                },
                value=settings.demodulator,
                **slider,
            ),
            "discard": pn.widgets.IntSlider(
                label="Discarded cycles", start=0, end=20, value=settings.discard, **slider
            ),
            "realisations": pn.widgets.IntSlider(
                label="Realisations", start=1, end=MOST_REALISATIONS, value=settings.realisations, **slider
            ),
            "network": pn.widgets.Select(label="Network", options=names, value=settings.network, **slider),
            "sample": pn.widgets.IntSlider(
                label="Input sample", start=0, end=self.engine.samples - 1, value=settings.sample, **slider
            ),
            "learning": pn.widgets.Checkbox(label="Weights learn", value=settings.learning, **slider),
            "learning_rate": _logarithmic("Learning rate", settings.learning_rate, 0.01, 3.0, **slider),
        }
        for name, knob in knobs.items():
            knob.css_classes = [f"knob-{name}"]
            for part in knob.select():
                part._debounce = GATHERED
            knob.param.watch(lambda event, name=name: self._on_knob(name, event.new), "value")
        self._neurons = pn.widgets.MultiSelect(
            label="Neurons shown (layer.neuron)", options=[], value=[], size=5, **slider
        )
        self._neurons.param.watch(lambda event: self._on_neurons(event.new), "value")
        return knobs

    def _sidebar(self) -> Any:
        def group(title: str, *parts: Any) -> list[Any]:
            heading = pn.pane.HTML(title, css_classes=["heading"], stylesheets=[STYLE], margin=(7, 6, 0, 6))
            return [heading, *parts]

        k = self._knobs
        return pn.Column(
            pn.pane.HTML("oscsim <b>lab</b>", css_classes=["title"], stylesheets=[STYLE], margin=(8, 6, 0, 6)),
            *group("Teaching signal", k["signal"], k["amplitude"], k["period"]),
            *group("Noise", k["noise"], k["intensity"], k["correlation_time"]),
            *group("Reading", k["demodulator"], k["discard"], k["realisations"], self._neurons),
            *group("Network", k["network"], k["sample"], k["learning"], k["learning_rate"]),
            width=236,
            sizing_mode="stretch_height",
            margin=0,
            css_classes=["side"],
            stylesheets=[STYLE],
            scroll=True,
        )

    def _name(self, names: tuple[str, ...], arrays: tuple[str, ...]) -> None:
        """Show another network."""
        self._pictures.name(names, arrays)
        count = max(1, SHOWN // len({name.split(".")[0] for name in names}))
        shown = [name for name in names if int(name.split(".")[-1]) <= count][: 2 * SHOWN]
        self._pictures.chosen = tuple(shown)
        self._syncing = True
        self._neurons.param.update(options=list(names), value=shown)
        self._knobs["sample"].param.update(end=self.engine.samples - 1, value=self.settings.sample)
        self._syncing = False

    # What the visitor does.

    def _on_knob(self, name: str, value: Any) -> None:
        if self._syncing or getattr(self.settings, name) == value:
            return
        value = type(getattr(self.settings, name))(value)  # a slider at 100 says 100, not 100.0
        changes = {name: value}
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

    def _on_run(self, _: Any) -> None:
        self.runner.run(not self.runner.running)

    def _on_single(self) -> None:
        self.runner.single()

    def _on_reset(self) -> None:
        self.runner.reset()
        self._pictures.forget()
        if self._frame is not None and self._frame.diverged:
            self.runner.single()

    def _on_copy(self) -> None:
        self._code.value = self.call
        self._sheet.visible = True

    def _sync(self) -> None:
        """Bring the knobs to the settings."""
        self._syncing = True
        try:
            for name, knob in self._knobs.items():
                value = getattr(self.settings, name)
                options = getattr(knob, "options", None)
                if isinstance(options, dict) and name in _LOGARITHMIC and value not in options.values():
                    knob.options = _named([*options.values(), value])
                if name == "sample" and self.settings.network != self.engine.settings.network:
                    continue
                if knob.value != value:
                    knob.value = value
            two = self.settings.signal == "two-phase"
            self._knobs["demodulator"].disabled = two
            self._knobs["correlation_time"].disabled = self.settings.noise not in ("ornstein-uhlenbeck", "teaching")
            self._knobs["intensity"].disabled = self.settings.noise == "none"
            self._knobs["sample"].disabled = self._knobs["realisations"].disabled = self.settings.learning
        finally:
            self._syncing = False

    # What it shows.

    def _tick(self) -> None:
        """Take up what is new, and draw it, unless the browser is still busy with what was drawn before."""
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
        frame = self._frame = frames[-1]
        arrays = tuple(name for name in frame.cosines if name != "all")[:SLOTS]
        if (frame.names, arrays) != (self._pictures.names, self._pictures.arrays):
            self._name(frame.names, arrays)
        current = [f for f in frames if f.names == frame.names and f.settings.network == frame.settings.network]
        self._pictures.add(current, self.runner.forecaster.forecast, self.runner.forecaster.test)

    def _draw(self, all_of_them: bool = True) -> None:
        frame, forecaster = self._frame, self.runner.forecaster
        if frame is None:
            return
        self._pictures.draw(forecaster.forecast, forecaster.map, all_of_them or not self.runner.running)
        self._drawing_number, self._sent = self._drawing_number + 1, time.monotonic()
        self._status.data = _status(frame.settings, frame.number, frame.updates, self._drawing_number)
        push = getattr(pn.io, "push_notebook", None)
        if push is not None and pn.state.curdoc is None:
            push(*self._panes)

    def _say(self) -> None:
        frame, runner = self._frame, self.runner
        running = runner.running
        self._run.label, self._run.color = ("Pause", "warning") if running else ("Run", "primary")
        words = self._words_now(frame)
        if self._words.object != words:
            self._words.object = words
        numbers = self._numbers_now(frame)
        if self._numbers.object != numbers:
            self._numbers.object = numbers

    def _words_now(self, frame: Frame | None) -> str:
        runner = self.runner
        if runner.problem:
            return _box("problem", f"<b>Refused:</b> {_escaped(runner.problem)}")
        if frame is not None and frame.diverged and frame.settings.amplitude == self.settings.amplitude:
            radius = runner.forecaster.forecast.radius if runner.forecaster.forecast else float("nan")
            turn = f"below {radius:.2g}, the convergence radius" if radius == radius else "or the intensity"
            what = frame.diverged.split(", under")[0]
            return _box(
                "problem",
                f"<b>Diverged.</b> {_escaped(what[0].upper() + what[1:])}. Turn the amplitude back {turn}: it starts "
                "again from rest.",
            )
        if frame is None or runner.compiling:
            return _box("busy", "Compiling the equations of these neurons, once: it takes a few seconds …")
        found = runner.forecaster.forecast
        note = runner.forecaster.problem or (found.note if found and found.fits(self.settings) else "")
        # what a preset says is of its settings, not of those that somebody turned to since
        same = self.settings.changed(seed=self._said_of.seed, realisations=self._said_of.realisations)
        said = self._saying if same == self._said_of else GREETING
        radius = found.radius if found and found.fits(self.settings) else math.inf
        own = "" if frame is None or frame.settings != self.settings else bar_in_words(frame, radius)
        parts = [_escaped(said), f"<b>It says of itself:</b> {_escaped(own)}." if own else ""]
        parts.append(f"<i>Note: {_escaped(note)}.</i>" if note else "")
        return _box("saying", " ".join(filter(None, parts)))

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
        error = frame.errors.get("all")
        if error is not None and np.isfinite(error).any():
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
            archive.writestr("settings.json", json.dumps(asdict(self.settings), indent=2) + "\n")
            archive.writestr("call.py", self.call)
            for name, columns in self._pictures.tables().items():
                archive.writestr(f"{name}.csv", _csv(columns))
        buffer.seek(0)
        return buffer

    def _saved_network(self) -> io.BytesIO:
        """The network with its weights of now; `oscsim.load` reads it."""
        import tempfile

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


def _own(network: str | AbstractNetwork, data: Any, held_out: Any) -> tuple[dict[str, Example], str | None]:
    """A network of the user's own by its name, and the code that makes it."""
    if isinstance(network, str) and network in EXAMPLES:
        if data is not None:
            raise BadValue(f"data belongs to a network of your own; network={network!r} has its own: leave it out")
        return {}, None
    origin = None
    if isinstance(network, (str, Path)):
        origin = f"net = osc.load({str(network)!r})\nx, y = ...  # the data that you gave to the lab"
        name, network = Path(network).name or "checkpoint", load(network)
    else:
        name = "your network"
    if not isinstance(network, AbstractNetwork):
        raise BadType(f"network={network!r}: use a network with dynamics, such as LayeredNetwork(...)")
    if data is None:
        raise BadValue("data is None: give data=(x, y) for a network of your own")
    x, y = data
    x_test, y_test = data if held_out is None else held_out
    return {name: Example(network, np.asarray(x), np.asarray(y), np.asarray(x_test), np.asarray(y_test))}, origin


_LOGARITHMIC = ("amplitude", "intensity", "correlation_time", "learning_rate")


def _logarithmic(name: str, value: float, low: float, high: float, zero: bool = False, **kwargs: Any) -> Any:
    grid = [float(f"{m * 10.0**e:.3g}") for e in range(-4, 3) for m in E24]
    values = [v for v in grid if low <= v <= high] + ([0.0] if zero else []) + [value]
    return pn.widgets.DiscreteSlider(label=name, options=_named(values), value=value, **kwargs)


def _named(values: list[float]) -> dict[str, float]:
    return {f"{v:.4g}": v for v in sorted(set(values))}


def _button(
    label: str, action: Callable[[Any], None], kind: Any = "default", width: int = 90, outline: bool = False
) -> Any:
    button = pn.widgets.Button(
        label=label,
        color=kind,
        variant="outline" if outline else "solid",
        width=width,
        height=30,
        margin=(0, 3),
        stylesheets=[STYLE],
    )
    button.on_click(action)
    return button


def _carrier(source: ColumnDataSource) -> Any:
    """An empty figure that carries a source to the page."""
    from bokeh.plotting import figure

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


def _status(settings: Settings, number: int, updates: int, drawing: int) -> Any:
    """What a frame is of, as columns of one row."""
    told = {name: [getattr(settings, name)] for name in TOLD}
    return {"number": [number], "updates": [updates], "drawing": [drawing], **told}


def _box(kind: str, html: str) -> str:
    return f"<div class='box {kind}'>{html}</div>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _csv(columns: dict[str, np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
