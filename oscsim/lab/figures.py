"""The figures of the lab, in Bokeh, and the data that stream into them."""

# Bokeh's models have properties that take more than their annotations say: a range a number, a font size a string.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportPrivateImportUsage=false
# pyright: reportOptionalMemberAccess=false

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from bokeh import models
from bokeh.plotting import figure
from jaxtyping import Complex, Float

from oscsim.core import colours
from oscsim.lab.axes import GRID, INK, second_axis, square, style_axis
from oscsim.lab.engine import WINDOW, Frame, known_mean
from oscsim.lab.forecast import HARMONICS, Forecast, Map, frequencies
from oscsim.lab.runner import Judged
from oscsim.lab.words import PICTURES

if TYPE_CHECKING:
    import pandas

PAST = 240
"""Cycles in the curves over cycles."""

DRAWN = 160
"""Points drawn of one cycle."""

LOST, SETTLED = "#e3d5cf", "#dcebf7"
"""Colours of the two parts of the stability map."""

SMALLEST = 1e-7
"""Lower end of logarithmic axes: what is below is rounding of float32."""

DASHES = ("solid", [6, 3], [2, 2])

NOTHING = {
    "xs": [[np.nan]],
    "ys": [[np.nan]],
    "x": [np.nan],
    "y": [np.nan],
    "name": [""],
    "colour": [INK],
    "dash": ["solid"],
}
"""One row without a picture: Bokeh's legend reads the first colour of a curve, which has to be there."""
NO_MAP = {"image": [np.full((2, 2), np.nan)], "x": [-1.0], "y": [-1.0], "size": [2.0]}

ABOVE = {"location": "top_left", "orientation": "horizontal", "spacing": 6, "padding": 0, "margin": 0}
LEGEND = {"label_text_font_size": "11px", "label_text_color": INK, "border_line_color": None}
GLYPHS = {"glyph_width": 16, "glyph_height": 12, "label_height": 14, "label_standoff": 4}
PALE = {"background_fill_color": "white", "background_fill_alpha": 0.75}
"""How legends, above their plots, and notes look."""

SHOWN = 6
"""Neurons drawn at first."""

SLOTS = 6
"""Most curves for single parameter arrays; one more is for all of them together."""

Column: TypeAlias = Sequence[Any] | np.ndarray
"""One column of a curve's data."""


class Pictures:
    """Eight figures; another network changes the names in them, not the figures.

    Attributes:
        names: of the watched neurons.
        arrays: of the parameter arrays whose gradients are compared, in the order of their curves; `all` has its own.
        chosen: which of the watched neurons are drawn.
    """

    def __init__(self):
        self.names: tuple[str, ...] = ()
        self.arrays: tuple[str, ...] = ()
        self.chosen: tuple[str, ...] = ()
        self._entries: list[models.LegendItem] = []
        self.past: deque[tuple[Frame, Forecast | None]] = deque(maxlen=PAST)
        self.learned: deque[tuple[int, float, float]] = deque(maxlen=2000)
        self.tested: dict[int, tuple[int, float]] = {}
        self.sources: dict[str, models.ColumnDataSource] = {}
        self._map: Map | None = None
        self._turn = 0
        self.figures: dict[str, figure] = {}
        above = self._plane, self._orbits, self._traces, self._spectrum
        for make in (*above, self._cosine, self._error, self._snr, self._learning):
            make()
        self.point("")

    # The figures.

    def _figure(self, name: str, title: str, x: str, y: str, **kwargs: str) -> figure:
        size = {"sizing_mode": "stretch_both", "min_border_right": 12}
        tools = {"tools": "fullscreen,pan,wheel_zoom,reset,save", "toolbar_location": "above"}
        plot = figure(name=f"{name} figure", title=title, x_axis_label=x, y_axis_label=y, **size, **tools, **kwargs)
        plot.toolbar.update(logo=None, autohide=True)
        plot.frame_align = False  # else all are as narrow as those with an axis on the right
        plot.html_attributes = {"role": "img", "aria-label": f"{title}. {PICTURES[name]}", "title": PICTURES[name]}
        plot.title.text_color, plot.outline_line_color, plot.grid.grid_line_color = INK, None, GRID
        for grid, axis, kind in zip(plot.grid, (*plot.xaxis, *plot.yaxis), ("x_axis_type", "y_axis_type"), strict=True):
            style_axis(axis)
            if kwargs.get(kind) == "log":
                axis.ticker = models.FixedTicker(ticks=[10.0**k for k in range(-9, 6)])
            grid.ticker = axis.ticker
        self.figures[name] = plot
        return plot

    def _source(self, name: str, *columns: str) -> models.ColumnDataSource:
        self.sources[name] = models.ColumnDataSource(name=name)
        self._show(name, **{column: [] for column in columns})
        return self.sources[name]

    def _line(self, plot: figure, name: str, **look: Any) -> models.GlyphRenderer:
        """One curve."""
        return plot.line("x", "y", source=self._source(name, "x", "y"), **look)

    def _dots(self, plot: figure, name: str, *more: str, **look: Any) -> models.GlyphRenderer:
        """Dots, with more columns than their places."""
        return plot.scatter("x", "y", source=self._source(name, "x", "y", *more), **look)

    def _neurons(self, plot: figure, name: str, **look: Any) -> models.GlyphRenderer:
        """A curve for each neuron, which says its name where one points at it."""
        source = self._source(name, "xs", "ys", "colour", "name", "dash")
        lines = plot.multi_line("xs", "ys", source=source, color="colour", line_dash="dash", **look)
        plot.add_tools(models.HoverTool(renderers=[lines], tooltips="neuron @name"))
        return lines

    def _area(self, plot: figure, name: str, **look: Any) -> models.GlyphRenderer:
        """A band from `low` to `high`."""
        return plot.varea(x="x", y1="low", y2="high", source=self._source(name, "x", "low", "high"), **look)

    def _show(self, name: str, /, **columns: Column) -> None:
        """Set the data of a curve."""
        if len(columns.get("colour", ())) == 0 and "colour" in columns:
            columns = {column: NOTHING[column] for column in columns}
        self.sources[name].data = columns

    def _path(self, name: str, z: Complex[np.ndarray, " points"]) -> None:
        """Show a curve in the complex plane."""
        self._show(name, x=z.real, y=z.imag)

    def _legend(self, plot: figure, items: Mapping[str, list[models.GlyphRenderer]], columns: int) -> None:
        """A legend above the plot, where it covers no curve; it shows what has data."""
        entries = [models.LegendItem(label=label, renderers=lines, visible=False) for label, lines in items.items()]
        legend = models.Legend(items=entries, ncols=columns, **ABOVE, **LEGEND, **GLYPHS)
        plot.add_layout(legend, "above")
        self._entries += entries

    def _plane(self) -> None:
        plot = self._figure("plane", "β on the stability map", "Re β", "Im β")
        image = self._source("map")
        image.data = NO_MAP
        mapper = models.LinearColorMapper(palette=[LOST, SETTLED], low=0, high=1, nan_color="white")
        plot.image("image", x="x", y="y", dw="size", dh="size", source=image, color_mapper=mapper, level="image")
        self._line(plot, "radius", color=colours.COLOURS[1], line_dash=[4, 3], line_width=1.5)
        self._line(plot, "teaching", color=colours.DRIVE, line_width=2)
        self._dots(plot, "teaching_now", color=colours.DRIVE, size=9)
        where = {"x": 6, "y": 6, "x_units": "screen", "y_units": "screen"}
        self.plane_note = models.Label(text_font_size="11px", text_color=INK, **where, **PALE)
        plot.add_layout(self.plane_note)
        square(plot)

    def _orbits(self) -> None:
        plot = self._figure("orbits", "Neurons in the complex plane", "Re (s − c₀)", "Im (s − c₀)")
        self._neurons(plot, "orbits", line_width=1.6, line_alpha=0.9)
        self._dots(plot, "orbits_now", "colour", color="colour", size=7)
        square(plot)

    def _traces(self) -> None:
        plot = self._figure("traces", "Traces", "time to the end of the cycle (τ)", "Re (s − c₀)")
        self._neurons(plot, "traces", line_width=1.5, line_alpha=0.9)
        second_axis(plot, "drive", "Re β (dotted)", models.Range1d(-1, 1))
        dotted = {"color": colours.DRIVE, "line_dash": "dotted", "line_width": 1.6, "level": "glyph"}
        self._line(plot, "traces_teaching", y_range_name="drive", **dotted)
        plot.x_range, plot.y_range = models.Range1d(0, 200), models.Range1d(-1, 1)

    def _spectrum(self) -> None:
        plot = self._figure("spectrum", "Spectrum", "frequency × period", "|coefficient|", y_axis_type="log")
        lines = self._source("spectrum", "xs", "ys", "colour", "name")
        floor = self._source("floor", "xs", "ys", "colour")
        items = {
            "measured": [plot.multi_line("xs", "ys", source=lines, color="colour", line_width=1.1, line_alpha=0.75)],
            "harmonic": [self._dots(plot, "harmonics", "colour", color="colour", size=6)],
            "predicted": [plot.multi_line("xs", "ys", source=floor, color="colour", line_dash=[5, 3], line_width=2)],
        }
        plot.x_range, plot.y_range = models.Range1d(-HARMONICS - 0.3, HARMONICS + 0.3), models.Range1d(1e-6, 1)
        plot.xaxis.ticker = plot.xgrid.ticker = models.FixedTicker(ticks=list(range(-HARMONICS, HARMONICS + 1, 2)))
        self._legend(plot, items, 3)

    def _cosine(self) -> None:
        plot = self._figure("cosine", "Direction of the gradient", "cycle", "cosine to the exact gradient")
        lines = self._past_lines(plot, "cosine")
        self._legend(plot, {"all arrays": [lines[SLOTS]], "predicted": [lines[-1]]}, 2)
        plot.y_range = models.Range1d(-1.05, 1.05)

    def _error(self) -> None:
        plot = self._figure("error", "Error of the gradient", "cycle", "relative error", y_axis_type="log")
        band = self._area(plot, "error_band", fill_color="#7b8794", fill_alpha=0.22)
        bias = self._line(plot, "error_bias", color=colours.DRIVE, line_dash="dotted", line_width=1.6)
        shade = self._area(plot, "error_bar_area", fill_color=colours.BAR, fill_alpha=0.2)
        edge = self._line(plot, "error_bar", color=colours.BAR, line_dash=[10, 3, 2, 3], line_width=2.4)
        items = {"predicted": self._past_lines(plot, "error")[-1:]}
        items |= {"predicted band": [band], "predicted bias": [bias], "its own bar": [shade, edge]}
        self._legend(plot, items, 2)
        plot.y_range = models.Range1d(1e-4, 10)

    def _past_lines(self, plot: figure, kind: str) -> list[models.GlyphRenderer]:
        """One curve over cycles for each parameter array, one for all together, and what is predicted of that."""
        plot.x_range = models.Range1d(0, 20)
        return [
            *(
                self._line(plot, f"{kind}/{i}", color=colours.COLOURS[i % len(colours.COLOURS)], line_width=1.4)
                for i in range(SLOTS)
            ),
            self._line(plot, f"{kind}/all", color=colours.DRIVE, line_width=2.2),
            self._line(plot, f"{kind}_predicted", color=colours.DRIVE, line_dash=[6, 4], line_width=1.6),
        ]

    def _snr(self) -> None:
        log = {"x_axis_type": "log", "y_axis_type": "log"}
        plot = self._figure("snr", "Signal to noise", "amplitude of β", "|∇L| / error", **log)
        line = self._line(plot, "snr_curve", color=colours.COLOURS[0], line_width=2)
        now = self._source("snr_now", "x", "y", "low", "high")
        plot.segment("x", "low", "x", "high", source=now, color=colours.COLOURS[1], line_width=2)
        dot = plot.scatter("x", "y", source=now, color=colours.COLOURS[1], size=9)
        star = self._dots(plot, "snr_best", color=colours.COLOURS[2], size=14, marker="star")
        self.optimum = models.Span(dimension="height", line_color=colours.COLOURS[2], line_dash=[4, 3], visible=False)
        self.beyond = models.BoxAnnotation(left=1e9, fill_color=LOST, fill_alpha=0.6, level="underlay")
        plot.add_layout(self.optimum)
        plot.add_layout(self.beyond)
        plot.x_range, plot.y_range = models.Range1d(0.001, 5.1), models.Range1d(0.1, 1e3)
        self._legend(plot, {"predicted": [line], "optimal": [star], "now": [dot]}, 3)

    def _learning(self) -> None:
        plot = self._figure("learning", "Loss and accuracy", "cycle", "loss")
        loss = self._line(plot, "loss", color=colours.COLOURS[0], line_width=2)
        second_axis(plot, "percent", "accuracy (%)", models.Range1d(0, 104))
        batch = self._line(plot, "accuracy", color=colours.COLOURS[2], line_width=1.4, y_range_name="percent")
        held_out = self._dots(plot, "test_accuracy", color=colours.COLOURS[1], size=6, y_range_name="percent")
        plot.x_range, plot.y_range = models.Range1d(0, 20), models.Range1d(0, 2.5)
        self._legend(plot, {"loss": [loss], "batch": [batch], "held out": [held_out]}, 3)

    def point(self, pointed: str) -> None:
        """Frame one figure; none of that name frames none."""
        for name, plot in self.figures.items():
            found = name == pointed
            plot.css_classes = [f"picture-{name}", "pointed"] if found else [f"picture-{name}"]
            plot.styles = {"outline": "3px solid #e69f00", "outline-offset": "-3px"} if found else {}

    def set_type(self, scale: float) -> None:
        """Set the size of all letters, and what follows from it."""
        sizes = [f"{size * scale:.0f}px" for size in (13, 12, 11)]
        for plot in self.figures.values():
            plot.title.text_font_size = sizes[0]
            for axis in plot.axis:
                axis.axis_label_text_font_size, axis.major_label_text_font_size = sizes[1:]
            for legend in plot.legend:
                legend.label_text_font_size = sizes[2]
        self.plane_note.text_font_size = sizes[2]

    @property
    def key(self) -> dict[str, list[tuple[str, str]]]:
        """Names and colours of the drawn neurons, and of the parameter arrays."""
        drawn = [name for name in self.chosen if name in self.names]
        kinds = {"neurons": drawn, "arrays": list(self.arrays)}
        return {kind: list(zip(names, _colours(range(len(names))), strict=True)) for kind, names in kinds.items()}

    # What streams into them.

    def name(self, names: tuple[str, ...], arrays: tuple[str, ...]) -> None:
        """Show another network: of these neurons, with these parameter arrays."""
        self.forget()
        self.names, self.arrays = names, tuple(name for name in arrays if name != "all")[:SLOTS]
        most = max(1, SHOWN // len({name.split(".")[0] for name in names}))
        self.chosen = tuple(name for name in names if int(name.split(".")[1]) <= most)[: 2 * SHOWN]
        for kind in ("cosine", "error"):
            for slot in range(SLOTS):
                self._show(f"{kind}/{slot}", x=[], y=[])

    def forget(self) -> None:
        """Start all curves over cycles anew."""
        self.past.clear()
        self.learned.clear()
        self.tested.clear()

    def blank(self) -> None:
        """Empty all pictures: what they show is of another network."""
        self.forget()
        for name, source in self.sources.items():
            self._show(name, **(NO_MAP if name == "map" else {column: [] for column in source.data}))
        self._map, self.plane_note.text, self.optimum.visible, self.beyond.left = None, "", False, 1e9

    def add(self, frames: Iterable[Frame], judged: Judged | None) -> None:
        """Take up new frames, and how well held-out data were told apart."""
        for frame in frames:
            if self.past and (frame.number <= self.past[-1][0].number or frame.era != self.past[-1][0].era):
                self.forget()
            self.past.append((frame, None))
            self.learned.append((frame.number, frame.loss, frame.accuracy))
        if judged is None or not self.past or judged.era != self.past[-1][0].era or judged.updates in self.tested:
            return
        number = next((f.number for f, _ in reversed(self.past) if f.updates <= judged.updates), None)
        if number is not None:
            self.tested[judged.updates] = number, judged.accuracy

    def expect(self, forecast: Forecast | None) -> None:
        """Take up what was expected of the frames: it comes later than the first of them."""
        if forecast is None or forecast.note is None:
            return
        for place in reversed(range(len(self.past))):
            frame, known = self.past[place]
            if known is not None or not forecast.fits(frame.settings):
                break
            self.past[place] = frame, forecast

    def draw(self, forecast: Forecast | None, found: Map | None, all_of_them: bool = True) -> None:
        """Draw the last frame.

        Without `all_of_them`: the figures of the cycle itself, and one of the others in turn. A browser is slow to draw
        eight, and those of many cycles change little from one cycle to the next.
        """
        if not self.past:
            return
        self.expect(forecast)
        frame, _ = self.past[-1]
        self._draw_plane(frame, forecast, found)
        places = [self.names.index(name) for name in self.chosen if name in self.names]
        self._draw_neurons(frame, places)
        others = (
            lambda: self._draw_spectrum(frame, forecast, places),
            self._draw_cosine,
            self._draw_error,
            lambda: self._draw_snr(frame, forecast),
            self._draw_learning,
        )
        self._turn = (self._turn + 1) % len(others)
        for draw in others if all_of_them else others[self._turn : self._turn + 1]:
            draw()
        for item in self._entries:
            item.visible = any(_shows(line.data_source.data) for line in item.renderers)

    def _draw_plane(self, frame: Frame, forecast: Forecast | None, found: Map | None) -> None:
        amplitude, reach = frame.amplitude, 1.25 * frame.amplitude
        if found is not None:
            reach = max(found.reach, reach)
        if found is not self._map:
            self._map, columns = found, NO_MAP
            if found is not None:
                edge = found.reach * (1 + 1 / (len(found.settled) - 1))
                columns = {"image": [found.settled], "x": [-edge], "y": [-edge], "size": [2 * edge]}
            self._show("map", **columns)
        radius = math.inf if forecast is None else forecast.radius
        known = math.isfinite(radius)
        self._path("radius", radius * np.exp(2j * np.pi * np.linspace(0, 1, 90)) if known else np.zeros(0, complex))
        beta = frame.teaching[-frame.window.shape[2] :]
        beta = beta[_thin(len(beta))]
        self._path("teaching", np.append(beta, beta[:1]))
        self._path("teaching_now", beta[-1:])
        self.figures["plane"].tags = [reach]
        where = f"A = {amplitude:.3g}, "
        if known:
            where += f"radius ≈ {radius:.3g}: " + ("below" if amplitude < radius else "PAST IT")
        elif frame.settings.learning:
            where += "the radius moves with the weights"
        else:
            where += "no radius found" if forecast is not None else "radius to come"
        self.plane_note.text = where

    def _draw_neurons(self, frame: Frame, places: list[int]) -> None:
        look = {
            "colour": _colours(places),
            "name": [self.names[i] for i in places],
            "dash": [DASHES[i // len(colours.COLOURS) % len(DASHES)] for i in range(len(places))],
        }
        cycle, period = frame.window.shape[2], frame.settings.period
        both, mean = frame.samples[places], frame.window[-1][places].mean(axis=1, keepdims=True)
        both = both - mean
        about, keep = both[:, -cycle:], _thin(cycle)
        self._show("orbits", xs=list(about.real[:, keep]), ys=list(about.imag[:, keep]), **look)
        self._show("orbits_now", x=about.real[:, -1], y=about.imag[:, -1], colour=look["colour"])
        plot = self.figures["orbits"]
        plot.tags = [_steady(plot.tags[0], 1.15 * float(np.abs(about).max(initial=1e-6)))]

        cycles = both.shape[1] // cycle
        keep = np.concatenate([keep + i * cycle for i in range(cycles)])
        # back from the end of the cycle: an axis that stands need not be laid out anew for every frame
        time = period * ((1 + keep) / cycle - cycles)
        self._show("traces", xs=[time] * len(places), ys=list(both.real[:, keep]), **look)
        self._show("traces_teaching", x=time, y=frame.teaching[keep].real)
        plot = self.figures["traces"]
        plot.x_range.update(start=-2 * period, end=0.0)
        # zero stands at the same height on both axes, and the signal has more room, so that no curve hides it
        reach = _steady(plot.y_range.end, 1.15 * float(np.abs(both.real).max(initial=1e-6)))
        plot.y_range.update(start=-reach, end=reach)
        drive = 1.3 * float(np.abs(frame.teaching).max(initial=1e-6))
        plot.extra_y_ranges["drive"].update(start=-drive, end=drive)

    def _draw_spectrum(self, frame: Frame, forecast: Forecast | None, places: list[int]) -> None:
        colours, cycles = _colours(places), len(frame.window)
        joined = frame.window[:, places].transpose(1, 0, 2).reshape(len(places), -1)
        spectrum = np.abs(np.fft.fft(joined, axis=1)) / joined.shape[1]
        number = np.arange(-HARMONICS * cycles, HARMONICS * cycles + 1)
        seen = np.maximum(spectrum[:, number], SMALLEST)
        at, whole = number / cycles, number % cycles == 0
        names = [self.names[i] for i in places]
        self._show("spectrum", xs=[at] * len(places), ys=list(seen), colour=colours, name=names)
        x, y = np.tile(at[whole], len(places)), seen[:, whole].ravel()
        self._show("harmonics", x=x, y=y, colour=np.repeat(colours, int(whole.sum())))
        floor = np.zeros((0, 0))
        if forecast is not None and forecast.floor is not None:
            floor = np.maximum(forecast.floor[places] * math.sqrt(WINDOW / cycles), SMALLEST)
        self._show("floor", xs=[frequencies()] * len(floor), ys=list(floor), colour=colours[: len(floor)])
        top = 10.0 ** math.ceil(math.log10(max(float(seen.max(initial=SMALLEST)), 1e-3) * 1.5))
        self.figures["spectrum"].y_range.update(start=SMALLEST, end=top)

    def _draw_past(
        self, kind: str
    ) -> tuple[list[Frame], Float[np.ndarray, "cycles arrays"], Float[np.ndarray, "4 cycles"]]:
        """Draw the curves over cycles; their frames, their values, and what was expected, as `_band` has it."""
        # While weights learn, each batch has cycles that are discarded: the curves go on over them.
        pairs = [
            (frame, expected)
            for frame, expected in self.past
            if frame.averaged or frame.diverged or not frame.settings.learning
        ] or [self.past[-1]]
        past = [frame for frame, _ in pairs]
        number = np.array([frame.number for frame in past], float)
        rows = [frame.cosines if kind == "cosine" else frame.errors for frame in past]
        table = np.array([[known_mean(row.get(name)) for name in (*self.arrays, "all")] for row in rows])
        for slot, column in zip((*range(len(self.arrays)), "all"), table.T, strict=True):
            self._show(f"{kind}/{slot}", x=number, y=column)
        self.figures[kind].x_range.update(start=number[0], end=max(number[-1], number[0] + 20))
        return past, table, np.array([_band(*pair) for pair in pairs]).T

    def _draw_cosine(self) -> None:
        past, table, bands = self._draw_past("cosine")
        self._show("cosine_predicted", x=np.array([frame.number for frame in past], float), y=bands[3])
        lowest = float(np.nanmin(table)) if np.isfinite(table).any() else 0.0
        start = -1.05 if lowest < -0.05 else -0.05 if lowest < 0.8 else 0.78
        self.figures["cosine"].y_range.update(start=start, end=1.02)

    def _draw_error(self) -> None:
        past, table, (bias, error, high, _) = self._draw_past("error")
        number, bars = np.array([(frame.number, known_mean(frame.bars)) for frame in past], float).T
        known = np.isfinite(high)
        self._show("error_band", x=number[known], low=np.maximum(bias[known], SMALLEST), high=high[known])
        self._show("error_predicted", x=number, y=error)
        self._show("error_bias", x=number, y=bias)
        self._show("error_bar", x=number, y=bars)
        known = np.isfinite(bars)
        self._show("error_bar_area", x=number[known], low=np.full(known.sum(), SMALLEST), high=bars[known])
        values = _positive(table, bias, high, bars)
        if len(values):
            low, top = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
            low, top = max(low, -7), min(max(top, low + 2), 4)
            self.figures["error"].y_range.update(start=10.0**low, end=10.0**top)

    def _draw_snr(self, frame: Frame, forecast: Forecast | None) -> None:
        # while weights learn, cycles without a reading come between: the last reading stands
        read = [past for past, _ in self.past if past.averaged and past.settings.learning] or [frame]
        errors = _positive((read[-1] if frame.settings.learning else frame).errors["all"])
        now = np.array([1 / np.sqrt(np.mean(errors**2)), 1 / errors.max(), 1 / errors.min()] if len(errors) else [])
        x, y, low, high = ([frame.amplitude], *now[:, None]) if len(now) else ([], [], [], [])
        self._show("snr_now", x=x, y=y, low=low, high=high)
        radius = math.inf if forecast is None else forecast.radius
        self.beyond.left = radius if math.isfinite(radius) else 1e9
        axis = np.geomspace(0.001, min(5.1, radius), 80)
        curve = None if forecast is None else forecast.error(axis, frame.averaged)
        ratio = np.zeros(0) if curve is None else 1 / np.maximum(curve, SMALLEST)
        self._show("snr_curve", x=axis[: len(ratio)], y=ratio)
        best = None if forecast is None else forecast.optimum
        self.optimum.visible = best is not None
        if best is None or forecast is None:
            self._show("snr_best", x=[], y=[])
        else:
            self.optimum.location = best.amplitude
            at = forecast.error(best.amplitude, frame.averaged)
            self._show("snr_best", x=[best.amplitude], y=[1.0 if at is None else 1 / float(at)])
        values = _positive(ratio, now[:1])
        if len(values):
            start, end = np.floor(np.log10(values.min())), np.ceil(np.log10(1.3 * values.max()))
            self.figures["snr"].y_range.update(start=10.0**start, end=10.0 ** max(end, start + 1))

    def _draw_learning(self) -> None:
        number, loss, accuracy = np.array(self.learned, float).T
        self._show("loss", x=number, y=loss)
        self._show("accuracy", x=number, y=accuracy)
        x, y = np.array(list(self.tested.values()), float).reshape(-1, 2).T
        self._show("test_accuracy", x=x, y=y)
        plot = self.figures["learning"]
        plot.x_range.update(start=number[0], end=max(number[-1], number[0] + 20))
        finite = loss[np.isfinite(loss)]
        if len(finite):
            plot.y_range.update(start=0.0, end=1.1 * float(np.ceil(10 * finite.max()) / 10))

    def tables(self) -> dict[str, "pandas.DataFrame"]:
        """The data of every curve, by its name."""
        import pandas  # takes a while, and not every visitor saves data

        found = {}
        for name, source in self.sources.items():
            if name == "map":
                image, edge = source.data["image"][0], source.data["size"][0] / 2
                edge *= 1 - 1 / len(image)
                re, im = np.meshgrid(*[np.linspace(-edge, edge, len(image))] * 2)
                table = pandas.DataFrame({"re": re.ravel(), "im": im.ravel(), "settled": image.ravel()})
            else:
                table = pandas.DataFrame(dict(source.data)).drop(columns=["colour", "dash"], errors="ignore")
                table = table if _shows(source.data) else table[:0]
            if "xs" in table:
                table = table.explode(["xs", "ys"]).rename(columns={"xs": "x", "ys": "y", "name": "neuron"})
            kind, _, slot = name.partition("/")
            if slot.isdigit():
                if int(slot) >= len(self.arrays):
                    continue
                name = f"{kind} {self.arrays[int(slot)]}"
            found[name.replace("/", " ")] = table
        return found


def _shows(columns: Mapping[str, Column]) -> bool:
    heights = next(columns[key] for key in ("ys", "y", "high") if key in columns)
    return any(np.isfinite(height).any() for height in heights)


def _steady(now: int | float, reach: float) -> int | float:
    """What an axis spans: as now while that fits, else some more than it has to."""
    return now if 0.5 * now < reach <= now else 1.15 * reach


def _thin(count: int) -> np.ndarray:
    """Indices of the samples that are drawn, the last among them."""
    step = max(1, count // DRAWN)
    return np.arange(step - 1, count, step)


def _positive(*values: np.ndarray) -> Float[np.ndarray, " values"]:
    """All of them that are finite and positive."""
    flat = np.concatenate([np.ravel(value) for value in values])
    return flat[np.isfinite(flat) & (flat > 0)]


def _colours(places: Sequence[int]) -> list[str]:
    return [colours.COLOURS[i % len(colours.COLOURS)] for i in range(len(places))]


def _band(frame: Frame, expected: Forecast | None) -> tuple[float, ...]:
    """Expected: bias, error, error with two deviations; and about the cosine, that of an error at right angles."""
    if expected is None or frame.averaged == 0 or not expected.holds(frame.amplitude):
        return (math.nan,) * 4
    tuned = frame.amplitude if frame.settings.signal == "adaptive" else None
    bias, error, high = expected.band("all", frame.averaged, tuned)
    return bias, error, high, 1 / math.sqrt(1 + error**2)
