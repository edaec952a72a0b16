"""The pictures of the lab: Bokeh figures, and the columns that stream into them."""

# Bokeh's models have properties that take more than their annotations say: a range a number, a font size a string.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportPrivateImportUsage=false
# pyright: reportOptionalMemberAccess=false

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
from bokeh.core.properties import value
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    CustomJS,
    FixedTicker,
    HoverTool,
    Label,
    Legend,
    LegendItem,
    LinearAxis,
    LinearColorMapper,
    Range1d,
    Span,
)
from bokeh.plotting import figure

from oscsim.lab.engine import WINDOW, Frame
from oscsim.lab.forecast import HARMONICS, Forecast, Map, frequencies
from oscsim.networks.inputs import Data
from oscsim.plot.style import COLOURS, DRIVE

PAST = 240
"""Cycles that the curves over cycles go back."""

DRAWN = 160
"""Points that are drawn of one cycle."""

INK, GRID, LOST, SETTLED = "#1f2933", "#e6e9ee", "#e3d5cf", "#dcebf7"
"""Colours of text, of grids, and of the two parts of the stability map."""

BAR = "#E69F00"
"""Colour of what the gradient says of its own error."""

SMALLEST = 1e-7
"""Where logarithmic axes end: below it is the rounding of float32."""

DASHES = ("solid", [6, 3], [2, 2])


SLOTS = 6
"""Curves for parameter arrays at most, besides that for all of them together."""


class Pictures:
    """Eight figures, for any network: another one brings other names, not other figures.

    Attributes:
        names: of the watched neurons.
        arrays: of the parameter arrays whose gradients are compared, in the order of their curves; `all` has its own.
        chosen: which of the watched neurons are drawn.
    """

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.arrays: tuple[str, ...] = ()
        self.chosen: tuple[str, ...] = ()
        self._labels: list[LegendItem] = []
        self._entries: list[LegendItem] = []
        self.past: deque[Frame] = deque(maxlen=PAST)
        self.expected: deque[Forecast | None] = deque(maxlen=PAST)
        self.learned: deque[tuple[int, float, float]] = deque(maxlen=2000)
        self.tested: deque[tuple[int, float]] = deque(maxlen=500)
        self.sources: dict[str, ColumnDataSource] = {}
        self._map: Map | None = None
        self._turn = 0
        self.figures = {
            "plane": self._plane(),
            "orbits": self._orbits(),
            "traces": self._traces(),
            "spectrum": self._spectrum(),
            "cosine": self._cosine(),
            "error": self._error(),
            "snr": self._snr(),
            "learning": self._learning(),
        }

    # The figures.

    def _source(self, name: str, /, **columns: Any) -> ColumnDataSource:
        self.sources[name] = ColumnDataSource(columns, name=name)
        return self.sources[name]

    def _legend(self, plot: Any, items: list[tuple[str, list[Any]]], place: str) -> list[LegendItem]:
        """A legend that shows what has data, in a corner of the plot or above it."""
        entries = [LegendItem(label=label, renderers=renderers, visible=False) for label, renderers in items]
        outside = place == "above"
        legend = Legend(
            items=entries,
            location="top_left" if outside else place,
            orientation="horizontal" if outside else "vertical",
            label_text_font_size="11px",
            label_text_color=INK,
            glyph_width=16,
            glyph_height=12,
            spacing=8 if outside else 0,
            padding=0 if outside else 4,
            margin=2 if outside else 4,
            border_line_color=None,
            background_fill_alpha=0.75,
            label_height=14,
            label_standoff=4,
        )
        plot.add_layout(legend, "above" if outside else "center")
        self._entries += entries
        return entries

    def _plane(self) -> Any:
        plot = _figure("plane", "β on the stability map", "Re β", "Im β")
        image = self._source("map", image=[np.full((2, 2), np.nan)], x=[-1.0], y=[-1.0], size=[2.0])
        mapper = LinearColorMapper(palette=[LOST, SETTLED], low=0, high=1, nan_color="white")
        plot.image("image", x="x", y="y", dw="size", dh="size", source=image, color_mapper=mapper, level="image")
        circle = self._source("radius", x=[], y=[])
        plot.line("x", "y", source=circle, color=COLOURS[1], line_dash=[4, 3], line_width=1.5)
        drive = self._source("teaching", x=[], y=[])
        plot.line("x", "y", source=drive, color=DRIVE, line_width=2)
        head = self._source("teaching_now", x=[], y=[])
        plot.scatter("x", "y", source=head, color=DRIVE, size=9)
        self.plane_note = Label(
            x=6,
            y=6,
            x_units="screen",
            y_units="screen",
            text="",
            text_font_size="11px",
            text_color=INK,
            background_fill_color="white",
            background_fill_alpha=0.75,
        )
        plot.add_layout(self.plane_note)
        _square(plot)
        return plot

    def _orbits(self) -> Any:
        plot = _figure("orbits", "Neurons in the complex plane", "Re (s − c₀)", "Im (s − c₀)")
        source = self._source("orbits", xs=[], ys=[], colour=[], name=[], dash=[])
        lines = plot.multi_line(
            "xs", "ys", source=source, color="colour", line_dash="dash", line_width=1.6, line_alpha=0.9
        )
        heads = self._source("orbits_now", x=[], y=[], colour=[])
        plot.scatter("x", "y", source=heads, color="colour", size=7)
        plot.add_tools(HoverTool(renderers=[lines], tooltips="neuron @name"))
        _square(plot)
        return plot

    def _traces(self) -> Any:
        plot = _figure("traces", "Traces", "time to the end of the cycle (τ)", "Re (s − c₀)")
        source = self._source("traces", xs=[], ys=[], colour=[], name=[], dash=[])
        lines = plot.multi_line(
            "xs", "ys", source=source, color="colour", line_dash="dash", line_width=1.5, line_alpha=0.9
        )
        drive = self._source("traces_teaching", x=[], y=[])
        plot.extra_y_ranges = {"drive": Range1d(-1, 1)}
        axis = LinearAxis(y_range_name="drive", axis_label="Re β (dotted)")
        _style_axis(axis)
        plot.add_layout(axis, "right")
        plot.line(
            "x", "y", source=drive, color=DRIVE, line_dash="dotted", line_width=1.6, y_range_name="drive", level="glyph"
        )
        plot.add_tools(HoverTool(renderers=[lines], tooltips="neuron @name"))
        plot.x_range, plot.y_range = Range1d(0, 200), Range1d(-1, 1)
        return plot

    def _spectrum(self) -> Any:
        plot = _figure("spectrum", "Spectrum", "frequency × period", "|coefficient|", y_axis_type="log")
        source = self._source("spectrum", xs=[], ys=[], colour=[], name=[])
        lines = plot.multi_line("xs", "ys", source=source, color="colour", line_width=1.1, line_alpha=0.75)
        peaks = self._source("harmonics", x=[], y=[], colour=[])
        dots = plot.scatter("x", "y", source=peaks, color="colour", size=6)
        floor = self._source("floor", xs=[], ys=[], colour=[])
        dashes = plot.multi_line("xs", "ys", source=floor, color="colour", line_dash=[5, 3], line_width=2)
        plot.x_range, plot.y_range = Range1d(-HARMONICS - 0.3, HARMONICS + 0.3), Range1d(1e-6, 1)
        plot.xaxis.ticker = plot.xgrid.ticker = FixedTicker(ticks=list(range(-HARMONICS, HARMONICS + 1, 2)))
        self._legend(plot, [("measured", [lines]), ("harmonic", [dots]), ("predicted floor", [dashes])], "top_left")
        return plot

    def _cosine(self) -> Any:
        plot = _figure("cosine", "Direction of the gradient", "cycle", "cosine to the exact gradient")
        _past_lines(self, plot, "cosine")
        plot.y_range = Range1d(-1.05, 1.05)
        return plot

    def _error(self) -> Any:
        plot = _figure("error", "Error of the gradient", "cycle", "relative error", y_axis_type="log")
        band = self._source("error_band", x=[], low=[], high=[])
        area = plot.varea(x="x", y1="low", y2="high", source=band, fill_color="#7b8794", fill_alpha=0.22)
        bias = self._source("error_bias", x=[], y=[])
        dotted = plot.line("x", "y", source=bias, color=DRIVE, line_dash="dotted", line_width=1.6)
        below = self._source("error_bar_area", x=[], low=[], high=[])
        shade = plot.varea(x="x", y1="low", y2="high", source=below, fill_color=BAR, fill_alpha=0.2)
        own = self._source("error_bar", x=[], y=[])
        edge = plot.line("x", "y", source=own, color=BAR, line_dash=[10, 3, 2, 3], line_width=2.4)
        more = [("predicted band", [area]), ("predicted bias", [dotted]), ("its own bar", [shade, edge])]
        _past_lines(self, plot, "error", more)
        plot.y_range = Range1d(1e-4, 10)
        return plot

    def _snr(self) -> Any:
        plot = _figure("snr", "Signal to noise", "amplitude of β", "|∇L| / error", x_axis_type="log", y_axis_type="log")
        curve = self._source("snr_curve", x=[], y=[])
        line = plot.line("x", "y", source=curve, color=COLOURS[0], line_width=2)
        now = self._source("snr_now", x=[], y=[], low=[], high=[])
        plot.segment("x", "low", "x", "high", source=now, color=COLOURS[1], line_width=2)
        dot = plot.scatter("x", "y", source=now, color=COLOURS[1], size=9)
        best = self._source("snr_best", x=[], y=[])
        star = plot.scatter("x", "y", source=best, color=COLOURS[2], size=14, marker="star")
        self.optimum = Span(dimension="height", line_color=COLOURS[2], line_dash=[4, 3], visible=False)
        self.beyond = BoxAnnotation(left=1e9, fill_color=LOST, fill_alpha=0.6, level="underlay")
        plot.add_layout(self.optimum)
        plot.add_layout(self.beyond)
        plot.x_range, plot.y_range = Range1d(0.001, 5.1), Range1d(0.1, 1e3)
        self._legend(plot, [("predicted", [line]), ("optimal", [star]), ("now", [dot])], "top_left")
        return plot

    def _learning(self) -> Any:
        plot = _figure("learning", "Loss and accuracy", "cycle", "loss")
        loss = self._source("loss", x=[], y=[])
        line = plot.line("x", "y", source=loss, color=COLOURS[0], line_width=2)
        plot.extra_y_ranges = {"percent": Range1d(0, 104)}
        axis = LinearAxis(y_range_name="percent", axis_label="accuracy (%)")
        _style_axis(axis)
        plot.add_layout(axis, "right")
        accuracy = self._source("accuracy", x=[], y=[])
        dots = plot.line("x", "y", source=accuracy, color=COLOURS[2], line_width=1.4, y_range_name="percent")
        test = self._source("test_accuracy", x=[], y=[])
        held_out = plot.scatter("x", "y", source=test, color=COLOURS[1], size=6, y_range_name="percent")
        plot.x_range, plot.y_range = Range1d(0, 20), Range1d(0, 2.5)
        self._legend(plot, [("loss", [line]), ("batch", [dots]), ("held out", [held_out])], "above")
        return plot

    # What streams into them.

    def name(self, names: tuple[str, ...], arrays: tuple[str, ...]) -> None:
        """Show another network: of these neurons, with these parameter arrays."""
        self.forget()
        self.names, self.arrays = names, tuple(name for name in arrays if name != "all")[:SLOTS]
        for item, array in zip(self._labels, self.arrays, strict=False):
            item.label = value(array)
        for kind in ("cosine", "error"):
            for slot in range(SLOTS):
                self.sources[f"{kind}/{slot}"].data = _xy([], [])

    def forget(self) -> None:
        """Start all curves over cycles anew."""
        self.past.clear()
        self.expected.clear()
        self.learned.clear()
        self.tested.clear()

    def add(self, frames: Iterable[Frame], forecast: Forecast | None, test: dict[str, float]) -> None:
        """Take up new frames, and what was expected of them."""
        for frame in frames:
            if self.past and frame.number <= self.past[-1].number:
                self.forget()
            self.past.append(frame)
            self.expected.append(None)
            self.learned.append((frame.number, frame.loss, frame.accuracy))
            error = test.get("error")
            if frame.settings.learning and error is not None and (not self.tested or self.tested[-1][1] != 100 - error):
                self.tested.append((frame.number, 100 - error))
        for place in range(len(self.past) - 1, -1, -1):  # a prediction comes later than the first cycles that it is for
            if forecast is None or self.expected[place] is not None or not forecast.fits(self.past[place].settings):
                break
            self.expected[place] = forecast if forecast.note is not None else None

    def draw(self, forecast: Forecast | None, found: Map | None, all_of_them: bool = True) -> None:
        """Bring the figures up to the last frame.

        Without `all_of_them` those of the cycle itself, and one of the others in turn: a browser has much to do to
        draw eight, and what shows many cycles changes little from one to the next.
        """
        if not self.past:
            return
        frame = self.past[-1]
        if frame.settings.learning or (forecast is not None and forecast.settings.network != frame.settings.network):
            forecast, found = None, None  # they are of other weights
        self._draw_plane(frame, forecast, found)
        if not frame.samples.shape[1]:
            return
        places = [self.names.index(name) for name in self.chosen if name in self.names]
        self._draw_neurons(frame, places)
        others = (
            lambda: self._draw_spectrum(frame, forecast, places),
            lambda: self._draw_past("cosine"),
            lambda: self._draw_past("error"),
            lambda: self._draw_snr(frame, forecast),
            self._draw_learning,
        )
        self._turn = (self._turn + 1) % len(others)
        for place, draw in enumerate(others):
            if all_of_them or place == self._turn:
                draw()
        for item in self._entries:
            item.visible = any(_shows(line.data_source.data) for line in item.renderers)

    def _draw_plane(self, frame: Frame, forecast: Forecast | None, found: Map | None) -> None:
        amplitude = frame.amplitude
        if found is None and self._map is not None:
            self._map = None
            self.sources["map"].data = {"image": [np.full((2, 2), np.nan)], "x": [-1.0], "y": [-1.0], "size": [2.0]}
        if found is not self._map and found is not None:
            self._map = found
            edge = found.reach * (1 + 1 / (len(found.settled) - 1))
            self.sources["map"].data = {"image": [found.settled], "x": [-edge], "y": [-edge], "size": [2 * edge]}
        radius = math.inf if forecast is None else forecast.radius
        angle = np.linspace(0, 2 * np.pi, 90)
        finite = math.isfinite(radius)
        self.sources["radius"].data = _xy(radius * np.cos(angle), radius * np.sin(angle)) if finite else _xy([], [])
        beta = frame.teaching[-(len(frame.teaching) // max(1, len(frame.window[-2:]))) :]
        beta = beta[_thin(len(beta))]
        closed = np.append(beta, beta[:1])
        self.sources["teaching"].data = _xy(closed.real, closed.imag)
        self.sources["teaching_now"].data = _xy(beta.real[-1:], beta.imag[-1:])
        reach = 1.25 * amplitude if found is None else max(found.reach, 1.25 * amplitude)
        _reach(self.figures["plane"], reach)
        where = ""
        if finite:
            where = f"A = {amplitude:.3g}, radius ≈ {radius:.3g}: " + ("below" if amplitude < radius else "PAST IT")
        elif forecast is not None:
            where = f"A = {amplitude:.3g}, no radius found"
        if self.plane_note.text != where:
            self.plane_note.text = where

    def _draw_neurons(self, frame: Frame, places: list[int]) -> None:
        colours = _colours(places)
        dashes = [DASHES[i // len(COLOURS) % len(DASHES)] for i in range(len(places))]
        names = [self.names[i] for i in places]
        cycle = frame.window.shape[2]
        last = frame.window[-1][places]
        about = last - last.mean(axis=1, keepdims=True)
        keep = _thin(cycle)
        self.sources["orbits"].data = {
            "xs": list(about.real[:, keep]),
            "ys": list(about.imag[:, keep]),
            "colour": colours,
            "name": names,
            "dash": dashes,
        }
        self.sources["orbits_now"].data = {"x": about.real[:, -1], "y": about.imag[:, -1], "colour": colours}
        size = float(np.abs(about).max(initial=1e-6))
        _reach(self.figures["orbits"], 1.15 * size, steady=True)

        both = frame.samples[places] - last.mean(axis=1, keepdims=True)
        keep = np.concatenate([keep + i * cycle for i in range(both.shape[1] // cycle)])
        period = frame.settings.period
        # back from the end of the cycle: an axis that stands need not be laid out anew for every frame
        time = period * ((1 + keep) / cycle - both.shape[1] // cycle)
        self.sources["traces"].data = {
            "xs": [time] * len(places),
            "ys": list(both.real[:, keep]),
            "colour": colours,
            "name": names,
            "dash": dashes,
        }
        beta = frame.teaching[keep].real
        self.sources["traces_teaching"].data = _xy(time, beta)
        plot = self.figures["traces"]
        _limits(plot.x_range, -2 * period, 0.0)
        # zero stands at the same height on both axes, and the signal has more room, so that no curve hides it
        plot.y_range.update(**_hysteresis(plot.y_range, 1.15 * float(np.abs(both.real).max(initial=1e-6))))
        drive = 1.3 * max(float(np.abs(frame.teaching).max(initial=0.0)), 1e-6)
        _limits(plot.extra_y_ranges["drive"], -drive, drive)

    def _draw_spectrum(self, frame: Frame, forecast: Forecast | None, places: list[int]) -> None:
        colours = _colours(places)
        cycles = len(frame.window)
        joined = frame.window[:, places].transpose(1, 0, 2).reshape(len(places), -1)
        spectrum = np.abs(np.fft.fft(joined, axis=1)) / joined.shape[1]
        number = np.arange(-HARMONICS * cycles, HARMONICS * cycles + 1)
        seen = np.maximum(spectrum[:, number], SMALLEST)
        at = number / cycles
        whole = number % cycles == 0
        self.sources["spectrum"].data = {
            "xs": [at] * len(places),
            "ys": list(seen),
            "colour": colours,
            "name": [self.names[i] for i in places],
        }
        self.sources["harmonics"].data = {
            "x": np.tile(at[whole], len(places)),
            "y": seen[:, whole].ravel(),
            "colour": np.repeat(colours, int(whole.sum())),
        }
        floor = None if forecast is None or frame.settings.learning else forecast.floor
        full = np.zeros((0, 0)) if floor is None else floor[places] * math.sqrt(WINDOW / cycles)
        self.sources["floor"].data = {
            "xs": [frequencies()] * len(full),
            "ys": list(np.maximum(full, SMALLEST)),
            "colour": colours[: len(full)],
        }
        top = 10.0 ** math.ceil(math.log10(max(float(seen.max(initial=SMALLEST)), 1e-3) * 1.5))
        _limits(self.figures["spectrum"].y_range, SMALLEST, top)

    def _draw_past(self, kind: str) -> None:
        # While weights learn, each batch has cycles that are discarded: the curves go on over them.
        pairs = [
            (frame, expected)
            for frame, expected in zip(self.past, self.expected, strict=True)
            if frame.averaged or frame.diverged or not frame.settings.learning
        ] or [(self.past[-1], self.expected[-1])]
        past = [frame for frame, _ in pairs]
        number = np.array([frame.number for frame in past], float)
        rows = [frame.cosines if kind == "cosine" else frame.errors for frame in past]
        table = np.array([[_mean(row.get(name)) for name in (*self.arrays, "all")] for row in rows])
        for slot, column in zip((*range(len(self.arrays)), "all"), table.T, strict=True):
            self.sources[f"{kind}/{slot}"].data = _xy(number, column)
        plot = self.figures[kind]
        _limits(plot.x_range, number[0], max(number[-1], number[0] + 20))
        bands = np.array([_band(*pair) for pair in pairs])
        if kind == "cosine":
            self.sources["cosine_predicted"].data = _xy(number, bands[:, 3])
            lowest = float(np.nanmin(table)) if np.isfinite(table).any() else 0.0
            _limits(plot.y_range, -1.05 if lowest < -0.05 else -0.05 if lowest < 0.8 else 0.78, 1.02)
            return
        known = np.isfinite(bands[:, 2])
        self.sources["error_band"].data = {
            "x": number[known],
            "low": np.maximum(bands[known, 0], SMALLEST),
            "high": bands[known, 2],
        }
        self.sources["error_predicted"].data = _xy(number, bands[:, 1])
        self.sources["error_bias"].data = _xy(number, bands[:, 0])
        bars = np.array([_mean(frame.bars) for frame in past])
        self.sources["error_bar"].data = _xy(number, bars)
        known = np.isfinite(bars)
        self.sources["error_bar_area"].data = {
            "x": number[known],
            "low": np.full(known.sum(), SMALLEST),
            "high": bars[known],
        }
        values = np.concatenate([table.ravel(), bands[:, 0], bands[:, 2], bars])
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
            low, high = max(low, -7), min(max(high, low + 2), 4)
            _limits(plot.y_range, 10.0**low, 10.0 ** (high + 0.3 * (high - low)))  # room for the legend

    def _draw_snr(self, frame: Frame, forecast: Forecast | None) -> None:
        amplitude = frame.amplitude
        errors = frame.errors.get("all", np.array([np.nan]))
        plot = self.figures["snr"]
        if np.isfinite(errors).any():
            ratio = 1 / math.sqrt(float(np.nanmean(errors**2)))
            low, high = (1 / float(np.nanmax(errors)), 1 / float(np.nanmin(errors)))
            self.sources["snr_now"].data = {"x": [amplitude], "y": [ratio], "low": [low], "high": [high]}
        else:
            self.sources["snr_now"].data = {"x": [], "y": [], "low": [], "high": []}
        quiet = forecast is None or frame.settings.learning
        radius = math.inf if forecast is None else forecast.radius
        self.beyond.left = radius if math.isfinite(radius) else 1e9
        axis = np.geomspace(0.001, min(5.1, radius), 80)
        curve = None if quiet or forecast is None else forecast.error(axis, frame.averaged)
        ratio = np.zeros(0) if curve is None else 1 / np.maximum(curve, SMALLEST)
        self.sources["snr_curve"].data = _xy(axis[: len(ratio)], ratio)
        best = None if quiet or forecast is None else forecast.optimum
        self.optimum.visible = best is not None
        if best is not None and forecast is not None:
            self.optimum.location = best.amplitude
            at = forecast.error(best.amplitude, frame.averaged)
            self.sources["snr_best"].data = _xy([best.amplitude], [1 / float(at)] if at is not None else [1.0])
        else:
            self.sources["snr_best"].data = _xy([], [])
        values = np.concatenate([ratio, np.asarray(self.sources["snr_now"].data["y"], float)])
        values = values[np.isfinite(values) & (values > 0)]
        if len(values):
            low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(1.3 * values.max()))
            _limits(plot.y_range, 10.0**low, 10.0 ** max(high, low + 1))

    def _draw_learning(self) -> None:
        number, loss, accuracy = (np.array(a, float) for a in zip(*self.learned, strict=True))
        self.sources["loss"].data = _xy(number, loss)
        self.sources["accuracy"].data = _xy(number, accuracy)
        tested = np.array(self.tested, float).reshape(-1, 2)
        self.sources["test_accuracy"].data = _xy(tested[:, 0], tested[:, 1])
        plot = self.figures["learning"]
        _limits(plot.x_range, number[0], max(number[-1], number[0] + 20))
        finite = loss[np.isfinite(loss)]
        if len(finite):
            _limits(plot.y_range, 0.0, 1.1 * float(np.ceil(10 * finite.max()) / 10))

    def tables(self) -> dict[str, dict[str, np.ndarray]]:
        """The data of every figure as columns, by the name of the figure's part."""
        found = {}
        for name, source in self.sources.items():
            columns = dict(source.data)
            if "xs" in columns:
                lengths = [len(a) for a in columns["xs"]]
                rows = {
                    "x": np.concatenate([*columns["xs"], []]),
                    "y": np.concatenate([*columns["ys"], []]),
                    **({"neuron": np.repeat(columns["name"], lengths)} if "name" in columns and lengths else {}),
                }
            elif name == "map":
                image = np.asarray(columns["image"][0])
                edge = -columns["x"][0] * (1 - 1 / len(image)) if len(image) > 1 else 0.0
                axis = np.linspace(-edge, edge, len(image))
                re, im = np.meshgrid(axis, axis)
                rows = {"re": re.ravel(), "im": im.ravel(), "settled": image.ravel()}
            else:
                rows = {key: np.asarray(a) for key, a in columns.items() if key != "colour"}
            kind, _, slot = name.partition("/")
            if slot.isdigit():
                if int(slot) >= len(self.arrays):
                    continue
                name = f"{kind} {self.arrays[int(slot)]}"
            found[name.replace("/", " ")] = rows
        return found


def _figure(name: str, title: str, x: str, y: str, **kwargs: Any) -> Any:
    plot = figure(
        name=f"{name} figure",
        title=title,
        x_axis_label=x,
        y_axis_label=y,
        tools="pan,wheel_zoom,reset,save",
        sizing_mode="stretch_both",
        min_width=200,
        min_height=200,
        min_border_right=12,
        output_backend="canvas",
        toolbar_location="above",
        **kwargs,
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.title.text_font_size = "13px"
    plot.title.text_color = INK
    plot.title.text_font_style = "bold"
    plot.outline_line_color = None
    plot.grid.grid_line_color = GRID
    for axis in plot.axis:
        _style_axis(axis)
    for axis, kind in ((plot.xaxis[0], "x_axis_type"), (plot.yaxis[0], "y_axis_type")):
        if kwargs.get(kind) == "log":
            axis.ticker = FixedTicker(ticks=[10.0**k for k in range(-9, 6)])
    for grid, axis in zip(plot.grid, (plot.xaxis[0], plot.yaxis[0]), strict=True):
        grid.ticker = axis.ticker
    return plot


def _style_axis(axis: Any) -> None:
    axis.axis_label_text_font_size = "12px"
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_color = axis.major_label_text_color = INK
    axis.major_label_text_font_size = "11px"
    axis.axis_label_standoff = 4
    axis.minor_tick_line_color = None
    axis.axis_line_color = axis.major_tick_line_color = "#9aa5b1"


def _shows(columns: Any) -> bool:
    heights = columns["ys"] if "ys" in columns else columns["y" if "y" in columns else "high"]
    return any(np.isfinite(height).any() for height in heights)


def _past_lines(pictures: Pictures, plot: Any, kind: str, more: list | None = None) -> None:
    """One curve over cycles for each parameter array, and what is predicted of all together."""
    items = []
    for slot in (*range(SLOTS), "all"):
        source = pictures._source(f"{kind}/{slot}", x=[], y=[])
        colour = DRIVE if slot == "all" else COLOURS[int(slot) % len(COLOURS)]
        line = plot.line("x", "y", source=source, color=colour, line_width=2.2 if slot == "all" else 1.4)
        if kind == "cosine":  # the colours are the same in both
            items.append(("all" if slot == "all" else f"array {slot}", [line]))
    predicted = pictures._source(f"{kind}_predicted", x=[], y=[])
    dashed = plot.line("x", "y", source=predicted, color=DRIVE, line_dash=[6, 4], line_width=1.6)
    items += [("predicted", [dashed]), *(more or [])]
    plot.x_range = Range1d(0, 20)
    labels = pictures._legend(plot, items, "bottom_right" if kind == "cosine" else "top_right")
    if kind == "cosine":
        pictures._labels = labels[:SLOTS]


def _square(plot: Any) -> None:
    """The same scale on both axes, whatever the shape of the frame: the shorter side spans the reach."""
    plot.x_range, plot.y_range = Range1d(-1, 1), Range1d(-1, 1)
    plot.tags = [1.0]
    code = """
        const reach = plot.tags[0], w = plot.inner_width, h = plot.inner_height;
        if (!(w > 0 && h > 0)) return;
        const x = reach * Math.max(1, w / h), y = reach * Math.max(1, h / w);
        plot.x_range.setv({start: -x, end: x}); plot.y_range.setv({start: -y, end: y});
    """
    callback = CustomJS(args={"plot": plot}, code=code)
    for change in ("tags", "inner_width", "inner_height"):
        plot.js_on_change(change, callback)


def _reach(plot: Any, reach: Any, steady: bool = False) -> None:
    """Let a square figure span so much; `steady` keeps what it spans while it fits."""
    now = plot.tags[0]
    if (steady and 0.5 * now < reach <= now) or reach == now:
        return
    plot.tags = [1.15 * reach if steady else reach]


def _hysteresis(span: Any, reach: Any) -> dict[str, Any]:
    now = span.end
    return {} if 0.5 * now < reach <= now else {"start": -1.15 * reach, "end": 1.15 * reach}


def _limits(span: Any, low: Any, high: Any) -> None:
    if (span.start, span.end) != (low, high):
        span.update(start=low, end=high)


def _thin(count: int) -> np.ndarray:
    """Indices of the samples that are drawn, the last among them."""
    step = max(1, count // DRAWN)
    return np.arange(step - 1, count, step)


def _xy(x: Data, y: Data) -> dict[str, Any]:
    return {"x": np.asarray(x, float), "y": np.asarray(y, float)}


def _colours(places: list[int]) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(places))]


def _mean(values: np.ndarray | None) -> float:
    return float("nan") if values is None or not np.isfinite(values).any() else float(np.nanmean(values))


def _band(frame: Frame, expected: Forecast | None) -> tuple[float, ...]:
    """Expected: bias, error, error with two deviations; and about the cosine, that of an error at right angles."""
    if expected is None or frame.averaged == 0 or not expected.holds(frame.amplitude):
        return (math.nan,) * 4
    tuned = frame.amplitude if frame.settings.signal == "adaptive" else None
    bias, error, high = expected.band("all", frame.averaged, tuned)
    return bias, error, high, 1 / math.sqrt(1 + error**2)
