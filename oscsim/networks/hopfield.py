"""Hopfield networks: neurons coupled all to all, with symmetric weights."""

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Key, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import Given, as_array
from oscsim.core.errors import BadValue, warn
from oscsim.networks.activations import Logistic
from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant, linear
from oscsim.networks.costs import AbstractCost
from oscsim.networks.layered import as_parts, as_time_constant, check_sizes, drawn


class Couplings(TypedDict, total=False):
    """The parameters of a `HopfieldNetwork`, by name."""

    weights: Given
    bias: Given
    coupling: Given
    readout_weights: Given
    readout_bias: Given


def _announce_what_acts(coupling: np.ndarray) -> None:
    """Say where the couplings that act are not those that were given."""
    if np.any(coupling != coupling.T) or np.any(np.diag(coupling)):
        warn(
            "coupling is not symmetric with a zero diagonal: what acts is (coupling + coupling.T) / 2 without its "
            "diagonal; give that. Couplings that differ in the two directions take a network class "
            "of your own, with `directed`"
        )


class HopfieldNetwork(AbstractNetwork):
    r"""Hidden neurons coupled all to all: $\Phi_0 = \frac12 s \cdot J s + s \cdot (W x + b)$.

    $J = (K + K^\top)/2$ without its diagonal, for the free matrix $K$ of `coupling`: symmetric, no self-connection.
    With `CrossEntropy` a linear readout of all neurons lies outside the dynamics; with `SquaredError` the last
    `sizes[2]` neurons are the outputs.

    Attributes:
        weights: $W$, (neurons, inputs).
        bias: $b$, (neurons,).
        coupling: $K$, (neurons, neurons).
        readout_weights: (outputs, neurons), or None with `SquaredError`.
        readout_bias: (outputs,), or None with `SquaredError`.
        activation: $\sigma$.
        cost: `CrossEntropy()` or `SquaredError()`.
        time_constant: $\tau$, one number, or a tuple with one array over the neurons.
        sizes: inputs, neurons, outputs.

    Args:
        key: for weights at random, from a truncated normal; not needed where all are given.
        scale: their standard deviation; by default 1/sqrt(fan in).
        given: your own `weights`, `bias`, `coupling`, `readout_weights`, `readout_bias`. Biases are zero by default.
            Later: `replace`.

    Raises:
        TypeError: an activation, a cost, a key or weights of the wrong kind.
        ValueError: not three sizes, more output neurons than neurons, weights that do not fit them, an unknown name.

    Source: Hopfield (1984); Scellier & Bengio (2017).

    Example:
        >>> hopfield = osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(0))
        >>> osc.settle(hopfield, x, y).activities[0].shape, hopfield.coupling.shape
        ((3, 5), (5, 5))
        >>> ring = np.roll(np.eye(4), 1, axis=1) + np.roll(np.eye(4), -1, axis=1)
        >>> osc.HopfieldNetwork((2, 4, 2), cost=osc.SquaredError(), coupling=ring, weights=np.ones((4, 2))).shapes
        ((4,),)
    """

    weights: Real[Array, "neurons inputs"]
    bias: Real[Array, " neurons"]
    coupling: Real[Array, "neurons neurons"]
    readout_weights: Real[Array, "outputs neurons"] | None
    readout_bias: Real[Array, " outputs"] | None
    activation: Callable
    cost: AbstractCost
    time_constant: TimeConstant = eqx.field(converter=as_time_constant)
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        key: Key[Array, ""] | None = None,
        activation: Callable | None = None,
        cost: AbstractCost | None = None,
        time_constant: TimeConstant = 1.0,
        scale: float | None = None,
        **given: Unpack[Couplings],
    ):
        self.activation, self.cost = as_parts(activation, cost, Logistic())
        self.sizes = check_sizes(sizes, 3, "inputs, neurons and outputs")
        self.time_constant = time_constant
        if len(self.sizes) != 3 or (not self.cost.readout and self.sizes[2] > self.sizes[1]):
            raise BadValue(f"sizes={self.sizes}: give inputs, neurons and outputs, with no more outputs than neurons")
        inputs, neurons, outputs = self.sizes
        shapes = {"weights": (neurons, inputs), "coupling": (neurons, neurons), "readout_weights": (outputs, neurons)}
        shapes |= {"bias": (neurons,), "readout_bias": (outputs,)}
        expected = [name for name in shapes if self.cost.readout or not name.startswith("readout")]
        if unknown := [name for name in given if name not in expected]:
            raise BadValue(f"{unknown[0]} is no parameter of this HopfieldNetwork: give {', '.join(expected)}")
        own = {name: as_array(name, array, shapes[name]) for name, array in given.items() if array is not None}
        if "coupling" in own and not is_traced(own["coupling"]):
            _announce_what_acts(np.asarray(own["coupling"]))
        if not self.cost.readout:
            own["readout_weights"] = jnp.zeros(shapes["readout_weights"])  # none is drawn
        drawable = [name for name in shapes if name.endswith(("weights", "coupling"))]
        of_weights = drawn(key, [shapes[name] for name in drawable], scale, [own.get(name) for name in drawable])
        self.weights, self.coupling, readout = of_weights
        self.bias = own.get("bias", jnp.zeros(neurons))
        self.readout_weights = readout if self.cost.readout else None
        self.readout_bias = own.get("readout_bias", jnp.zeros(outputs)) if self.cost.readout else None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """One layer of neurons."""
        return ((self.sizes[1],),)

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one input."""
        return (self.sizes[0],)

    @property
    def outputs(self) -> int:
        """The number of classes, or of real outputs."""
        return self.sizes[2]

    def clamp(self, x: Real[Array, " inputs"]) -> Array:
        """The input's drive on the neurons, $W x + b$."""
        return linear(self.weights, x) + self.bias

    def phi(self, clamped: Array, s: Layers, y: Array, beta: Inexact[Array, ""]) -> Array:
        r"""$s \cdot (W x + b) + \frac12 s \cdot J s - \beta C$."""
        (s_hidden,) = s
        symmetric = (self.coupling + self.coupling.T) / 2
        j = symmetric - jnp.diag(jnp.diag(symmetric))
        energy = jnp.sum(s_hidden * clamped) + jnp.sum(s_hidden * linear(j, s_hidden)) / 2
        if self.readout_weights is not None and self.readout_bias is not None:
            output = linear(self.readout_weights, s_hidden) + self.readout_bias
        else:
            output = s_hidden[-self.sizes[2] :]
        return energy - beta * self.cost(output, y)
