"""The convolutional architectures of the paper, for images of 32 by 32 pixels, at any width.

Kernels of 3 by 3, pooling by 2, holomorphic tanh of slope 1 and width 2, weights from a truncated normal of standard
deviation 1/sqrt(fan in).

Source: Laborieux & Zenke (2022), section 4, and the settings that the authors published beside their code.
"""

from collections.abc import Callable

from jaxtyping import Array, Key

from oscsim.core.checks import as_count, as_function, as_positive, checked
from oscsim.core.errors import BadValue
from oscsim.networks.convolutional import Convolution, ConvolutionalNetwork
from oscsim.networks.feedforward import ConvolutionalFeedForwardNetwork
from oscsim.networks.pooling import AbstractPooling, SoftmaxPooling
from oscsim.networks.products import as_products

__all__ = ["vgg4", "vgg4_feedforward", "vgg6"]

IMAGE = (32, 32, 3)
FOUR = ((128, "SAME", True), (256, "SAME", True), (512, "SAME", True), (512, "VALID", True))
SIX = (
    (128, "SAME", True),
    (128, "SAME", False),
    (256, "SAME", True),
    (256, "VALID", False),
    (512, "SAME", True),
    (512, "VALID", False),
)
"""Channels at full width, padding, and whether it is pooled, of each layer."""


@checked(classes=as_count, width=as_positive, temperature=as_positive, activation=as_function, products=as_products)
def vgg4(
    classes: int = 10,
    width: float = 1.0,
    *,
    temperature: float | None = None,
    pooling: AbstractPooling | None = None,
    activation: Callable | None = None,
    products: str | None = None,
    key: Key[Array, ""],
) -> ConvolutionalNetwork:
    """Four convolutions of 128, 256, 512 and 512 channels, each pooled, and a dense readout: Table 2.

    Args:
        classes: of the readout.
        width: what the channels are multiplied by; 1 is the paper's network.
        temperature: of the softmax pooling; 1 if not given.
        pooling: another pooling by 2 instead, such as `MaxPooling()`.
        activation: another one than `HoloTanh(a=1.0, width=2.0)`.
        products: None, `"bfloat16"` or `"bfloat16x3"`: see `ConvolutionalNetwork`.
        key: for the weights.

    Raises:
        ValueError: a width that is not positive, or so small that a layer has no channels; a temperature beside another
            pooling; unknown products.

    Example:
        >>> small = osc.models.vgg4(width=1 / 64, key=jax.random.key(0))
        >>> [convolution.channels for convolution in small.convolutions], small.shapes[-1]
        ([2, 4, 8, 8], (1, 1, 8))
    """
    return ConvolutionalNetwork(
        _stack(FOUR, width, temperature, pooling), IMAGE, classes, activation=activation, products=products, key=key
    )


@checked(classes=as_count, width=as_positive, temperature=as_positive, activation=as_function, products=as_products)
def vgg6(
    classes: int = 10,
    width: float = 1.0,
    *,
    temperature: float | None = None,
    pooling: AbstractPooling | None = None,
    activation: Callable | None = None,
    products: str | None = None,
    key: Key[Array, ""],
) -> ConvolutionalNetwork:
    """Six convolutions of 128, 128, 256, 256, 512 and 512 channels, every other pooled: Fig. 4.

    The paper's gradients (Figs. 4a and b) have temperature 1, its learning curves (Fig. 4c) temperature 10; both
    figures compare with `pooling=MaxPooling(), activation=HardTanh(width=2.0)`.

    Arguments and errors are those of `vgg4`.

    Example:
        >>> small = osc.models.vgg6(width=1 / 64, temperature=10.0, key=jax.random.key(0))
        >>> [convolution.channels for convolution in small.convolutions]
        [2, 2, 4, 4, 8, 8]
    """
    return ConvolutionalNetwork(
        _stack(SIX, width, temperature, pooling), IMAGE, classes, activation=activation, products=products, key=key
    )


@checked(classes=as_count, width=as_positive, temperature=as_positive, activation=as_function, products=as_products)
def vgg4_feedforward(
    classes: int = 10,
    width: float = 1.0,
    *,
    temperature: float | None = None,
    pooling: AbstractPooling | None = None,
    activation: Callable | None = None,
    products: str | None = None,
    key: Key[Array, ""],
) -> ConvolutionalFeedForwardNetwork:
    """The twin of `vgg4` without feedback or dynamics, of rectified linear units, trained with `Backpropagation()`.

    Arguments and errors are those of `vgg4`; the weights are those of `vgg4` with the same key.

    Example:
        >>> twin = osc.models.vgg4_feedforward(width=1 / 64, key=jax.random.key(0))
        >>> twin.weights[-1].shape  # of the readout
        (10, 8)
    """
    return ConvolutionalFeedForwardNetwork(
        _stack(FOUR, width, temperature, pooling), IMAGE, classes, activation=activation, products=products, key=key
    )


def _stack(
    layers: tuple[tuple[int, str, bool], ...], width: float, temperature: float | None, pooling: AbstractPooling | None
) -> tuple[Convolution, ...]:
    """From channels at full width, padding, and whether it is pooled, of each layer."""
    if pooling is not None and temperature is not None:
        raise BadValue(f"temperature={temperature} is that of the softmax pooling, not of {pooling!r}: leave it out")
    pool = SoftmaxPooling(2, 1.0 if temperature is None else temperature) if pooling is None else pooling
    return tuple(
        Convolution(_channels(channels, width), padding=padding, pooling=pool if pooled else None)
        for channels, padding, pooled in layers
    )


WIDEST = 16
"""A layer of the widest networks has 600 million weights."""


def _channels(channels: int, width: float) -> int:
    found = round(channels * width)
    if found < 1:
        raise BadValue(f"width={width:g} leaves no channel of {channels}: use 1/128 or more")
    if width > WIDEST:
        raise BadValue(f"width={width:g} makes {found} channels of {channels}: use {WIDEST} or less")
    return found
