"""Feed-forward networks, trained by ordinary backpropagation, to compare with."""

import abc
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, Real

from oscsim.core.arrays import describe
from oscsim.core.checks import Given, as_key, as_numbers, checked
from oscsim.core.errors import BadValue
from oscsim.core.printing import Row
from oscsim.networks.activations import ReLU
from oscsim.networks.base import Layers
from oscsim.networks.convolutional import Convolution, check_stack, initial_weights
from oscsim.networks.costs import AbstractCost
from oscsim.networks.layered import as_parts, check_sizes, dense_weights
from oscsim.networks.learned import AbstractLearned
from oscsim.networks.products import as_products


class AbstractFeedForwardNetwork(AbstractLearned):
    """A network without feedback or dynamics, trained with `Backpropagation()`.

    A subclass gives weights, a cost, the shape of one input, the number of classes, and its output for one input.

    Example:
        >>> class Perceptron(osc.AbstractFeedForwardNetwork):
        ...     weights: tuple
        ...     cost = osc.CrossEntropy()
        ...     input_shape = (6,)
        ...     outputs = 4
        ...     def __call__(self, x):
        ...         return self.weights[0] @ x
        >>> perceptron = Perceptron((jnp.zeros((4, 6)),))
        >>> print(f"{osc.Backpropagation()(perceptron, x, y).loss:.3f}")  # log 4
        1.386
    """

    weights: eqx.AbstractVar[tuple[Array, ...]]
    cost: eqx.AbstractVar[AbstractCost]
    input_shape: eqx.AbstractVar[tuple[int, ...]]
    outputs: eqx.AbstractVar[int]

    def _about(self) -> list[Row]:
        about = {"input": "x".join(map(str, self.input_shape)), "outputs": str(self.outputs)}
        return [*about.items(), ("cost", describe(self.cost))]

    @abc.abstractmethod
    def __call__(self, x: Real[Array, "..."]) -> Real[Array, " out"]:
        """The output for one input."""

    @property
    def dtype(self) -> np.dtype:
        """The real type that the network computes in."""
        return np.dtype(self.weights[0].dtype)

    def clamp(self, x: Array) -> Array:
        """The input itself: nothing is computed ahead."""
        return x

    # As networks with dynamics have them, on batches; there are no activities.

    def clamped(self, x: Real[Array, "batch ..."]) -> Real[Array, "batch ..."]:
        """The inputs themselves."""
        return x

    def readout(self, clamped: Real[Array, "batch ..."], s: Layers) -> Real[Array, "batch out"]:
        """The output for each input."""
        return jax.vmap(self)(clamped)

    def read_output(self, clamped: Real[Array, "batch ..."], s: Layers) -> Real[Array, "batch out"]:
        """The output for each input."""
        return jax.vmap(self)(clamped)

    def loss(self, clamped: Real[Array, "batch ..."], s: Layers, y: Real[Array, "batch ..."]) -> Real[Array, " batch"]:
        """The cost of each output."""
        return jax.vmap(self.cost)(self.readout(clamped, s), y)


def require_sample(net: AbstractFeedForwardNetwork, x: Array) -> None:
    """Refuse what is not one real input of this network."""
    if jnp.shape(x) != net.input_shape or jnp.iscomplexobj(x):
        raise BadValue(f"x has shape {jnp.shape(x)}: give one real input, {net.input_shape}, and jax.vmap over several")


class FeedForwardNetwork(AbstractFeedForwardNetwork):
    r"""A dense network without feedback or dynamics: $s_{l+1} = \sigma(W_l s_l + b_l)$, and a linear output.

    It has the parameters of a `LayeredNetwork` of the same sizes, and starts from the same ones for the same key. It is
    trained with `Backpropagation()`.

    Attributes:
        weights: one (out, in) array per pair of neighbouring sizes.
        biases: one (out,) array per pair.
        activation: $\sigma$ of every layer but the last; `ReLU()` by default.
        cost: `CrossEntropy()` by default.
        sizes: input, layers, output.

    Args:
        key: for weights at random, from a truncated normal; not needed where all are given.
        scale: their standard deviation; by default 1/sqrt(fan in).
        weights: your own, a list with one array per pair of sizes; None in it is drawn. Later: `replace`.
        biases: likewise; None is zero, as all are by default.

    Raises:
        TypeError: an activation, a cost, a key or weights of the wrong kind.
        ValueError: fewer than two sizes; weights that do not fit them.

    Example:
        >>> twin = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0))
        >>> twin(x[0]).shape
        (4,)
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
        key: Key[Array, ""] | None = None,
        activation: Callable | None = None,
        cost: AbstractCost | None = None,
        scale: float | None = None,
        weights: Given = None,
        biases: Given = None,
    ):
        self.activation, self.cost = as_parts(activation, cost, ReLU())
        self.sizes = check_sizes(sizes, 2, "an input, layers of neurons, and an output")
        self.weights, self.biases = dense_weights(self.sizes, scale, key, weights, biases)

    @property
    def input_shape(self) -> tuple[int]:
        """The shape of one input."""
        return (self.sizes[0],)

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return self.sizes[-1]

    @checked(x=as_numbers)
    def __call__(self, x: Real[Array, " in"]) -> Real[Array, " out"]:
        """The output for one input."""
        require_sample(self, x)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = self.activation(weight @ x + bias)
        return self.weights[-1] @ x + self.biases[-1]


class ConvolutionalFeedForwardNetwork(AbstractFeedForwardNetwork):
    r"""Convolutions without feedback or dynamics: $s_{l+1} = \sigma(\mathrm{pool}_l(W_l * s_l + b_l))$, then a readout.

    It has the parameters of a `ConvolutionalNetwork` of the same layers, and starts from the same ones for the same
    key. It is trained with `Backpropagation()`.

    Attributes:
        weights: one (height, width, in, out) array per convolution, then the readout's (outputs, neurons); truncated
            normal at the start.
        biases: one (out,) array per convolution, then the readout's; zero at the start.
        activation: $\sigma$ of every layer of images; `ReLU()` by default.
        cost: `CrossEntropy()` by default.
        convolutions: one `Convolution` per layer of images.
        input_shape: height, width and channels of one input.
        outputs: the number of classes.
        products: None, `"bfloat16x3"` or `"bfloat16"`, as in `ConvolutionalNetwork`.

    Args:
        image: the `input_shape`.
        key: for the initial weights; `replace` puts your own in their place.
        readout_scale: standard deviation of the readout's; by default 1/sqrt(fan in). Each `Convolution` has its own.

    Raises:
        TypeError: an activation, a cost, a key or a convolution of the wrong kind.
        ValueError: no convolutions, or convolutions that do not fit the image that they are given; unknown products.

    Example:
        >>> images = osc.ConvolutionalFeedForwardNetwork([osc.Convolution(2)], (4, 4, 1), 3, key=jax.random.key(0))
        >>> images(jnp.zeros((4, 4, 1))).shape
        (3,)
    """

    weights: tuple[Real[Array, "..."], ...]
    biases: tuple[Real[Array, " out"], ...]
    activation: Callable
    cost: AbstractCost
    convolutions: tuple[Convolution, ...]
    input_shape: tuple[int, int, int] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    products: str | None = eqx.field(static=True)

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        image: Sequence[int],
        outputs: int,
        *,
        key: Key[Array, ""],
        activation: Callable | None = None,
        cost: AbstractCost | None = None,
        readout_scale: float | None = None,
        products: str | None = None,
    ):
        self.activation, self.cost = as_parts(activation, cost, ReLU())
        as_key("key", key)
        self.products = None if products is None else as_products("products", products)
        self.convolutions, shapes, self.outputs = check_stack(convolutions, image, outputs)
        self.input_shape = shapes[0]
        self.weights, self.biases = initial_weights(self.convolutions, shapes, self.outputs, readout_scale, key)

    @checked(x=as_numbers)
    def __call__(self, x: Real[Array, "height width channels"]) -> Real[Array, " out"]:
        """The output for one image."""
        require_sample(self, x)
        for convolution, weight, bias in zip(self.convolutions, self.weights, self.biases, strict=False):
            x = self.activation(convolution(weight, bias, x, self.products))
        return self.weights[-1] @ x.reshape(-1) + self.biases[-1]
