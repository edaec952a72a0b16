"""The page: knobs, figures, words. It shows the runner's frames and computes no cycle itself."""

import html
import io
import json
import math
import operator
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, CustomJS, Range1d
from bokeh.plotting import figure
from panel.io.notebook import push_notebook

import oscsim as osc
from oscsim.core import checkpoint
from oscsim.lab.call import python_call
from oscsim.lab.engine import Engine, Frame
from oscsim.lab.figures import Pictures
from oscsim.lab.forecast import Forecast, Map
from oscsim.lab.knobs import GROUPS, make_knobs, set_knobs
from oscsim.lab.runner import HISTORY, Runner
from oscsim.lab.settings import EXAMPLES, PRESETS, Example, Preset, Settings, Value, steps_for
from oscsim.lab.words import GREETING, KNOBS, TOUR, numbers, said
from oscsim.networks import Data

DRAWN_EVERY = 10
"""Milliseconds between two queries for new frames."""

PATIENCE, SAID_EVERY = 1.0, 0.25
"""Seconds until a browser that does not answer is sent the next frame; seconds between two changes of the words."""

STYLE = (Path(__file__).parent / "style.css").read_text("utf-8")

STYLED: dict[str, Any] = {"stylesheets": [STYLE]}
WIDE: dict[str, Any] = {"sizing_mode": "stretch_width", "stylesheets": [STYLE]}
FULL: dict[str, Any] = {"sizing_mode": "stretch_both", "margin": 0}

SIDE, LARGE = 236, 1.5
"""Width of the knobs in pixels; how much larger large letters are."""

FEW = 5
"""Cycles from a start in which all pictures are drawn at once."""

NO_STEP = -1
"""Without a tour."""


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
        self._read: Frame | None = None
        self._pictures = Pictures()
        self._drawing: pn.io.PeriodicCallback | None = None
        self._syncing = False
        self._turned = -PATIENCE  # when a knob was turned whose picture is still to come
        self._waiting: list[Frame] = []
        self._saying: Preset | None = None
        self._said_of, self._refused, self._step, self._stale = self.settings, "", NO_STEP, False
        self._drawn: tuple[Forecast | None, Map | None] = None, None
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
        self.settings, self._refused = self.settings.changed(**changes), ""
        self._sync()
        self.runner.change(**changes)

    def preset(self, name: str) -> None:
        """Choose a preset, start from rest, and run.

        Raises:
            ValueError: an unknown preset.
        """
        if name not in PRESETS:
            raise osc.BadValue(f"name={name!r}: use one of {', '.join(map(repr, PRESETS))}")
        self._leave_tour()
        self._start(PRESETS[name].changes)
        self._saying, self._said_of = PRESETS[name], self.settings

    def tour(self, step: int) -> None:
        """Show a step of the tour, from 0; past the last one it ends."""
        if not 0 <= step < len(TOUR):
            self._leave_tour()
            return
        self._step, self._saying = step, None
        self._start(TOUR[step].changes)
        self._moves.visible = True
        self._point()

    def restore(self, words: Mapping[str, str]) -> None:
        """Change to the settings that an address names; what is wrong there is said on the page."""
        try:
            settings = self.settings.restored(words)
            if settings.network not in (*EXAMPLES, *self.engine.own):
                raise osc.BadValue(f"network={settings.network[:40]!r} is not in this lab")
        except ValueError as error:
            self._refused = str(error)
        else:
            if settings != self.settings:
                self.change(**vars(settings))

    def _start(self, changes: dict[str, Value]) -> None:
        """Start from rest with these settings."""
        self.change(**changes)
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
        networks = list(dict.fromkeys([*EXAMPLES, *self.engine.own]))
        self._knobs = make_knobs(self.settings, networks, len(self.engine.example.x), **WIDE)
        for name, knob in self._knobs.items():
            knob.param.watch(lambda event, name=name: self._on_knob(name, event.new), "value")
        self._neurons = pn.widgets.MultiSelect(
            label="Neurons shown (Ctrl: several)",
            options=[],
            value=[],
            size=4,
            margin=(1, 6),
            **WIDE,
        )
        self._neurons.css_classes = ["help-neurons"]
        self._neurons.param.watch(lambda event: self._on_neurons(event.new), "value")
        self._key = pn.pane.HTML("", css_classes=["key"], margin=(2, 6), **WIDE)
        self._words = pn.pane.HTML("", css_classes=["words"], **WIDE)
        self._numbers = pn.pane.HTML("", css_classes=["numbers"], **WIDE)
        label = "Python call that repeats these settings from rest (copied)"
        self._code = pn.widgets.TextAreaInput(label=label, height=330, max_length=20_000, css_classes=["code"], **WIDE)
        hide = _button("Close", lambda: setattr(self._sheet, "visible", False))
        self._sheet = pn.Column(self._code, hide, visible=False, css_classes=["sheet"], **WIDE)
        steps = (("Back", -1), ("Next", 1))
        moves = [_button(name, lambda by=by: self.tour(self._step + by)) for name, by in steps]
        end = _button("End the tour", lambda: self._leave_tour())
        self._moves = _bar(*moves, end, margin=(4, 8, 0, 8), visible=False)
        self._carrier = _carrier(self._status)
        status = pn.pane.Bokeh(self._carrier, width=1, height=1, margin=0, css_classes=["hidden"])
        self._panes = {name: pn.pane.Bokeh(plot, **FULL) for name, plot in self._pictures.figures.items()}
        self._grid = pn.Column(*self._panes.values(), css_classes=["grid"], **FULL, **STYLED)
        below = pn.Row(self._numbers, status, margin=0, sizing_mode="stretch_width", styles={"overflow": "hidden"})
        parts = (*self._bars(), self._words, self._moves, self._sheet, self._grid, below)
        main = pn.Column(*parts, css_classes=["main"], **FULL, **STYLED)
        self._side = self._sidebar()
        self._page = pn.Row(self._side, main, min_height=640, css_classes=["lab"], **FULL, **STYLED)
        self._say()

    def _bars(self) -> tuple[pn.FlexBox, pn.FlexBox]:
        """What runs it and what saves it; below, what it can show."""
        self._run = _button("Run", lambda: self.runner.run(not self.runner.running), "run", "primary")
        copy = _button("Copy call", self._on_copy, "copy")
        copy.js_on_click(
            args={"code": self._code},
            code="""
            const clipboard = navigator.clipboard;
            const copied = () => { if (clipboard) clipboard.writeText(code.value).catch(() => {}); };
            const once = () => { code.properties.value.change.disconnect(once); copied(); };
            code.properties.value.change.connect(once); copied();
            """,
        )
        large = pn.widgets.Toggle(label="Large type", height=30, margin=0, css_classes=["help-large"], **STYLED)
        large.param.watch(lambda event: self._on_large(event.new), "value")
        top = (
            self._run,
            _button("Single cycle", self.runner.single, "single"),
            _button("Reset", self._on_reset, "reset"),
            _button("Reseed", lambda: self.change(seed=self.settings.seed + 1), "reseed"),
            large,
            copy,
            _download("Save data", self._archive, "oscsim-lab.zip", "save"),
            _download("Save network", self._saved_network, "network.osc", "keep"),
        )
        shows = [
            _button(preset.title, lambda name=name: self.preset(name), kind="primary", outline=True)
            for name, preset in PRESETS.items()
        ]
        lead = pn.pane.HTML("Show me:", css_classes=["lead"], margin=0, **STYLED)
        tour = _button("Tour", lambda: self.tour(0), "tour", "success", outline=True)
        return _bar(*top, margin=(8, 8, 4, 8)), _bar(lead, tour, *shows, margin=(0, 8, 2, 8))

    def _sidebar(self) -> pn.Column:
        parts = [pn.pane.HTML("oscsim <b>lab</b>", css_classes=["title"], margin=(8, 6, 0, 6), **STYLED)]
        for title, names in GROUPS.items():
            parts.append(pn.pane.HTML(title, css_classes=["heading"], margin=(7, 6, 0, 6), **STYLED))
            parts += [self._knobs[name] for name in names]
        side = {"width": SIDE, "sizing_mode": "stretch_height", "margin": 0, "scroll": True}
        return pn.Column(*parts, self._neurons, self._key, css_classes=["side"], **side, **STYLED)

    def _name(self, names: tuple[str, ...], arrays: tuple[str, ...]) -> None:
        """Show another network."""
        self._pictures.name(names, arrays)
        self._syncing = True
        self._neurons.param.update(options=list(names), value=list(self._pictures.chosen))
        self._knobs["sample"].param.update(end=len(self.engine.example.x) - 1, value=self.settings.sample)
        self._syncing = False
        self._colour_key()

    def _colour_key(self) -> None:
        lines = []
        for kind, names in self._pictures.key.items():
            chips = (f"<span><i style='border-color:{c}'></i>{html.escape(name)}</span>" for name, c in names)
            lines.append(f"<div class='key'>{kind}: {''.join(chips)}</div>")
        self._key.object = "".join(lines)

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
            self._refused = str(error)
            return
        self._refused = ""
        self._turned = time.monotonic()
        self._sync()
        diverged = self._frame is not None and self._frame.diverged
        self.runner.change(**changes)
        if diverged:
            self.runner.run()

    def _on_neurons(self, names: list[str]) -> None:
        if not self._syncing:
            self._pictures.chosen = tuple(names)
            self._colour_key()
            self._draw()

    def _on_large(self, large: bool) -> None:
        scale = LARGE if large else 1.0
        self._pictures.set_type(scale)
        self._page.styles, self._side.width = {"--type": f"{scale:g}"}, round(SIDE * (1 + (scale - 1) / 2))

    def _leave_tour(self) -> None:
        self._step = NO_STEP
        self._moves.visible = False
        self._point()
        self._say()

    def _point(self) -> None:
        """Frame the picture that the tour speaks of."""
        self._pictures.point(TOUR[self._step].picture if self._step != NO_STEP else "")

    def _on_reset(self) -> None:
        self.runner.reset()
        if self._frame is not None and self._frame.diverged:
            self.runner.single()

    def _on_copy(self) -> None:
        self._code.value = self.call
        self._sheet.visible = True

    def _sync(self) -> None:
        """Set the knobs and the address to the settings."""
        self._syncing = True
        try:
            elsewhere = self.settings.network != self.engine.settings.network
            set_knobs(self._knobs, self.settings, but=("sample",) if elsewhere else ())
        finally:
            self._syncing = False
        if pn.state.location is not None:
            pn.state.location.search = self.settings.link

    # What it shows.

    def _tick(self) -> None:
        """Draw the new frames, unless the browser still draws the one before."""
        now = time.monotonic()
        self._waiting += self.runner.frames()
        if self.runner.running and now - self._turned < PATIENCE and not self.runner.compiling:
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
            elif not self.runner.running and not all(map(operator.is_, self._answers(), self._drawn)):
                self._draw()  # a prediction came after the last frame
            if self.runner.compiling != self._stale or now - self._said > SAID_EVERY:
                self._said = now
                self._say()

    def _take(self, frames: list[Frame]) -> None:
        frame, before = frames[-1], self._frame
        self._frame = frame
        # while weights learn, cycles without a reading come between: the words stay with the last one that has one
        read = [f for f in frames if f.averaged or f.diverged]
        known = self._read
        if not frame.settings.learning or known is None or (known.era, known.settings) != (frame.era, frame.settings):
            self._read = frame
        elif read:
            self._read = read[-1]
        if before is None or (frame.names, list(frame.cosines)) != (before.names, list(before.cosines)):
            self._name(frame.names, tuple(frame.cosines))
        self._pictures.add([f for f in frames if f.era == frame.era], self.runner.forecaster.judged)

    def _answers(self) -> tuple[Forecast | None, Map | None]:
        """What is predicted of the weights that are shown."""
        return self.runner.forecaster.of(self._frame.weights) if self._frame is not None else (None, None)

    def _draw(self, all_of_them: bool = True) -> None:
        frame = self._frame
        if frame is None:
            return
        self._drawn = self._answers()
        few = len(self._pictures.past) < FEW  # nothing stays empty after a start
        self._pictures.draw(*self._drawn, all_of_them or few or not self.runner.running)
        self._drawing_number, self._sent = self._drawing_number + 1, time.monotonic()
        self._status.data = _status(frame.settings, frame.number, frame.updates, self._drawing_number)
        if pn.state.curdoc is None:
            push_notebook(*self._panes.values())

    def _say(self) -> None:
        runner, frame, settings = self.runner, self._read, self.settings
        self._run.label, self._run.color = ("Pause", "warning") if runner.running else ("Run", "primary")
        self._stale = runner.compiling
        if self._stale and self._pictures.past and frame is not None and frame.settings.network != settings.network:
            self._pictures.blank()
        self._grid.css_classes = ["grid", "stale"] if self._stale else ["grid"]
        found, _ = self._answers()
        note = runner.forecaster.problem or (found.note if found is not None and found.fits(settings) else "") or ""
        radius = found.radius if found is not None else math.inf
        # what a preset says is of its settings, not of those that somebody turned to since
        same = settings.changed(seed=self._said_of.seed, realisations=self._said_of.realisations)
        preset = self._saying if same == self._said_of else None
        refused = runner.problem or self._refused
        kind, text = said(frame, settings, preset, radius, busy=self._stale, note=note, refused=refused)
        if self._step != NO_STEP:
            step = TOUR[self._step]
            if kind == "saying":
                kind = "tour"
            where = f"<b>Step {self._step + 1} of {len(TOUR)}. {html.escape(step.title)}.</b> {html.escape(step.words)}"
            text = f"{where}<br>{text.removeprefix(html.escape(GREETING))}"
        self._words.object = f"<div class='box {kind}' role='status'>{text}</div>"
        if frame is not None:
            judged = runner.forecaster.judged
            held_out = judged.accuracy if judged is not None and judged.era == frame.era else None
            self._numbers.object = numbers(frame, runner.rate if runner.running else 0.0, held_out)

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
        name += " (yours)" if name in EXAMPLES else ""  # the lab's own of that name stays in the list
    else:
        name = "your network"
    if not isinstance(network, osc.AbstractNetwork):
        raise osc.BadType(f"network={network!r}: use a network with dynamics, such as LayeredNetwork(...)")
    if data is None:
        raise osc.BadValue("data is None: give data=(x, y) for a network of your own")
    x, y = data
    x_test, y_test = data if held_out is None else held_out
    return {name: Example(network, np.asarray(x), np.asarray(y), np.asarray(x_test), np.asarray(y_test))}, origin


def _bar(*parts: pn.viewable.Viewable, **look: Any) -> pn.FlexBox:
    """A row that breaks where the page is narrow."""
    return pn.FlexBox(*parts, gap="6px", align_items="center", sizing_mode="stretch_width", **look)


def _button(
    label: str, action: Callable[[], object], helped: str = "", kind: str = "default", *, outline: bool = False
) -> pn.widgets.Button:
    variant, classes = "outline" if outline else "solid", [f"help-{helped}"] if helped else []
    button = pn.widgets.Button(
        label=label, color=kind, variant=variant, height=30, margin=0, css_classes=classes, **STYLED
    )

    def press(_: object) -> None:
        action()

    button.on_click(press)
    return button


def _download(label: str, callback: Callable[[], io.BytesIO], filename: str, helped: str) -> pn.widgets.FileDownload:
    file: dict[str, Any] = {"callback": callback, "filename": filename, "embed": False, "auto": True}
    look: dict[str, Any] = {"height": 30, "margin": 0, "css_classes": [f"help-{helped}"]}
    return pn.widgets.FileDownload(label=label, icon=None, **look, **file, **STYLED)


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
    source.js_on_change("data", CustomJS(args={"source": source, "help": KNOBS}, code=HELP))
    return plot


HELP = """
    if (source.data.drawing[0] % 25 !== 1) return;  // widgets that are made anew lose it
    const visit = (root) => {
        for (const element of root.querySelectorAll("*")) {
            if (element.shadowRoot) visit(element.shadowRoot);
            const name = [...element.classList].find((name) => name.startsWith("help-"))?.slice(5);
            if (name === undefined || !element.shadowRoot) continue;
            element.title = help[name];
            for (const part of element.shadowRoot.querySelectorAll("input, select, button, a, [role=slider]"))
                part.setAttribute("aria-label", `${part.textContent.trim() || name}: ${help[name]}`);
        }
    };
    visit(document);
"""
"""Says what a knob does where one points at it, and to a screen reader: Panel has no property for that."""


TOLD = ("amplitude", "period", "intensity", "correlation_time", "discard", "realisations", "sample", "learning_rate")
"""Settings that the page is told with each frame."""


def _status(settings: Settings, number: int, updates: int, drawing: int) -> dict[str, Any]:
    """What a frame is of, as columns of one row."""
    row = {"number": number, "updates": updates, "drawing": drawing, **{name: vars(settings)[name] for name in TOLD}}
    return {name: [value] for name, value in row.items()}
