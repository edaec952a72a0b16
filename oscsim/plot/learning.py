"""Figures of learning: curves over epochs or time, the quality of the gradient, what the first layer looks for."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
import numpy as np
from matplotlib.axes import Axes

from oscsim.core.checks import Given, as_count, as_counts, as_text, both, checked, choice, shown, untraced
from oscsim.core.errors import BadType, BadValue
from oscsim.networks import AbstractNetwork
from oscsim.networks.learned import as_trainable, parameters
from oscsim.plot.style import (
    COLOURS,
    DASHES,
    DRIVE,
    LABEL_SIZE,
    NOTE_SIZE,
    as_axes,
    axes_or_new,
    curve_style,
    finish,
    legend,
    own_bar,
    whole_ticks,
)
from oscsim.training import Trained

History: TypeAlias = Sequence[Mapping[str, int | float]]
"""One row of metrics per epoch."""

Seeds: TypeAlias = Trained | History | Sequence[Trained | History]
"""One run, or several of the same settings."""

UNITS = {"error": " (%)", "seconds": " (s)"}

ERRORS = ("probe_error", "probe_error_bar")
"""Relative error of the estimate after each epoch, and the estimate's own error: shares, not percent."""


@checked(metric=as_text, ax=as_axes, against=choice("epoch", "seconds"))
def learning_curves(
    results: Seeds | Mapping[str, Seeds],
    metric: str = "validation_error",
    ax: Axes | None = None,
    *,
    against: str = "epoch",
) -> Axes:
    """A metric over epochs or time: one curve per method, with a band from the lowest to the highest of its seeds.

    Args:
        results: what `train` returned, or its history; or a dict from names to such, or to lists of such (seeds).
        metric: which of the metrics of `train` to draw.
        ax: where to draw; by default a new figure.
        against: `"epoch"`, or `"seconds"` for wall time (then each seed is a curve of its own).

    Raises:
        ValueError: nothing to draw, or a metric that was not measured.

    Example:
        >>> history = [{"epoch": 1, "loss": 1.4}, {"epoch": 2, "loss": 1.2}]  # or what train returned
        >>> ax = osc.plot.learning_curves({"lock-in": history}, metric="loss")
        >>> ax.get_xlabel(), len(ax.lines)
        ('epoch', 1)
    """
    named = _histories("results", results)
    for name, histories in named.items():
        for history in histories:
            if metric not in history[0] or against not in history[0]:
                raise BadValue(
                    f"metric={metric!r}, against={against!r}: {name} holds {sorted(history[0])}; choose among these"
                )
    ax = axes_or_new(ax)
    for i, (name, histories) in enumerate(named.items()):
        style = curve_style(i)
        mark = "o" if len(histories[0]) <= 20 else None
        if against == "epoch":
            epochs = min(map(len, histories))
            x = [row["epoch"] for row in histories[0][:epochs]]
            values = np.array([[row[metric] for row in history[:epochs]] for history in histories])
            ax.plot(x, values.mean(axis=0), label=name, linewidth=1.4, marker=mark, markersize=3.5, **style)
            if len(histories) > 1:
                ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=style["color"], alpha=0.2, linewidth=0)
            continue
        for j, history in enumerate(histories):
            x, y = ([row[key] for row in history] for key in (against, metric))
            ax.plot(x, y, label=None if j else name, linewidth=1.2, marker=mark, markersize=3.5, **style)
    if against == "epoch":
        whole_ticks(ax)
    ax.set(xlabel="wall time (s)" if against == "seconds" else against, ylabel=_label(metric))
    finish(ax)
    legend(ax)
    return ax


def training(result: Trained | History) -> np.ndarray:
    """How a network learned, on one page: loss, error (or $R^2$), and where it was measured how right the gradient was.

    Loss and error are those of training, and dashed those of validation.

    Args:
        result: what `train` returned, or its history.

    Returns:
        The axes, one for each panel.

    Raises:
        ValueError: no epoch was finished.

    Example:
        >>> history = [{"epoch": 1, "loss": 1.4, "error": 40.0}, {"epoch": 2, "loss": 1.2, "error": 31.0}]
        >>> axes = osc.plot.training(history)  # or what train returned
        >>> axes.shape
        (2,)
        >>> axes[0].figure.savefig("learning.png")
    """
    import matplotlib.pyplot as plt

    (history,) = _seeds("result", result)
    metrics = [name for name in ("loss", "error", "r2") if name in history[0] or f"validation_{name}" in history[0]]
    compared = any(name.startswith("cosine/") for name in history[0])
    count = len(metrics) + compared
    size = (3.1 * count + compared, 3.2)
    _, axes = plt.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    epochs = [row["epoch"] for row in history]
    for ax, metric in zip(axes[0], metrics, strict=False):
        for name, label, dashes in ((metric, "training", DASHES[0]), (f"validation_{metric}", "validation", DASHES[1])):
            if name in history[0]:
                look = {"color": COLOURS[dashes != DASHES[0]], "linestyle": dashes, "linewidth": 1.4}
                mark = "o" if len(epochs) <= 20 else None
                ax.plot(epochs, [row[name] for row in history], label=label, marker=mark, markersize=3.5, **look)
        whole_ticks(ax)
        ax.set(xlabel="epoch", ylabel="R²" if metric == "r2" else _label(metric))
        if metric == "error":
            ax.set_ylim(bottom=0)
        finish(ax)
        legend(ax)
    if compared:
        gradient_cosines(history, axes[0, -1])
    return axes[0]


@checked(ax=as_axes)
def gradient_cosines(result: Trained | History, ax: Axes | None = None) -> Axes:
    """The angle between estimate and exact gradient while the network learns: 1 - cosine of each parameter array.

    Where they were measured: also the relative error on the same samples, and the estimate's own error as a band.

    Args:
        result: what `train` returned (with `probe` above 0), or its history.
        ax: where to draw; by default a new figure.

    Raises:
        ValueError: no cosines were measured.

    Example:
        >>> history = [{"epoch": 1, "cosine/weights[0]": 0.99}, {"epoch": 2, "cosine/weights[0]": 0.98}]
        >>> osc.plot.gradient_cosines(history).get_xlabel()
        'epoch'
    """
    (history,) = _seeds("result", result)
    names = [name for name in history[0] if name.startswith("cosine/")]
    if not names:
        raise BadValue(
            "result holds no cosines in its history: train with Monitor(probe=100), and an estimator other than "
            "Backpropagation"
        )
    ax = axes_or_new(ax)
    epochs = [row["epoch"] for row in history]
    for i, name in enumerate(names):
        distance = np.maximum([1 - row[name] for row in history], 1e-8)
        style = curve_style(i)
        ax.plot(epochs, distance, label=name.removeprefix("cosine/"), marker="o", markersize=3, linewidth=1.2, **style)
    ax.set_yscale("log")
    measured = [key for key in ERRORS if all(key in row for row in history)]
    errors, bars = ([row[key] for row in history] if key in measured else None for key in ERRORS)
    if errors is not None:
        ax.plot(epochs, errors, color=DRIVE, label="relative error", marker="s", markersize=3, linewidth=1.4)
    if bars is not None:
        own_bar(ax, epochs, bars, ax.get_ylim()[0])
    whole_ticks(ax)
    label = "off the exact gradient:\n1 − cosine, relative error" if measured else "1 − cosine to the exact gradient"
    ax.set(xlabel="epoch", ylabel=label)
    finish(ax)
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return ax


@checked(net=both(as_trainable, untraced), ax=as_axes, shape=as_counts, neurons=as_count)
def weights(
    net: AbstractNetwork,
    ax: Axes | None = None,
    *,
    shape: tuple[int, int] | None = None,
    neurons: int = 32,
) -> Axes:
    """The weights onto the first layer as small images, one for each of its first neurons; blue negative, red positive.

    Args:
        net: with `weights`, such as a `LayeredNetwork`, whose inputs are images.
        ax: where to draw; by default a new figure.
        shape: of one image; by default square.
        neurons: how many.

    Raises:
        ValueError: inputs that are no image of this shape.

    Example:
        >>> ax = osc.plot.weights(net, shape=(2, 3), neurons=5)
        >>> ax.figure.savefig("weights.png")
    """
    first = np.asarray(jax.tree.leaves(parameters(net))[0])
    side = math.isqrt(first.shape[1])
    shape = (side, side) if shape is None else shape
    if len(shape) != 2 or math.prod(shape) != first.shape[1]:
        raise BadValue(f"shape={shape}: an input has {first.shape[1]} numbers, give the height and width of its image")
    count = min(neurons, len(first))
    columns = math.ceil(math.sqrt(2 * count))
    rows = math.ceil(count / columns)
    mosaic = np.full((rows * (shape[0] + 1) - 1, columns * (shape[1] + 1) - 1), np.nan)
    for i in range(count):
        top, left = (i // columns) * (shape[0] + 1), (i % columns) * (shape[1] + 1)
        mosaic[top : top + shape[0], left : left + shape[1]] = first[i].reshape(shape)
    ax = axes_or_new(ax)
    reach = np.nanmax(np.abs(mosaic))
    image = ax.imshow(mosaic, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, pad=0.02)
    bar.set_label("weight", fontsize=LABEL_SIZE)
    bar.ax.tick_params(labelsize=NOTE_SIZE)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    ax.set_axis_off()
    return ax


def _label(metric: str) -> str:
    unit = "" if metric in ERRORS else next((unit for ending, unit in UNITS.items() if metric.endswith(ending)), "")
    return metric.replace("_", " ").replace("/", " of ") + unit


def _histories(name: str, results: Given) -> dict[str, list[History]]:
    """Histories by name, a list over seeds; what has no name is called "", which no legend shows."""
    match results:
        case Mapping():
            named = {str(label): _seeds(f"{name}[{label!r}]", value) for label, value in results.items()}
        case _:
            named = {"": _seeds(name, results)}
    if not named:
        raise BadValue(f"{name}={{}}: give one run at least")
    return named


def _seeds(name: str, value: Given) -> list[History]:
    """One history, or several, each with a row of numbers for every epoch, or an error that names what is none."""
    match value:
        case Trained():
            return _seeds(name, value.history)
        case [Mapping(), *_] if all(map(_is_row, value)):
            return [value]
        case [] | [[], *_]:
            raise BadValue(f"{name}: a history is empty: no epoch was finished")
        case [Trained() | list() | tuple(), *_]:
            return [history for seed in value for history in _seeds(name, seed)]
    raise BadType(f"{name}={shown(value)}: give what train returned, or its history, a list of dicts of numbers")


def _is_row(row: object) -> bool:
    """Whether these are metrics of an epoch: numbers by name."""
    match row:
        case Mapping():
            return all(isinstance(number, (int, float, np.number)) for number in row.values())
    return False
