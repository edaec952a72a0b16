"""Panels of the figures, their letters, and the style of the authors' curves."""

from collections.abc import Iterable
from typing import Any

import xarray
from matplotlib.axes import Axes

from oscsim.plot import style

Panels = dict[str, xarray.Dataset]
"""The data of each panel, by its letter or name."""

THEIRS: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (3, 2)), "zorder": 0}
"""Style of the authors' curves, behind ours."""


def with_letters(axes: Iterable[Axes]) -> None:
    """Finish the axes of a figure, and call them a, b, c, ..."""
    for letter, ax in zip("abcd", axes, strict=False):
        style.finish(ax)
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=11)
