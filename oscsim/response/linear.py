"""What a lock-in reads: the linear response of the activities to the signal, and the gradient in it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Complex, Float

from oscsim._arrays import as_scalar, complex_of, is_traced, norm, to_complex
from oscsim.cycle import check_drive
from oscsim.equilibrium import Equilibrium, default_tolerance, exact_solution, state_at
from oscsim.equilibrium.vectors import DENSE, as_layers, flat, flat_force, flat_time_constants
from oscsim.errors import NotSettledError
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.readings import Phasors
from oscsim.teaching import Rotating


def susceptibility(
    net: AbstractNetwork, x: Any, y: Any, omega: Any, *, at: Any = None
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
    """
    omega = as_scalar(omega, "omega")
    inputs, free = free_state(net, x, y, at)
    return response_at(net, inputs, free, omega)


def predict_gradient(net: AbstractNetwork, x: Any, y: Any, period: Any, *, at: Any = None) -> Any:
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
    """
    check_drive(net, Rotating(1.0, period), warn=False)
    inputs, free = free_state(net, x, y, at)
    return _gradient_at(net, inputs, free, period)


def _gradient_at(net: AbstractNetwork, inputs: Inputs, free: Equilibrium, period: Any) -> Any:
    chi = response_at(net, inputs, free, 2 * jnp.pi / as_scalar(period, "period"))
    return gradient_read(net, inputs, free.activities, chi)


def predict_bias(net: AbstractNetwork, x: Any, y: Any, period: Any, *, at: Any = None) -> Any:
    r"""What the finite period does to the gradient: `predict_gradient` minus `exact_gradient`.

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
    """
    check_drive(net, Rotating(1.0, period), warn=False)
    inputs, free = free_state(net, x, y, at)
    exact = exact_at(net, inputs, free)
    return jax.tree.map(jnp.subtract, _gradient_at(net, inputs, free, period), exact)


def exact_at(net: AbstractNetwork, inputs: Inputs, free: Equilibrium) -> Any:
    """The exact gradient at this state."""
    return exact_solution(net, inputs, "implicit", default_tolerance(net.dtype), 1000, free)[0]


def free_state(net: AbstractNetwork, x: Any, y: Any, at: Any = None) -> tuple[Inputs, Equilibrium]:
    """Checked inputs and the free equilibrium that is meant."""
    check_parameters(net)
    require_holomorphic(net, "the response to a complex signal")
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
def gradient_read(net: AbstractNetwork, inputs: Inputs, c_0: Layers, chi: Layers) -> Any:
    """The gradient from the free activities and the response to a signal of amplitude 1."""
    one = jnp.ones((), complex_of(net.dtype))
    return Phasors((to_complex(c_0), chi), (0 * one, one), (0, 1)).gradient(net, inputs)


@eqx.filter_jit
def linear_response(
    net: AbstractNetwork, inputs: Inputs, u: Layers, omega: Array
) -> tuple[Layers, Layers, Float[Array, " batch"]]:
    r"""The response of the potentials and of the activities, and the relative residual of each sample."""
    tau = flat_time_constants(net)
    zero = jnp.zeros((), net.dtype)

    def one(sample):
        clamped, y, layers = sample
        u = flat(layers)
        force = flat_force(net, clamped, y)
        source = jax.jvp(lambda beta: force(u, beta), (zero,), (zero + 1,))[1]

        def apply(v):  # the Jacobian is real: it acts on each part alone
            real, imag = v
            slopes = [jax.jvp(lambda u: force(u, zero), (u,), (part,))[1] for part in v]
            return real - slopes[0] - omega * tau * imag, imag - slopes[1] + omega * tau * real

        right = (source, jnp.zeros_like(source))
        if u.size <= DENSE:
            jacobian = jax.jacfwd(lambda u: force(u, zero))(u)
            matrix = jnp.diag(1 + 1j * omega * tau) - jacobian
            v = lx.linear_solve(lx.MatrixLinearOperator(matrix), source.astype(matrix.dtype), lx.LU()).value
            v = (v.real, v.imag)
        else:
            operator = lx.FunctionLinearOperator(apply, jax.eval_shape(lambda: right))
            level = 30 * float(jnp.finfo(net.dtype).eps)
            solver = lx.GMRES(rtol=level, atol=level, restart=50, stagnation_iters=50)
            v = lx.linear_solve(operator, right, solver, throw=False).value
        off = norm(jax.tree.map(jnp.subtract, apply(v), right))
        residual = off / jnp.maximum(norm(right), jnp.finfo(net.dtype).tiny)
        return as_layers(net, lax.complex(*v)), residual

    # One sample after another, and so below: batched factorisations inside a larger program can lock up XLA's CPU
    # thread pool for ever (jaxlib 0.10, two threads).
    v, residual = lax.map(one, (inputs.clamped, inputs.y, u))
    return v, jax.jvp(net.activities, (to_complex(u),), (v,))[1], residual
