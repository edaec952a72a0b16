"""Convolutional networks: layers of images, each coupled to the next by a convolution and its transpose."""

import functools
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact, Key, Real

from oscsim.core.checks import (
    as_count,
    as_key,
    as_numbers,
    checked,
    choice,
    count,
    instance,
    optional,
    require_instance,
)
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractSettings
from oscsim.networks.activations import HoloTanh
from oscsim.networks.base import TimeConstant, linear
from oscsim.networks.costs import AbstractCost
from oscsim.networks.layered import AbstractLayered, as_parts, as_scale, as_time_constant, truncated_normal
from oscsim.networks.pooling import AbstractPooling, as_image
from oscsim.networks.products import as_products, multiply

as_padding = choice("SAME", "VALID")
"""What is added at the rim."""

as_pooling = instance(AbstractPooling, "use an instance of a pooling, such as SoftmaxPooling(2), or None")
"""What becomes of a window of pixels."""


@checked(weight=as_numbers, s=as_image, stride=as_count, padding=as_padding, products=as_products)
def convolve(
    weight: Real[Array, "height width in out"],
    s: Inexact[Array, "rows columns in"],
    stride: int = 1,
    padding: str = "SAME",
    products: str | None = None,
) -> Inexact[Array, "new_rows new_columns out"]:
    r"""The convolution of an image of real or complex activities with real kernels, as neural networks have it.

    $z_{rco} = \sum_{hwi} W_{hwio} \, s_{kr+h, kc+w, i}$ at stride $k$, counted from the corner of the window. Real and
    imaginary parts go through one real product together: cheaper than casting the kernels to complex, and just as fast
    under `jax.grad` and `jax.vmap`.

    Args:
        weight: one kernel per pair of channels.
        s: the image, channels last.
        stride: pixels from one window to the next.
        padding: `"SAME"` adds zeros at the rim, so that at stride 1 the image keeps its size; `"VALID"` adds none.
        products: None, `"bfloat16"` or `"bfloat16x3"`: see `ConvolutionalNetwork`.

    Raises:
        ValueError: kernels for another number of channels than the image has; unknown products, or products of bfloat16
            numbers where image or kernels are not float32.

    Example:
        >>> print(osc.convolve(jnp.ones((3, 3, 1, 2)), jnp.ones((4, 4, 1)))[..., 0])
        [[4. 6. 6. 4.]
         [6. 9. 9. 6.]
         [6. 9. 9. 6.]
         [4. 6. 6. 4.]]
    """
    if jnp.ndim(weight) != 4 or jnp.iscomplexobj(weight):
        raise BadValue(f"weight has shape {jnp.shape(weight)}: give real kernels, (height, width, in, out)")
    height, width, channels, out = weight.shape
    if channels != s.shape[2]:
        raise BadValue(
            f"weight has shape {weight.shape}, for images of {channels} channels, s has {s.shape[2]}: the third axis "
            "of the kernels counts the channels of the image, which come last"
        )
    is_complex = jnp.iscomplexobj(s)
    parts = jnp.stack([s.real, s.imag]) if is_complex else s[None]
    # One matrix product of all windows. XLA's own convolution is no faster on a CPU, and inside a loop, where neurons
    # live, its transpose, which is the feedback, takes 4 to 20 times longer (jax 0.10.1).
    pads = lax.padtype_to_pads(s.shape[:2], (height, width), (stride, stride), padding)
    padded = jnp.pad(parts, ((0, 0), *pads, (0, 0)))
    rows, columns = ((n - side) // stride + 1 for n, side in zip(padded.shape[1:3], (height, width), strict=True))
    seen = [
        padded[:, h : h + stride * (rows - 1) + 1 : stride, w : w + stride * (columns - 1) + 1 : stride]
        for h in range(height)
        for w in range(width)
    ]
    z = multiply(jnp.concatenate(seen, axis=-1), weight.reshape(-1, out), products)
    return lax.complex(z[0], z[1]) if is_complex else z[0]


class Convolution(AbstractSettings):
    r"""How one layer of images drives the next: $\mathrm{pool}(W * s + b)$.

    Attributes:
        channels: of the driven layer.
        kernel: side of the square kernels.
        stride: pixels from one window to the next.
        padding: `"SAME"` or `"VALID"`, as in `convolve`.
        pooling: `SoftmaxPooling(...)`, `AveragePooling(...)`, `MaxPooling(...)`, or None.
        scale: standard deviation of the weights at the start, before the cut; None: 1/sqrt(fan in), of kernel times
            kernel times channels below.

    Raises:
        TypeError: a pooling that is none.
        ValueError: channels, kernel or stride that are not positive integers, an unknown padding, a negative scale.

    Example:
        >>> layer = osc.Convolution(8, kernel=3, pooling=osc.SoftmaxPooling(2))
        >>> layer(jnp.ones((3, 3, 1, 8)), jnp.zeros(8), jnp.ones((6, 6, 1))).shape
        (3, 3, 8)
    """

    channels: int = eqx.field(static=True, converter=count("channels"))
    kernel: int = eqx.field(static=True, default=3, converter=count("kernel"))
    stride: int = eqx.field(static=True, default=1, kw_only=True, converter=count("stride"))
    padding: str = eqx.field(
        static=True, default="SAME", kw_only=True, converter=functools.partial(as_padding, "padding")
    )
    pooling: AbstractPooling | None = eqx.field(
        default=None, kw_only=True, converter=optional(functools.partial(as_pooling, "pooling"))
    )
    scale: float | None = eqx.field(
        static=True, default=None, kw_only=True, converter=optional(functools.partial(as_scale, "scale"))
    )

    def __call__(
        self,
        weight: Real[Array, "height width in out"],
        bias: Real[Array, " out"],
        s: Inexact[Array, "rows columns in"],
        products: str | None = None,
    ) -> Inexact[Array, "new_rows new_columns out"]:
        """The drive of one image on the layer above; `products` as in `ConvolutionalNetwork`."""
        z = convolve(weight, s, self.stride, self.padding, products) + bias[None, None]
        return z if self.pooling is None else self.pooling(z)

    def shape_after(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape of the driven layer, above one of `shape`: height, width, channels.

        Raises:
            ValueError: the kernel is larger than the image, or the windows of the pooling do not divide what it leaves.
        """
        height, width = shape[:2]
        if self.padding == "SAME":
            height, width = -(-height // self.stride), -(-width // self.stride)
        elif self.kernel > min(height, width):
            raise BadValue(
                f"kernel={self.kernel} is larger than the image of {height} by {width}: use a smaller kernel, "
                "padding='SAME', or less pooling below"
            )
        else:
            height, width = ((side - self.kernel) // self.stride + 1 for side in (height, width))
        if self.pooling is not None:
            size = self.pooling.size
            if height % size or width % size:
                raise BadValue(
                    f"pooling={type(self.pooling).__name__}(size={size}): windows of {size} by {size} do not divide "
                    f"the {height} by {width} that the convolution leaves; use one that does, another padding, or None"
                )
            height, width = height // size, width // size
        return height, width, self.channels


def check_stack(
    convolutions: Sequence[Convolution], image: Sequence[int], outputs: int
) -> tuple[tuple[Convolution, ...], tuple[tuple[int, int, int], ...], int]:
    """Convolutions that fit onto each other and onto the image, the shapes from the image on, and the outputs."""
    if not isinstance(convolutions, (tuple, list)) or not convolutions:
        raise BadValue(f"convolutions={convolutions!r}: give one Convolution(...) or more, in a tuple")
    if not isinstance(image, (tuple, list)) or len(image) != 3:
        raise BadValue(f"image={image!r}: give height, width and channels, such as (32, 32, 3)")
    height, width, channels = (as_count("image", n) for n in image)
    shapes = [(height, width, channels)]
    for number, convolution in enumerate(convolutions):
        require_instance(f"convolutions[{number}]", convolution, Convolution, "use Convolution(...)")
        try:
            shapes.append(convolution.shape_after(shapes[-1]))
        except ValueError as error:
            raise BadValue(f"convolutions[{number}], on {shapes[-1]}: {error}") from error
    return tuple(convolutions), tuple(shapes), as_count("outputs", outputs)


def initial_weights(
    convolutions: tuple[Convolution, ...],
    shapes: tuple[tuple[int, ...], ...],
    outputs: int,
    scale: float | None,
    key: Key[Array, ""],
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Weights and biases of a stack: one kernel array per convolution, then the dense readout."""
    *keys, key_out = jax.random.split(key, len(convolutions) + 1)
    weights = []
    for k, convolution, (_, _, channels) in zip(keys, convolutions, shapes, strict=False):
        side, out = convolution.kernel, convolution.channels
        flat = truncated_normal(k, (out, side * side * channels), convolution.scale)
        weights.append(flat.T.reshape(side, side, channels, out))
    height, width, channels = shapes[-1]
    scale = None if scale is None else as_scale("readout_scale", scale)
    weights.append(truncated_normal(key_out, (outputs, height * width * channels), scale))
    return tuple(weights), tuple(jnp.zeros(n) for n in (*(c.channels for c in convolutions), outputs))


class ConvolutionalNetwork(AbstractLayered):
    r"""A stack of images: $\Phi_0 = \sum_l s_{l+1} \cdot \mathrm{pool}_l(W_l * s_l + b_l)$ with $s_0 = x$ clamped.

    Each convolution drives the layer above, and its transpose, through the pooling, the layer below: feedback comes
    from differentiating $\Phi$. With `CrossEntropy` a dense readout of the last layer lies outside the dynamics,
    $C = C(W_{out} s_{last} + b_{out}, y)$; with `SquaredError` its outputs are one more layer of neurons, and $C =
    C(s_{out}, y)$.

    **Mixed precision.** `products` splits the operands of every convolution, and of all its derivatives, into bfloat16
    numbers, and adds their products up in float32; the readout (few products), states, sums, parameters and gradients
    stay float32. Off by default. `"bfloat16x3"` takes a high and a low part of each operand, three products, about 16
    bits, and keeps the gradient of every layer. `"bfloat16"` takes one product, 8 bits: too few for equilibrium
    propagation, since in the early layers the states at the two points differ by less than the rounding. The results
    on convolutional networks in the documentation say how much is left.

    Attributes:
        weights: one (height, width, in, out) array per convolution, then the readout's (outputs, neurons); truncated
            normal at the start.
        biases: one (out,) array per convolution, then the readout's; zero at the start.
        activation: $\sigma$ of every layer; by default `HoloTanh(a=1.0, width=2.0)`, as in the paper.
        cost: `CrossEntropy()` or `SquaredError()`.
        time_constant: $\tau$, one number, or a tuple with one entry per layer of neurons.
        convolutions: one `Convolution` per layer of images.
        input_shape: height, width and channels of one input.
        outputs: the number of classes.
        products: None for the network's own type; `"bfloat16x3"` or `"bfloat16"`, of float32 networks only.

    Args:
        image: the `input_shape`.
        key: for the initial weights; `replace` puts your own in their place.
        readout_scale: standard deviation of the readout's; by default 1/sqrt(fan in). Each `Convolution` has its own.

    Raises:
        TypeError: an activation, a cost, a key or a convolution of the wrong kind.
        ValueError: no convolutions, or convolutions that do not fit the image that they are given; unknown products.

    Source: Laborieux & Zenke (2022), section 4; Laborieux et al. (2021), *Scaling equilibrium propagation to deep
    ConvNets by drastically reducing its gradient estimator bias*.

    Example:
        >>> layers = (osc.Convolution(2, pooling=osc.SoftmaxPooling(2)), osc.Convolution(3, padding="VALID"))
        >>> images = osc.ConvolutionalNetwork(layers, (8, 8, 1), 10, key=jax.random.key(0))
        >>> images.shapes
        ((4, 4, 2), (2, 2, 3))
    """

    weights: tuple[Real[Array, "..."], ...]
    biases: tuple[Real[Array, " out"], ...]
    activation: Callable
    cost: AbstractCost
    time_constant: TimeConstant = eqx.field(converter=as_time_constant)
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
        time_constant: TimeConstant = 1.0,
        readout_scale: float | None = None,
        products: str | None = None,
    ):
        self.activation, self.cost = as_parts(activation, cost, HoloTanh(a=1.0, width=2.0))
        as_key("key", key)
        self.products = None if products is None else as_products("products", products)
        self.convolutions, shapes, self.outputs = check_stack(convolutions, image, outputs)
        self.input_shape = shapes[0]
        self.time_constant = time_constant
        self.weights, self.biases = initial_weights(self.convolutions, shapes, self.outputs, readout_scale, key)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers of neurons: (height, width, channels) of each image; the readout is not one."""
        _, (_, *images), _ = check_stack(self.convolutions, self.input_shape, self.outputs)
        return tuple(images) if self.cost.readout else (*images, (self.outputs,))

    def onward(
        self, place: int, weight: Real[Array, "..."], bias: Real[Array, " out"], s: Inexact[Array, "..."]
    ) -> Inexact[Array, "..."]:
        r"""$\mathrm{pool}_l(W_l * s + b_l)$, and of the last images the outputs, $W_{out} s + b_{out}$."""
        if place == len(self.convolutions):
            return linear(weight, s.reshape(-1)) + bias
        return self.convolutions[place](weight, bias, s, self.products)
