r"""Figures in the complex plane of $\beta$."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from oscsim.core.checks import Given, as_numbers, as_scalar, checked, shown, untraced
from oscsim.core.errors import BadType, BadValue
from oscsim.plot.style import DASHES, DRIVE, NOTE_SIZE, as_axes, axes_or_new, finish

SETTLED, LOST = "#dbe9f4", "#f2c9b0"


def as_circles(name: str, circles: Given) -> dict[str, float]:
    """Radii by name, or an error that names what is none."""
    match circles:
        case Mapping():
            return {str(label): float(as_scalar(f"{name}[{label!r}]", radius)) for label, radius in circles.items()}
    raise BadType(f"{name}={shown(circles)}: give a dict from names to radii")


@checked(ax=as_axes, circles=as_circles)
def stability(
    grid: ArrayLike, settled: ArrayLike, ax: Axes | None = None, *, circles: Mapping[str, float] | None = None
) -> Axes:
    r"""Where in the plane of $\beta$ the free equilibrium continues to, and circles about 0, as in the paper's Fig. 2b.

    Args:
        grid: $\beta$, complex (rows, columns), rows of equal imaginary part; `grid` of a `StabilityMap`.
        settled: whether the equilibrium is there, (rows, columns); `settled` of a `StabilityMap`.
        ax: where to draw; by default a new figure.
        circles: radii by what the legend calls them, such as the convergence radius, and the teaching signal's.

    Raises:
        ValueError: grid and map differ in shape, or are not two-dimensional.

    Example:
        >>> beta = np.linspace(-1, 1, 5) + 1j * np.linspace(-1, 1, 5)[:, None]
        >>> plane = osc.response.stability_map(net, x, y, beta, steps=8)
        >>> ax = osc.plot.stability(plane.grid, plane.settled, circles={"teaching signal": 0.2})
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['teaching signal', 'free equilibrium continues', 'lost behind a branch point']
    """
    grid, settled = (
        np.asarray(untraced(name, as_numbers(name, a))) for name, a in (("grid", grid), ("settled", settled))
    )
    if grid.ndim != 2 or grid.shape != settled.shape:
        raise BadValue(f"grid of shape {grid.shape}, settled of {settled.shape}: both must be (rows, columns)")
    ax = axes_or_new(ax)
    colours = ListedColormap([LOST, SETTLED])
    real, imaginary = np.real(grid), np.imag(grid)
    ax.pcolormesh(real, imaginary, settled, cmap=colours, vmin=0, vmax=1, rasterized=True)
    unit = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    for number, (label, radius) in enumerate((circles or {}).items()):
        circle = radius * unit
        ax.plot(circle.real, circle.imag, color=DRIVE, linewidth=1.2, linestyle=DASHES[number % 3], label=label)
    ax.fill_between([], [], [], color=SETTLED, label="free equilibrium continues")
    ax.fill_between([], [], [], color=LOST, label="lost behind a branch point")
    ax.set_aspect("equal")
    ax.set(xlabel=r"Re $\beta$", ylabel=r"Im $\beta$", xlim=(real.min(), real.max()))
    ax.set_ylim(imaginary.min(), imaginary.max())
    finish(ax)
    ax.legend(fontsize=NOTE_SIZE, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return ax
