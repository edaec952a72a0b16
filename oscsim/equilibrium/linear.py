"""The linear response of the activities to the teaching signal, which a lock-in reads, and the gradient in it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from oscsim.core.arrays import is_traced, to_complex
from oscsim.core.checks import as_scalar
from oscsim.core.errors import NotSettledError
from oscsim.equilibrium.exact_gradients import exact_solution
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.settling import state_at
from oscsim.equilibrium.states import At, Equilibrium, default_tolerance
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, gradient_of, require_holomorphic
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient


def response_gradient(
    network: AbstractNetwork, inputs: Inputs, c_0: Layers, direction: Layers, direct: float = 1.0
) -> Gradient:
    r"""What the gradient formula makes of a response, or of an error of it.

    $$-\nabla_\theta \frac{d}{d\epsilon} \mathrm{Re}\, \Psi(\theta; x, c_0 + \epsilon v, c_0, y, \epsilon d)$$

    at $\epsilon = 0$, the mean over the batch. With the response $v = \chi$ and $d = 1$ it is the gradient of the mean
    loss. With $d = 0$ it is what an error $v$ of the response does to it.

    Args:
        network: the neurons.
        inputs: what they are shown.
        c_0: the free activities, one complex (batch, neurons) array per layer; what neurons hear stays there.
        direction: $v$, likewise.
        direct: $d$, how much of the cost's own derivative enters.

    Returns:
        A pytree like `parameters(network)`.
    """

    def slope(network, clamped):
        def along(c_0, v, clamped, y):
            zero = jnp.zeros((), c_0[0].dtype)
            psi = lambda s, beta: network.psi(clamped, s, c_0, y, beta)  # noqa: E731
            return jax.jvp(psi, (c_0, zero), (v, jnp.full_like(zero, direct)))[1].real

        return -jnp.mean(jax.vmap(along)(c_0, direction, clamped, inputs.y))

    return gradient_of(slope, network, inputs.x)


def susceptibility(
    net: AbstractNetwork, x: Data, y: Data, omega: ArrayLike, *, at: At = None
) -> tuple[Complex[Array, "batch ..."], ...]:
    r"""The linear response of the activities to the teaching signal, $\chi(\omega) = c_1 / a_1$.

    With $F(u, \beta) = \partial\Phi/\partial s\,(\sigma(u), \beta)$ at the free equilibrium $u$,
    $(i\omega\tau + 1 - \partial F/\partial u)\, v = \partial F/\partial\beta$ and $\chi = \sigma'(u)\, v$. It is what
    a lock-in reads at any amplitude below the convergence radius; at $\omega = 0$ it is $ds/d\beta$.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        omega: angular frequency, $2\pi / T$, in radians per unit of time; any real number.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Returns:
        One complex (batch, ...) array per layer, in activity per unit of beta.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`, or the linear system was not solved.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs (see `Inputs.of`), or a frequency that is not finite.

    Source: Laborieux & Zenke (2022), section 4, for $\omega \to 0$.

    Example:
        >>> chi = osc.response.susceptibility(net, x, y, omega=2 * jnp.pi / 100.0)
        >>> np.allclose(run.state.reading.response()[0], chi[0], atol=1e-3)  # as run has read it
        True
    """
    omega = as_scalar("omega", omega)
    inputs, free = free_state(net, x, y, at)
    return response_at(net, inputs, free, omega)


def exact_at(net: AbstractNetwork, inputs: Inputs, free: Equilibrium) -> Gradient:
    """The exact gradient at this state."""
    return exact_solution(net, inputs, at=free)[0]


def free_state(
    net: AbstractNetwork, x: Data, y: Data, at: At = None, purpose: str = "the response to a complex signal"
) -> tuple[Inputs, Equilibrium]:
    """Checked inputs and the free equilibrium that is meant; `purpose` is what asks for a holomorphic network."""
    check_parameters(net)
    require_holomorphic(net, purpose)
    inputs = Inputs.of(net, x, y)
    return inputs, state_at(net, inputs, at)


def response_at(net: AbstractNetwork, inputs: Inputs, free: Equilibrium, omega: Array) -> Layers:
    """The response of the activities at this frequency; raises where the system was not solved."""
    _, chi, residual = linear_response(net, inputs, free.potentials, jnp.asarray(omega, net.dtype))
    if not is_traced(residual) and not bool(jnp.all(residual <= 1e4 * default_tolerance(net.dtype))):
        raise NotSettledError(
            f"the response at omega={float(omega):.4g} of sample {int(jnp.argmax(residual))} is off by "
            f"{float(jnp.max(residual)):.3g} of its source: the free network is close to instability; use a smaller "
            "scale or slope"
        )
    return chi


@eqx.filter_jit
def held_potentials(net: AbstractNetwork, inputs: Inputs, mean: Layers) -> Layers:
    r"""The potentials that mean activities, of which the real part counts, would hold without a signal: $F(c_0)$."""
    return net.force(inputs.clamped, tuple(c.real for c in mean), inputs.y, jnp.zeros((), net.dtype))


@eqx.filter_jit
def gradient_read(net: AbstractNetwork, inputs: Inputs, c_0: Layers, chi: Layers) -> Gradient:
    """The gradient from the free activities and the response to a signal of amplitude 1."""
    return response_gradient(net, inputs, to_complex(c_0), chi)


@eqx.filter_jit
def linear_response(
    net: AbstractNetwork, inputs: Inputs, u: Layers, omega: Array | None = None, tolerance: ArrayLike | None = None
) -> tuple[Layers, Layers, Float[Array, " batch"]]:
    r"""The response of the potentials and of the activities, and the relative residual of each sample.

    Complex at a frequency; without one, real.
    """
    tolerance = default_tolerance(net.dtype) if tolerance is None else tolerance
    zero = jnp.zeros((), net.dtype)
    s = net.activities(u)
    source = jax.jvp(lambda beta: net.force(inputs.clamped, s, inputs.y, beta), (zero,), (zero + 1,))[1]
    at, source = (u, source) if omega is None else to_complex((u, source))
    v, residual = Resolvent(net, inputs, u, omega)(source, tolerance)
    return v, jax.jvp(net.activities, (at,), (v,))[1], residual
