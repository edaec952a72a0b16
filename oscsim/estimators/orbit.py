"""`Orbit`: the gradient that an endless lock-in reads, without stepping in time."""

import functools

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from oscsim.core.arrays import Scalar, is_traced, to_complex
from oscsim.core.checks import as_positive, flag, optional, positive
from oscsim.core.errors import RESULTS
from oscsim.dynamics.error_bars import solved_gradient_and_error
from oscsim.dynamics.gradient import Phasors
from oscsim.dynamics.gradient_error import GradientError
from oscsim.equilibrium import Equilibrium, default_tolerance, is_settled, require_settled, settle_inputs
from oscsim.equilibrium.linear import linear_response
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at, richardson
from oscsim.networks.base import AbstractNetwork, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals.drive import check_drive
from oscsim.signals.teaching import Rotating


class Orbit(AbstractEstimator):
    r"""What a lock-in reads on the orbit itself, after endlessly many cycles of a rotating signal.

    With $c_0$ the free activities and $\chi = \sigma'(u)\, v$, $(1 + i\omega\tau - \partial F/\partial u)\, v =
    \partial F/\partial\beta$: one settled state and one linear system, whatever the amplitude. The finite period's bias
    is in it, as it is in a lock-in's; with `extrapolate` a second system, at half the period, removes its leading part.

    Attributes:
        period: $T$ of the teaching signal, in the unit of the neurons' time constants.
        extrapolate: whether to return $(4\, g(T) - g(T/2)) / 3$, whose bias is $O(T^{-4})$.
        tolerance: residual to settle to, and what may be left of the linear system relative to its source; by default
            1e-12 in float64, 1e-6 in float32.

    Raises:
        ValueError: a period that is not positive, or shorter than $2\pi\tau$; a tolerance that is not positive.
        NotSettledError: the free network does not settle.
        NotHolomorphicError: a network that declares itself non-holomorphic.

    Source: Laborieux & Zenke (2022), section 4.

    Example:
        >>> estimate = osc.Orbit(period=100.0)(net, x, y)
        >>> print(osc.relative_error(estimate.gradient, run.gradient()) < 1e-3)  # run has stepped there
        True
    """

    period: Scalar = eqx.field(converter=positive("period"))
    extrapolate: bool = eqx.field(static=True, default=False, kw_only=True, converter=flag("extrapolate"))
    tolerance: float | None = eqx.field(
        static=True, default=None, kw_only=True, converter=optional(functools.partial(as_positive, "tolerance"))
    )

    def estimate(
        self, state: None, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[None, Estimate]:
        shortest = self.period / 2 if self.extrapolate else self.period
        check_drive(net, Rotating(1.0, shortest), lag_is_known=True)
        require_holomorphic(net, "the response to a complex signal")
        tolerance = default_tolerance(net.dtype) if self.tolerance is None else self.tolerance
        estimate, free = _read_on_orbit(net, inputs, self.period, np.asarray(tolerance), self.extrapolate)
        if not is_traced(estimate):
            require_settled(net, inputs, free, 0.0, tolerance)
        return state, estimate


class OrbitError(GradientError):
    """How right a gradient is that was read on an orbit: as `GradientError`; what is not solved for is wrong."""

    @property
    def cause(self) -> RESULTS:
        return RESULTS.not_settled


LEFT = 1e3
"""A linear system that leaves more than so many times the tolerance is not solved."""


@eqx.filter_jit
def _read_on_orbit(
    net: AbstractNetwork, inputs: Inputs, period: Float[Array, ""], tolerance: ArrayLike, extrapolate: bool
) -> tuple[Estimate, Equilibrium]:
    """The estimate, and the free state."""
    free = settle_inputs(net, inputs, jnp.zeros(()), tolerance)
    omega = 2 * jnp.pi / period.astype(net.dtype)
    gradient, error, left = _read_at(net, inputs, free, omega, tolerance)
    if extrapolate:
        half, half_error, half_left = _read_at(net, inputs, free, 2 * omega, tolerance)
        gradient, bias = richardson(gradient, half)
        error = error.extrapolated(half_error, bias)
        left = jnp.maximum(left, half_left)
    solved = jnp.all(is_settled(free, tolerance)) & jnp.all(left <= LEFT * jnp.asarray(tolerance, left.dtype))
    result = RESULTS.where(solved, RESULTS.successful, RESULTS.not_settled)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(left))
    return estimate_at(net, inputs, gradient, free.activities, residual, result, error), free


def _read_at(
    net: AbstractNetwork, inputs: Inputs, free: Equilibrium, omega: Array, tolerance: ArrayLike
) -> tuple[Gradient, GradientError, Float[Array, " batch"]]:
    """The gradient at a frequency, how right it is, and what is left of each sample's linear system."""
    _, chi, left = linear_response(net, inputs, free.potentials, omega, tolerance)
    zero = jnp.zeros((), net.dtype)
    reading = Phasors((to_complex(free.activities), chi), (zero, zero + 1), (0, 1))
    gradient, error = solved_gradient_and_error(net, inputs, reading, omega)
    return gradient, OrbitError(**vars(error)), left
