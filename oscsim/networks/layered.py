"""Layered networks: each layer is coupled to the next by symmetric feed-forward and feedback weights."""

import abc
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Key, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import Given, as_count, as_key, as_real, as_scalar, require_instance, shown
from oscsim.core.errors import BadType, BadValue
from oscsim.core.memory import require_memory
from oscsim.networks.activations import Logistic
from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant, linear
from oscsim.networks.costs import AbstractCost, CrossEntropy
from oscsim.networks.learned import as_layers


def as_time_constant(value: TimeConstant) -> TimeConstant:
    """A time constant as arrays: one number, or a tuple with one entry per layer."""
    if isinstance(value, (tuple, list)):
        return tuple(as_real("time_constant", v) for v in value)
    return as_real("time_constant", value)


def as_scale(name: str, value: Given) -> Given:
    """The standard deviation of weights at the start, or an error that names it."""
    scale = as_scalar(name, value)
    if not is_traced(scale) and float(scale) < 0:
        raise BadValue(f"{name}={shown(value)}: use a finite number that is not negative, or None for 1/sqrt(fan in)")
    return scale if is_traced(scale) else float(np.asarray(value))


def truncated_normal(key: Key[Array, ""], shape: tuple[int, ...], scale: float | None) -> Float[Array, "out in"]:
    """Weights from a normal of standard deviation `scale` (None: 1/sqrt(fan in)), cut at two standard deviations.

    As in jax's and the paper's initialisers, `scale` is meant before the cut; what is left has 0.88 of it.
    """
    deviation = shape[-1] ** -0.5 if scale is None else as_scale("scale", scale)
    require_memory(f"a weight of shape {shape}", 4 * math.prod(shape), "use smaller layers")
    return deviation * jax.random.truncated_normal(key, -2.0, 2.0, shape)


def drawn(
    key: Key[Array, ""] | None,
    shapes: Sequence[tuple[int, ...]],
    scale: float | None,
    given: Sequence[Array | None],
) -> tuple[Array, ...]:
    """Weights of these shapes: those that are given, and random ones for the others.

    Raises:
        TypeError: some are to be drawn, and the key is none.
        ValueError: a scale, and nothing to draw.
    """
    own = tuple(array for array in given if array is not None)
    if len(own) == len(shapes):
        if scale is not None:
            raise BadValue(f"scale={scale}: all weights are given, none is drawn; leave it out")
        return own
    if key is None:
        raise BadType("key is None, and weights are to be drawn: give key=jax.random.key(0), or all weights")
    as_key("key", key)
    keys = jax.random.split(key, len(shapes))
    return tuple(
        truncated_normal(k, shape, scale) if array is None else array
        for k, shape, array in zip(keys, shapes, given, strict=True)
    )


def dense_weights(
    sizes: Sequence[int], scale: float | None, key: Key[Array, ""] | None, weights: Given = None, biases: Given = None
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Weights and biases between layers of these sizes: those that are given; else at random, and zero."""
    shapes = [(n_out, n_in) for n_in, n_out in pairwise(sizes)]
    of_biases = as_layers("biases", biases, [(n_out,) for n_out, _ in shapes])
    return (
        drawn(key, shapes, scale, as_layers("weights", weights, shapes)),
        tuple(jnp.zeros(n) if b is None else b for (n, _), b in zip(shapes, of_biases, strict=True)),
    )


def check_sizes(sizes: Sequence[int], fewest: int, meaning: str) -> tuple[int, ...]:
    """Layer sizes as a tuple of positive integers, `fewest` of them at least."""
    remedy = f"give {meaning}, as positive integers in a tuple"
    if not isinstance(sizes, (tuple, list)):
        raise BadType(f"sizes={sizes!r}: {remedy}")
    counts = tuple(as_count(f"sizes={sizes}: size {i}", n, remedy=remedy) for i, n in enumerate(sizes))
    if len(counts) < fewest:
        raise BadValue(f"sizes={sizes}: {remedy}")
    return counts


def as_parts(activation: Given, cost: Given, usual: Callable) -> tuple[Callable, AbstractCost]:
    """Activation and cost, by default the `usual` one and `CrossEntropy()`.

    Raises:
        TypeError: a class in place of an instance, or a name.
    """
    if activation is not None and (not callable(activation) or isinstance(activation, type)):
        raise BadType(f"activation={activation!r}: use a function or an instance, such as Logistic()")
    if cost is not None:
        require_instance("cost", cost, AbstractCost, "use an instance of a cost, such as CrossEntropy()")
    return usual if activation is None else activation, CrossEntropy() if cost is None else cost


class AbstractLayered(AbstractNetwork):
    r"""Layers in a row: $\Phi_0 = s_1 \cdot f_0(x) + \sum_{l \ge 1} s_{l+1} \cdot f_l(s_l)$, with the input clamped.

    A subclass gives `onward`, which is $f_l$ with the weights and biases of that place. With a cost that has a readout
    the last ones are outside the dynamics, $C = C(f_{out}(s_{last}), y)$; else $C = C(s_{last}, y)$.
    """

    weights: eqx.AbstractVar[tuple[Real[Array, "..."], ...]]
    biases: eqx.AbstractVar[tuple[Real[Array, " out"], ...]]
    cost: eqx.AbstractVar[AbstractCost]

    @abc.abstractmethod
    def onward(
        self, place: int, weight: Real[Array, "..."], bias: Real[Array, " out"], s: Inexact[Array, "..."]
    ) -> Inexact[Array, "..."]:
        """$f_l(s)$: what one layer gives to the next; `place` counts from 0, that of the input."""

    def output(self, s: Layers) -> Inexact[Array, " out"]:
        """What the cost sees: the readout of the last layer, or that layer itself."""
        place = len(self.weights) - 1
        return self.onward(place, self.weights[-1], self.biases[-1], s[-1]) if self.cost.readout else s[-1]

    def clamp(self, x: Real[Array, "..."]) -> Array:
        """The input's drive on the first layer, $f_0(x)$."""
        return self.onward(0, self.weights[0], self.biases[0], x)

    def phi(self, clamped: Array, s: Layers, y: Array, beta: Inexact[Array, ""]) -> Array:
        r"""$s_1 \cdot f_0(x) + \sum_{l \ge 1} s_{l+1} \cdot f_l(s_l) - \beta C$."""
        energy = jnp.sum(s[0] * clamped)
        for place, (below, above) in enumerate(pairwise(s), start=1):
            energy += jnp.sum(above * self.onward(place, self.weights[place], self.biases[place], below))
        return energy - beta * self.cost(self.output(s), y)


class LayeredNetwork(AbstractLayered):
    r"""A dense layered network: $\Phi_0 = \sum_l s_{l+1} \cdot (W_l s_l + b_l)$ with $s_0 = x$ clamped.

    With `CrossEntropy` the last weights are a readout outside the dynamics, $C = C(W_{out} s_{last} + b_{out}, y)$, and
    the neurons are `sizes[1:-1]`. With `SquaredError` the last layer is made of neurons too, and $C = C(s_{last}, y)$.

    Attributes:
        weights: one (out, in) array per pair of neighbouring sizes.
        biases: one (out,) array per pair.
        activation: $\sigma$ of every layer.
        cost: `CrossEntropy()` or `SquaredError()`.
        time_constant: $\tau$, one number, or a tuple with one entry per layer of neurons.
        sizes: input, layers, output.

    Args:
        key: for weights at random, from a truncated normal; not needed where all are given.
        scale: their standard deviation; by default 1/sqrt(fan in).
        weights: your own, a list with one array per pair of sizes; None in it is drawn. Later: `replace`.
        biases: likewise; None is zero, as all are by default.

    Raises:
        TypeError: an activation, a cost, a key or weights of the wrong kind.
        ValueError: fewer sizes than an input, a layer of neurons and an output; weights that do not fit them.

    Source: Laborieux & Zenke (2022), section 2; Scellier & Bengio (2017).

    Example:
        >>> layered = osc.LayeredNetwork((6, 5, 4), key=jax.random.key(0))
        >>> layered.shapes, [w.shape for w in layered.weights]  # the last weights are the readout
        (((5,),), [(5, 6), (4, 5)])
        >>> osc.LayeredNetwork((2, 1, 2), weights=[np.ones((1, 2)), np.array([[1.0], [-1.0]])])
        LayeredNetwork, 7 parameters of float32
          input       2
          neurons     1
          outputs     2
          activation  Logistic(slope=4, centre=0.5)
          cost        CrossEntropy()
          tau         1
          layer 0     weights[0] (1, 2), biases[0] (1,)  3
          layer 1     weights[1] (2, 1), biases[1] (2,)  4
    """

    weights: tuple[Real[Array, "out in"], ...]
    biases: tuple[Real[Array, " out"], ...]
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
        weights: Given = None,
        biases: Given = None,
    ):
        self.activation, self.cost = as_parts(activation, cost, Logistic())
        self.sizes = check_sizes(sizes, 3, "an input, one layer of neurons or more, and an output")
        self.time_constant = time_constant
        self.weights, self.biases = dense_weights(self.sizes, scale, key, weights, biases)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers of neurons; the readout is not one."""
        return tuple((n,) for n in (self.sizes[1:-1] if self.cost.readout else self.sizes[1:]))

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one input."""
        return (self.sizes[0],)

    @property
    def outputs(self) -> int:
        """The number of classes, or of real outputs."""
        return self.sizes[-1]

    def onward(
        self, place: int, weight: Real[Array, "out in"], bias: Real[Array, " out"], s: Inexact[Array, " in"]
    ) -> Inexact[Array, " out"]:
        """$W_l s + b_l$."""
        return linear(weight, s) + bias
