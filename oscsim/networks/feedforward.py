"""The feed-forward twin: what ordinary backpropagation trains, to compare with."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Real

from oscsim.networks.activations import ReLU
from oscsim.networks.costs import AbstractCost, CrossEntropy
from oscsim.networks.layered import check_parts, check_sizes, truncated_normal


class FeedForwardNetwork(eqx.Module):
    r"""A dense network without feedback or dynamics: $s_{l+1} = \sigma(W_l s_l + b_l)$, and a linear output.

    It has the parameters of a `LayeredNetwork` of the same sizes, and starts from the same ones for the same key. It is
    trained with `Backpropagation()`.

    Attributes:
        weights: one (out, in) array per pair of neighbouring sizes; truncated normal at the start.
        biases: one (out,) array per pair; zero at the start.
        activation: $\sigma$ of every layer but the last; `ReLU()` by default.
        cost: `CrossEntropy()` by default.
        sizes: input, layers, output.

    Raises:
        TypeError: an activation, a cost or a key of the wrong kind.
        ValueError: fewer than two sizes.
    """

    weights: tuple[Real[Array, "out in"], ...]
    biases: tuple[Real[Array, " out"], ...]
    activation: Callable
    cost: AbstractCost
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        key: Key[Array, ""],
        activation: Callable | None = None,
        cost: AbstractCost | None = None,
        scale: float | None = None,
    ):
        check_parts(activation, cost, key)
        self.sizes = check_sizes(sizes, 2, "an input, layers of neurons, and an output")
        self.activation = ReLU() if activation is None else activation
        self.cost = CrossEntropy() if cost is None else cost
        shapes = [(n_out, n_in) for n_in, n_out in pairwise(self.sizes)]
        keys = jax.random.split(key, len(shapes))
        self.weights = tuple(truncated_normal(k, shape, scale) for k, shape in zip(keys, shapes, strict=True))
        self.biases = tuple(jnp.zeros(n_out) for n_out, _ in shapes)

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one input."""
        return (self.sizes[0],)

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.sizes[-1]

    @property
    def dtype(self) -> np.dtype:
        """The real type that the network computes in."""
        return np.dtype(self.weights[0].dtype)

    def clamp(self, x: Real[Array, " in"]) -> Array:
        """The input itself: nothing is computed ahead."""
        return x

    def __call__(self, x: Real[Array, " in"]) -> Real[Array, " out"]:
        """The output for one input."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = self.activation(weight @ x + bias)
        return self.weights[-1] @ x + self.biases[-1]
