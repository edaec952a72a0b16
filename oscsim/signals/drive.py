"""Checks of a teaching signal: whether a network can follow it, and whether a gradient can be read off it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from oscsim.core.arrays import describe, is_traced, ratio
from oscsim.core.checks import require_positive
from oscsim.core.errors import BadType, BadValue, warn
from oscsim.networks.base import AbstractNetwork, check_parameters, require_holomorphic, slowest_neuron
from oscsim.signals.teaching import AbstractTeaching, fourier_coefficient


def check_drive(net: AbstractNetwork, teaching: AbstractTeaching, lag_is_known: bool = False) -> None:
    r"""Refuse a signal that this network cannot follow, or cannot answer exactly.

    Whoever knows the lag, as predictions do, is not warned of it.

    Raises:
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        TypeError: no signal, or one without a period or that cannot be called.
        ValueError: a period shorter than $2 \pi \tau$; below $50 \tau$ there is a warning.
    """
    if not isinstance(teaching, AbstractTeaching) or not hasattr(teaching, "period"):  # a signal within may have none
        raise BadType(
            f"teaching={teaching!r}: use a signal with a period that is called with the time, a class below "
            "AbstractTeaching such as Rotating"
        )
    check_parameters(net)
    try:
        value = jax.eval_shape(lambda t: jnp.asarray(teaching(t)), jnp.zeros((), net.dtype))
    except Exception as error:
        raise BadType(
            f"teaching={teaching!r} cannot be called with a traced time: write it with jax.numpy ({error})"
        ) from error
    if value.shape != ():
        raise BadValue(
            f"teaching={describe(teaching)} returns an array of shape {value.shape}: return one number for all "
            "samples, and use jax.vmap over several signals"
        )
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        require_holomorphic(net, f"the complex signal {type(teaching).__name__}")
    if is_traced(teaching, net):
        return
    require_positive("period", teaching.period)
    period = float(teaching.period)
    slowest = slowest_neuron(net.following)
    if not period >= 2 * np.pi * slowest:
        raise BadValue(
            f"period={period:g} is shorter than 2 pi tau = {2 * np.pi * slowest:.3g}; the neurons cannot follow: use "
            f"period >= {50 * slowest:g}"
        )
    if not lag_is_known and period < 50 * slowest * (1 - 1e-6):
        warn(
            f"period={period:g} is below 50 tau = {50 * slowest:g}: the neurons lag behind the signal, and the "
            "gradient is biased by O((tau / period)^2)"
        )


def check_turning(teaching: AbstractTeaching, strength: Array) -> None:
    """Refuse a signal whose first coefficient, relative to its largest, is next to nothing.

    Raises:
        ValueError: it does not turn, so there is no gradient in the response.
    """
    if not is_traced(strength) and not bool(jnp.all(strength > 1e-4)):
        raise BadValue(
            f"{describe(teaching)} has no first harmonic at its period, so there is no gradient in the response: use "
            "Rotating, or Classic for a constant nudge"
        )


@eqx.filter_jit
def _coefficients(teaching: AbstractTeaching, dtype: DTypeLike) -> tuple[Array, Array]:
    return fourier_coefficient(teaching, 0, dtype), fourier_coefficient(teaching, 1, dtype)


def turning_coefficient(teaching: AbstractTeaching, dtype: DTypeLike) -> complex:
    """The first Fourier coefficient of a signal, which must not vanish beside its mean.

    Raises:
        ValueError: the signal does not turn.
    """
    a_0, a_1 = _coefficients(teaching, dtype)
    check_turning(teaching, ratio(jnp.abs(a_1), jnp.maximum(jnp.abs(a_0), jnp.abs(a_1))))
    return complex(a_1)
