"""A network as a diagram: its layers as columns of neurons, what couples them as lines."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba

from oscsim.core.arrays import describe
from oscsim.core.checks import both, checked, untraced
from oscsim.networks import AbstractCost, AbstractNetwork, parameters
from oscsim.networks.base import as_network
from oscsim.networks.learned import named
from oscsim.plot.style import COLOURS, LABEL_SIZE, as_axes, axes_or_new

MOST = 10
"""Units of a layer that are drawn; of more, the first and the last, with dots between."""


@checked(net=both(as_network, untraced), ax=as_axes)
def network(net: AbstractNetwork, ax: Axes | None = None) -> Axes:
    """A diagram: input, layers of neurons, readout, from left to right, with the couplings between the units shown.

    Lines are blue for positive weights and orange for negative ones, darker for larger ones; grey where the weights are
    not one matrix between two neighbours, as in convolutions. Units outside the dynamics, input and readout, are
    squares. A matrix called `coupling` is drawn as arcs within its layer. Of a layer with more than ten units the first
    and last five are drawn.

    Args:
        net: the network.
        ax: where to draw; by default a new figure.

    Raises:
        TypeError: not a network with dynamics.

    Example:
        >>> ax = osc.plot.network(net)
    """
    ax = axes_or_new(ax)
    columns = [] if net.input_shape is None else [("input", net.input_shape)]
    columns += [(f"layer {i}", shape) for i, shape in enumerate(net.shapes, 1)]
    if net.outputs is not None and _has_readout(net, net.outputs):
        columns.append(("readout", (net.outputs,)))
    places = [_heights(math.prod(shape)) for _, shape in columns]
    matrices = [(name, np.asarray(a)) for name, a in named(parameters(net)) if a.ndim == 2]
    lateral = [a for name, a in matrices if name == "coupling"]
    between = [a for name, a in matrices if name != "coupling"]
    for i, ((name, shape), y) in enumerate(zip(columns, places, strict=True)):
        size, outside = math.prod(shape), name in ("input", "readout")
        if i:
            below = math.prod(columns[i - 1][1])
            fitting = next((k for k, a in enumerate(between) if a.shape == (size, below)), None)
            _lines(ax, i - 1, places[i - 1], i, y, None if fitting is None else between.pop(fitting))
        if not outside and lateral and lateral[0].shape == (size, size):
            weights = (lateral[0] + lateral[0].T) / 2
            _lines(ax, i, y, i, y, weights - np.diag(np.diag(weights)))
        face = "white" if outside else COLOURS[5]
        ax.scatter(np.full(len(y), i), y, s=70, marker="s" if outside else "o", c=face, edgecolors="black", zorder=3)
        if size > MOST:
            ax.text(i, 0, "⋮", ha="center", va="center", fontsize=13, zorder=4)
        label = f"{name}\n{'×'.join(map(str, shape))}"
        ax.text(i, -0.6, label, ha="center", va="top", fontsize=LABEL_SIZE)
    ax.set_title(f"{type(net).__name__}\n{describe(net.activation)}", fontsize=LABEL_SIZE)
    ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.85, 0.6))
    ax.set_axis_off()
    return ax


def _has_readout(net: AbstractNetwork, outputs: int) -> bool:
    """Whether the output is no layer of neurons: as its cost says, or, without one, as their numbers do."""
    match net:
        case object(cost=AbstractCost(readout=readout)):
            return readout
    return net.shapes[-1] != (outputs,)


def _shown(size: int) -> np.ndarray:
    """Which units of a layer are drawn."""
    return np.arange(size) if size <= MOST else np.r_[: MOST // 2, size - MOST // 2 : size]


def _heights(size: int) -> np.ndarray:
    """Where they are drawn, from the top, with room for dots where some are left out."""
    if size <= MOST:
        return np.linspace(1, -1, size) * min(0.5, 0.055 * (size - 1))
    upper = np.linspace(0.5, 0.09, MOST // 2)
    return np.r_[upper, -upper[::-1]]


def _lines(ax: Axes, left: float, below: np.ndarray, right: float, above: np.ndarray, weights: np.ndarray | None):
    """Lines between the units of two layers, or arcs within one; grey without weights, (above, below)."""
    shown = np.ones((len(above), len(below)))
    if weights is not None:
        shown = weights[np.ix_(_shown(weights.shape[0]), _shown(weights.shape[1]))]
    strength = np.abs(shown) / max(np.abs(shown).max(), 1e-30)
    along = np.linspace(0, 1, 2 if right > left else 24)[:, None]
    paths, colours = [], []
    for i, k in np.argwhere(strength > 0.02 if right > left else np.triu(strength) > 0.02):
        points = (1 - along) * [left, below[k]] + along * [right, above[i]]
        if left == right:  # wider where the units are further apart
            points[:, 0] += np.sin(np.pi * along[:, 0]) * 0.35 * abs(above[i] - below[k]) ** 0.5
        paths.append(points)
        hue = "0.6" if weights is None else COLOURS[0 if shown[i, k] > 0 else 1]
        colours.append(to_rgba(hue, 0.15 if weights is None else 0.1 + 0.8 * strength[i, k]))
    ax.add_collection(LineCollection(paths, colors=colours, linewidths=0.9, zorder=1))
