"""The bias of the gradient that a lock-in reads at a finite period."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from oscsim.core.arrays import norm
from oscsim.core.checks import as_scalar
from oscsim.core.errors import BadValue
from oscsim.equilibrium import Equilibrium
from oscsim.equilibrium.linear import exact_at, free_state, gradient_read, response_at
from oscsim.equilibrium.states import At
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals.drive import check_drive
from oscsim.signals.teaching import Rotating


def predict_gradient(net: AbstractNetwork, x: Data, y: Data, period: ArrayLike, *, at: At = None) -> Gradient:
    r"""The gradient that an ideal lock-in reads at this period: `Phasors.gradient` of $c_0$ and $\chi(2\pi/T)$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Returns:
        A pytree like `parameters(net)`.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs, or a period that is not positive or shorter than $2\pi\tau$.

    Example:
        >>> expected = osc.response.predict_gradient(net, x, y, period=100.0)
        >>> print(osc.relative_error(run.gradient(), expected) < 0.01)
        True
    """
    check_drive(net, Rotating(1.0, period), lag_is_known=True)
    inputs, free = free_state(net, x, y, at)
    return _read_at(net, inputs, free, period)


def _read_at(net: AbstractNetwork, inputs: Inputs, free: Equilibrium, period: ArrayLike) -> Gradient:
    """The gradient that is read at this state."""
    chi = response_at(net, inputs, free, 2 * jnp.pi / as_scalar("period", period))
    return gradient_read(net, inputs, free.activities, chi)


def relative_bias(
    net: AbstractNetwork, inputs: Inputs, free: Equilibrium
) -> tuple[float, Callable[[ArrayLike], float]]:
    """The norm of the exact gradient at this state, and the function from a period to the bias, relative to it.

    Raises:
        NotSettledError: the adjoint does not settle; of the function, the response was not solved for.
        ValueError: the exact gradient is zero.
    """
    exact = exact_at(net, inputs, free)
    scale = float(norm(exact))
    if scale == 0:
        raise BadValue("the exact gradient is zero, so no error is relative to it: use other targets y, or weights")

    def bias(period):
        return float(norm(jax.tree.map(jnp.subtract, _read_at(net, inputs, free, period), exact))) / scale

    return scale, bias


def predict_bias(net: AbstractNetwork, x: Data, y: Data, period: ArrayLike, *, at: At = None) -> Gradient:
    r"""The bias of the gradient at a finite period: `predict_gradient` minus `exact_gradient`.

    $\mathrm{Re}\,\chi(\omega)$ is even in $\omega$, so the bias falls as $1/T^2$. It does not depend on the amplitude.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        period: $T$ of the teaching signal, in units of time.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Returns:
        A pytree like `parameters(net)`.

    Raises:
        NotSettledError: the free network, or the adjoint, does not settle.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs, or a period that is not positive or shorter than $2\pi\tau$.

    Example:
        >>> short, long = (osc.response.predict_bias(net, x, y, period=period) for period in (100.0, 200.0))
        >>> print(f"{osc.norm_ratio(short, long):.1f}")  # a quarter at twice the period
        4.0
    """
    check_drive(net, Rotating(1.0, period), lag_is_known=True)
    inputs, free = free_state(net, x, y, at)
    return jax.tree.map(jnp.subtract, _read_at(net, inputs, free, period), exact_at(net, inputs, free))
