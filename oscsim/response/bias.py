"""The bias of the gradient that a lock-in reads at a finite period."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from oscsim.core.checks import as_scalar
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
    return _read(net, x, y, period, at)[2]


def _read(net: AbstractNetwork, x: Data, y: Data, period: ArrayLike, at: At) -> tuple[Inputs, Equilibrium, Gradient]:
    """Checked inputs, the free equilibrium that is meant, and the gradient that is read there."""
    check_drive(net, Rotating(1.0, period), warn=False)
    inputs, free = free_state(net, x, y, at)
    chi = response_at(net, inputs, free, 2 * jnp.pi / as_scalar("period", period))
    return inputs, free, gradient_read(net, inputs, free.activities, chi)


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
    inputs, free, read = _read(net, x, y, period, at)
    return jax.tree.map(jnp.subtract, read, exact_at(net, inputs, free))
