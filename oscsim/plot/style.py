"""Colours, sizes and axes of all figures."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from oscsim.core.checks import Given, require_instance
from oscsim.core.colours import BAR, COLOURS
from oscsim.core.colours import DRIVE as DRIVE
from oscsim.core.errors import BadType

DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1.2)))
LABEL_SIZE, TICK_SIZE, NOTE_SIZE = 9, 8, 7.5


def use_style() -> None:
    """Make matplotlib draw figures of your own like those of oscsim, until `matplotlib.rcdefaults()`.

    The colours are the six of Okabe and Ito, in their order; sizes of figures, labels and ticks, axes without a frame
    above and to the right, and legends without a frame are those of all other figures. The functions of `oscsim.plot`
    need no call of it, and change no setting of matplotlib.

    Example:
        >>> with plt.rc_context():  # leave the block, and all is as it was
        ...     osc.plot.use_style()
        ...     _, ax = plt.subplots()
        ...     ax.plot([1, 2, 4])[0].get_color()
        '#0072B2'
    """
    import matplotlib as mpl
    from cycler import cycler

    mpl.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": LABEL_SIZE,
            "axes.labelsize": LABEL_SIZE,
            "xtick.labelsize": TICK_SIZE,
            "ytick.labelsize": TICK_SIZE,
            "legend.fontsize": NOTE_SIZE,
            "legend.title_fontsize": NOTE_SIZE,
            "legend.frameon": False,
            "lines.markersize": 4,
            "figure.figsize": (4.6, 3.4),
            "figure.constrained_layout.use": True,
        }
    )


def as_axes(name: str, ax: Given) -> Axes:
    """Axes of matplotlib with an x and a y, or an error that names what they are not."""
    require_instance(name, ax, Axes, "use one of the axes of matplotlib, such as plt.subplots()[1]")
    if ax.name != "rectilinear":
        raise BadType(f"{name} has a {ax.name} projection: use plain axes, such as plt.subplots()[1]")
    return ax


def axes_or_new(ax: Axes | None) -> Axes:
    """The axes given, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(4.6, 3.4), layout="constrained")[1]


def curve_style(number: int) -> dict[str, Any]:
    """The colour and dashes of the curve of that number: all colours, then the same ones dashed."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def finish(ax: Axes) -> None:
    """No frame above and to the right; sizes of labels and ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(which="both", labelsize=TICK_SIZE)
    ax.xaxis.label.set_fontsize(LABEL_SIZE)
    ax.yaxis.label.set_fontsize(LABEL_SIZE)


def square(ax: Axes, reach: float | np.floating) -> None:
    """The same range on both axes, as far in each direction where it is above 0."""
    if reach > 0:
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach))
    ax.set_aspect("equal", adjustable="box")
    ax.locator_params(nbins=5)


def own_bar(ax: Axes, x: Sequence[float] | np.ndarray, bars: Sequence[float] | np.ndarray, floor: float) -> None:
    """Draw a gradient's own error as a band from the bottom of the axes, where any of it is known."""
    if np.isfinite(bars).any():
        ax.fill_between(x, floor, bars, color=BAR, alpha=0.2, linewidth=0, zorder=0)
        ax.plot(x, bars, color=BAR, label="its own bar", linestyle=DASHES[1], linewidth=1.4, zorder=1)
        ax.set_ylim(bottom=floor)


def legend(ax: Axes, **place: Any) -> None:
    """A legend, where there is something to name."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=NOTE_SIZE, frameon=False, handlelength=1.6, borderaxespad=0.2, **place)


def log_axis(ax: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 where there is room."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    ax.set(**{f"{which}scale": "log"})
    low, high = np.sort(axis.get_view_interval())
    subs = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def whole_ticks(ax: Axes) -> None:
    """Ticks at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
