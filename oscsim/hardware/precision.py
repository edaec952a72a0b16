"""Limited precision: quantised weights and activities."""

import functools
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from oscsim.core.arrays import Scalar
from oscsim.core.checks import as_function, not_negative
from oscsim.networks.activations import AbstractActivation, numeric
from oscsim.networks.base import AbstractNetwork, check_parameters
from oscsim.networks.learned import split_parameters

Net = TypeVar("Net", bound=AbstractNetwork)


def rounded(a: Array, resolution: Array) -> Array:
    """Real and imaginary part to the nearest multiple of the resolution; as they are where that is 0.

    The derivative passes straight through, as that of the ideal would.
    """
    if jnp.iscomplexobj(a):
        return lax.complex(rounded(a.real, resolution), rounded(a.imag, resolution))
    resolution = resolution.astype(a.dtype)
    step = jnp.where(resolution > 0, resolution, 1)
    return a + lax.stop_gradient(jnp.where(resolution > 0, jnp.round(a / step) * step - a, 0))


def quantise(net: Net, resolution: ArrayLike) -> Net:
    """The network with every parameter rounded to the nearest multiple of `resolution`, in units of the weights.

    Raises:
        TypeError: not a network.
        ValueError: a negative resolution.

    Example:
        >>> coarse = osc.hardware.quantise(net, resolution=0.25)
        >>> np.allclose(4 * coarse.weights[0], np.round(4 * coarse.weights[0]))
        True
    """
    check_parameters(net)
    resolution = not_negative("resolution")(resolution)
    learned, fixed = split_parameters(net)
    return eqx.combine(jax.tree.map(lambda w: rounded(w, resolution), learned), fixed)


class Quantised(AbstractActivation):
    r"""Quantised activities: real and imaginary part of $\sigma(u)$, rounded to the nearest multiple of a resolution.

    No such function is holomorphic. It counts as holomorphic where the ideal is, because it stands for the ideal: how
    far the estimate is off is what there is to study. Its derivative is that of the ideal.

    Attributes:
        function: $\sigma$, the ideal.
        resolution: the step, in units of the activity.

    Raises:
        ValueError: a negative resolution.

    Example:
        >>> steps = osc.hardware.Quantised(osc.Tanh(), resolution=0.25)
        >>> print(steps(jnp.array([0.1, 0.5, 2.0])))
        [0.  0.5 1. ]
    """

    function: Callable = eqx.field(converter=functools.partial(as_function, "function"))
    resolution: Scalar = eqx.field(converter=not_negative("resolution"))

    @property
    def holomorphic(self) -> bool:
        """Whether the ideal is."""
        return getattr(self.function, "holomorphic", True)

    @numeric
    def __call__(self, u: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
        return rounded(self.function(u), self.resolution)
