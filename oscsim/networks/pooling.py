"""Pooling: the neurons in a window of an image become one drive."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from oscsim.core.arrays import Scalar
from oscsim.core.checks import Given, as_inexact, checked, count, positive
from oscsim.core.errors import BadValue
from oscsim.core.printing import AbstractSettings

as_size = count("size")
"""The side of a window as a positive integer."""


def as_image(name: str, value: Given) -> Array:
    """An image as an array, or an error that names what is none."""
    value = as_inexact(name, value)
    if jnp.ndim(value) != 3:
        raise BadValue(f"{name} has shape {jnp.shape(value)}: give one image, (height, width, channels)")
    return value


pooling = checked(z=as_image)
"""For what is called with an image."""


def windows(z: Inexact[Array, "height width channels"], size: int) -> Inexact[Array, "places rows columns channels"]:
    """The image cut into windows of `size` by `size`, those at the same place in their window together.

    Raises:
        ValueError: the windows do not divide the image.
    """
    if z.shape[0] % size or z.shape[1] % size:
        raise BadValue(
            f"size={size}: windows of {size} by {size} do not divide an image of {z.shape[0]} by {z.shape[1]}; use a "
            "size that does, or another kernel, stride or padding"
        )
    height, width, channels = z.shape
    cut = z.reshape(height // size, size, width // size, size, channels).transpose(1, 3, 0, 2, 4)
    return cut.reshape(size * size, height // size, width // size, channels)


class AbstractPooling(AbstractSettings):
    """One number for each window of `size` by `size` in each channel; the windows lie side by side.

    A class says whether it is `holomorphic`.

    Example:
        >>> class Corner(osc.AbstractPooling):  # the upper left pixel of each window
        ...     size: int = 2
        ...     def __call__(self, z):
        ...         return z[:: self.size, :: self.size]
        >>> print(Corner()(jnp.arange(16.0).reshape(4, 4, 1))[..., 0])
        [[ 0.  2.]
         [ 8. 10.]]
    """

    size: eqx.AbstractVar[int]
    holomorphic: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, z: Inexact[Array, "height width channels"]) -> Inexact[Array, "rows columns channels"]:
        """The pooled image, real or complex, `size` times smaller in height and width.

        Raises:
            ValueError: the windows do not divide the image.
        """


class SoftmaxPooling(AbstractPooling):
    r"""$\sum_i z_i e^{z_i / T} / \sum_j e^{z_j / T}$ over each window: the holomorphic stand-in for the maximum.

    It tends to the mean for large $T$, and to the maximum for small $T$. Its poles are where the denominator vanishes,
    which takes imaginary parts that differ by $\pi T$ or more within a window.

    Attributes:
        size: side of the windows.
        temperature: $T > 0$, in units of the potentials.

    Raises:
        ValueError: a size that is not a positive integer, a temperature that is not positive.

    Source: Laborieux & Zenke (2022), section 4.

    Example:
        >>> z = jnp.array([0.0, 1.0, 2.0, 3.0]).reshape(2, 2, 1)
        >>> [f"{osc.SoftmaxPooling(2, temperature=t)(z).item():.2f}" for t in (100.0, 1.0, 0.01)]
        ['1.51', '2.49', '3.00']
    """

    size: int = eqx.field(converter=as_size, static=True, default=2)
    temperature: Scalar = eqx.field(converter=positive("temperature"), default=1.0)

    @pooling
    def __call__(self, z: Inexact[Array, "height width channels"]) -> Inexact[Array, "rows columns channels"]:
        z = windows(z, self.size)
        exponent = z / self.temperature.astype(z.real.dtype)
        # The shift cancels, and is the same for all of a window; it keeps exp in range.
        weight = jnp.exp(exponent - lax.stop_gradient(jnp.max(exponent.real, axis=0, keepdims=True)))
        return jnp.sum(z * weight, axis=0) / jnp.sum(weight, axis=0)


class AveragePooling(AbstractPooling):
    r"""$\frac1n \sum_i z_i$ over each window: linear, so holomorphic.

    Attributes:
        size: side of the windows.

    Raises:
        ValueError: a size that is not a positive integer.

    Example:
        >>> print(osc.AveragePooling(2)(jnp.arange(16.0).reshape(4, 4, 1))[..., 0])
        [[ 2.5  4.5]
         [10.5 12.5]]
    """

    size: int = eqx.field(converter=as_size, static=True, default=2)

    @pooling
    def __call__(self, z: Inexact[Array, "height width channels"]) -> Inexact[Array, "rows columns channels"]:
        return jnp.mean(windows(z, self.size), axis=0)


class MaxPooling(AbstractPooling):
    r"""$\max_i z_i$ over each window. Not holomorphic: for comparison under real teaching signals only.

    Of complex drives the real part alone is seen.

    Attributes:
        size: side of the windows.

    Raises:
        ValueError: a size that is not a positive integer.

    Example:
        >>> print(osc.MaxPooling(2)(jnp.arange(16.0).reshape(4, 4, 1))[..., 0])
        [[ 5.  7.]
         [13. 15.]]
    """

    size: int = eqx.field(converter=as_size, static=True, default=2)
    holomorphic: ClassVar[bool] = False

    @pooling
    def __call__(self, z: Inexact[Array, "height width channels"]) -> Inexact[Array, "rows columns channels"]:
        largest = jnp.max(windows(z.real, self.size), axis=0)
        return lax.complex(largest, jnp.zeros_like(largest)) if jnp.iscomplexobj(z) else largest
