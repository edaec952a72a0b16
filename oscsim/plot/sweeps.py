"""Figures of sweeps: curves with bands over one setting, heat maps over two, predictions drawn over measurements."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import LogLocator

from oscsim.core.checks import (
    Given,
    as_count,
    as_finite,
    as_flag,
    as_numbers,
    as_text,
    checked,
    choice,
    shown,
    untraced,
)
from oscsim.core.errors import BadValue
from oscsim.plot.style import (
    LABEL_SIZE,
    NOTE_SIZE,
    TICK_SIZE,
    as_axes,
    axes_or_new,
    curve_style,
    finish,
    legend,
    log_axis,
)
from oscsim.sweeps.summary import SWEEP, summarise

THEORY: dict[str, Any] = {"color": "black", "linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 5}
"""A prediction among measured curves."""


def as_levels(name: str, levels: Given) -> Given:
    """How many lines, or where they are, rising, or an error that names what is none."""
    levels = untraced(name, as_numbers(name, levels))
    if np.ndim(levels) == 0:
        return as_count(name, levels)
    places = np.asarray(as_finite(name, levels), float)
    if places.ndim != 1 or not places.size or not np.all(np.diff(places) > 0):
        raise BadValue(f"{name}={shown(levels)}: give a number of lines, or one rising number for each")
    return places


@checked(data=SWEEP, name=as_text, ax=as_axes, x=as_text, by=as_text, log=choice("", "x", "y", "xy"))
def sweep_curves(
    data: xarray.Dataset,
    name: str,
    ax: Axes | None = None,
    *,
    x: str | None = None,
    by: str | None = None,
    log: str | None = None,
) -> Axes:
    """A result against a setting: the average over seeds with its bootstrap band, one curve for each value of another.

    A result that theory predicts (`predicted_<name>` is there) is averaged as a root mean square, and the prediction is
    drawn over it in black.

    Args:
        data: what `sweep` returned, with one axis, or two; select from more by `data.sel(...)`.
        name: of a result.
        ax: where to draw; by default a new figure.
        x: the setting along the axis; by default the first that varies.
        by: the setting that tells the curves apart; by default the second one, if there is one.
        log: `"x"`, `"y"` or `"xy"` for logarithmic axes; by default those whose values span more than a factor of 20.

    Raises:
        ValueError: no such result or setting, or settings left over.

    Example:
        >>> def study(key, mean):
        ...     return {"drawn": mean + jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0]}, seeds=3, key=jax.random.key(0))
        >>> osc.plot.sweep_curves(data, "drawn").get_xlabel()
        'mean'
    """
    summary, predicted, settings = _summary(data, name)
    x = x or (settings[0] if settings else "")
    by = by or next((s for s in settings if s != x), None)
    if x not in settings or (by is not None and by not in settings) or set(settings) - {x, by}:
        raise BadValue(
            f"x={x!r}, by={by!r}: {name} varies with {settings}; choose two of these, and fix the others by data.sel"
        )
    ax = axes_or_new(ax)
    for i, value in enumerate([None] if by is None else summary[by].values):
        part = summary if by is None else summary.sel({by: value})
        style = curve_style(i)
        label = None if by is None else f"{_title(summary[by], by)} {_with_unit(value, summary[by])}"
        values = {s: part.sel(statistic=s).values for s in ("average", "low", "high")}
        places = part[x].values
        ax.plot(places, values["average"], label=label, marker="o", markersize=3.5, linewidth=1.4, **style)
        ax.fill_between(places, values["low"], values["high"], color=style["color"], alpha=0.25, linewidth=0)
        if predicted is not None:
            theory = predicted if by is None else predicted.sel({by: value})
            ax.plot(places, theory.values, **THEORY)
    if predicted is not None:
        ax.plot([], [], **THEORY, label="prediction")
    average = summary.sel(statistic="average").values
    wide = {"x": _wide(summary[x].values), "y": _wide(average)}
    for axis in ("x", "y"):
        if axis in log if log is not None else wide[axis]:
            log_axis(ax, axis)
    ax.set(xlabel=_axis_label(summary[x], x), ylabel=_axis_label(summary, name))
    finish(ax)
    legend(ax)
    return ax


@checked(data=SWEEP, name=as_text, ax=as_axes, x=as_text, y=as_text, levels=as_levels, log=as_flag)
def sweep_map(
    data: xarray.Dataset,
    name: str,
    ax: Axes | None = None,
    *,
    x: str | None = None,
    y: str | None = None,
    levels: int | Sequence[float] | np.ndarray | None = None,
    log: bool | None = None,
) -> Axes:
    """A result over two settings: the average over seeds in colour, and the prediction as contour lines over it.

    Points where no seed is finite are hatched.

    Args:
        data: what `sweep` returned, with two axes of numbers; select from more by `data.sel(...)`.
        name: of a result.
        ax: where to draw; by default a new figure.
        x: the setting along the horizontal axis; by default the second.
        y: the setting along the vertical axis; by default the first.
        levels: where to draw lines of equal prediction, and the measured ones beside them; by default a few.
        log: colours on a logarithmic scale; by default where values span more than a factor of 20.

    Raises:
        ValueError: no such result or setting, settings left over, or none left.

    Example:
        >>> def study(key, mean, width):
        ...     return {"drawn": mean + width * jax.random.normal(key)}
        >>> data = osc.sweep(study, {"mean": [0.0, 1.0], "width": [1.0, 2.0]}, seeds=3, key=jax.random.key(0))
        >>> ax = osc.plot.sweep_map(data, "drawn")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('width', 'mean')
    """
    summary, predicted, settings = _summary(data, name)
    y = y or next((s for s in settings if s != x), "")
    x = x or next((s for s in settings if s != y), "")
    if {x, y} != set(settings) or len(settings) != 2:
        raise BadValue(f"x={x!r}, y={y!r}: {name} varies with {settings}; a map needs two, fix the others by data.sel")
    ax = axes_or_new(ax)
    average = summary.sel(statistic="average").transpose(y, x)
    values = average.values
    places = average[x].values, average[y].values
    finite = values[np.isfinite(values)]
    log = _wide(values) if log is None else log
    norm = LogNorm(finite.min(), finite.max()) if log and finite.size else None
    mesh = ax.pcolormesh(*map(_edges, places), np.ma.masked_invalid(values), cmap="viridis", norm=norm, rasterized=True)
    if not np.all(np.isfinite(values)):
        ax.patch.set(hatch="////", edgecolor="0.6", facecolor="white")
    for axis, numbers in zip(("x", "y"), places, strict=True):
        if _wide(numbers):
            log_axis(ax, axis)
    if predicted is not None and min(values.shape) > 1:
        if levels is None and finite.size:
            levels = LogLocator(subs=(1, 2, 5)).tick_values(finite.min(), finite.max()) if log else 5
        shown = ax.contour(*places, predicted.transpose(y, x).values, levels=levels, colors="white", linewidths=1.2)
        ax.clabel(shown, fontsize=NOTE_SIZE, fmt="%g")
        ax.plot([], [], color="0.5", linewidth=1.2, label="lines: prediction")
        legend(ax, loc="lower left", bbox_to_anchor=(0.0, 1.0))
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
    bar.set_label(_axis_label(summary, name), fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=TICK_SIZE)
    ax.set(xlabel=_axis_label(summary[x], x), ylabel=_axis_label(summary[y], y))
    finish(ax)
    return ax


def _summary(data: xarray.Dataset, name: str) -> tuple[xarray.DataArray, xarray.DataArray | None, list[str]]:
    """The summary of one result, its prediction or None, and the settings that it varies with."""
    if name not in data.data_vars or "seed" not in data[name].dims:
        names = sorted(str(n) for n, a in data.data_vars.items() if "seed" in a.dims)
        raise BadValue(f"name={name!r}: the sweep measured {names}; choose among these")
    theory = f"predicted_{name}"
    predicted = data[theory] if theory in data.data_vars else None
    summary = summarise(data[[name]], average="mean" if predicted is None else "rms")[name]
    return summary, predicted, [str(d) for d in summary.dims if d != "statistic"]


def _wide(values: np.ndarray) -> bool:
    """Whether positive numbers span more than a factor of 20."""
    if values.dtype.kind not in "fi":
        return False
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > 20 * values.min())


def _edges(centres: np.ndarray) -> np.ndarray:
    """Borders of cells around these centres; on a logarithmic axis, half-way there."""
    if len(centres) == 1:
        return np.array([0.9, 1.1]) * centres[0] if centres[0] else np.array([-0.5, 0.5])
    scaled = np.log(centres) if _wide(centres) else np.asarray(centres, float)
    middle = (scaled[1:] + scaled[:-1]) / 2
    edges = np.concatenate([[2 * scaled[0] - middle[0]], middle, [2 * scaled[-1] - middle[-1]]])
    return np.exp(edges) if _wide(centres) else edges


def _title(array: xarray.DataArray, name: str) -> str:
    return str(array.attrs.get("long_name", name.replace("_", " ")))


def _axis_label(array: xarray.DataArray, name: str) -> str:
    unit = _unit(array)
    return _title(array, name) + (f" ({unit})" if unit else "")


def _unit(array: xarray.DataArray) -> str:
    """As it is drawn; empty for pure numbers."""
    unit = array.attrs.get("units", "1")
    return "" if unit == "1" else unit.replace("tau", "τ")


def _with_unit(value: Any, array: xarray.DataArray) -> str:
    """A setting, and the unit that stands with it."""
    value = np.asarray(value)
    return f"{value:g} {_unit(array)}".rstrip() if value.dtype.kind in "iuf" else str(value)
