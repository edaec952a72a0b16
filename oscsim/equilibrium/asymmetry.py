"""Asymmetric couplings: what they do to the gradient that a lock-in reads."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oscsim.core.arrays import to_complex
from oscsim.equilibrium.linear import gradient_read
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.states import default_tolerance
from oscsim.networks.base import AbstractNetwork, Layers, gradient_of
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient


class Asymmetry(eqx.Module):
    r"""The gradient that an endless, slow lock-in reads, beside the exact one at the same state.

    Attributes:
        read: with the response $\chi(0)$; a pytree like `parameters(net)`.
        exact: with the adjoint $\lambda$.
        residual: the larger of the two relative residuals of the linear systems, per sample.
    """

    read: Gradient
    exact: Gradient
    residual: Float[Array, " batch"]


@eqx.filter_jit
def asymmetry_error(net: AbstractNetwork, inputs: Inputs, potentials: Layers) -> Asymmetry:
    r"""How far the gradient that is read is from the exact one because the force has no potential; pure.

    With $J = \partial F/\partial u$ at the state $u$, a lock-in of vanishing frequency reads the response
    $\chi = -\sigma' (1 - J)^{-1}\, \partial C/\partial s$, while the exact gradient takes the adjoint
    $\lambda = (1 - J)^{-T} \sigma' \partial C/\partial s$. Of a layered network, with $D = \sigma'$, $P = D^{-1} - K$
    and $K$ the couplings, $\chi = -P^{-1} P^T \lambda$: the difference is that of the antisymmetric part of $K$.
    Where the force has a potential, $\chi = -\lambda$.

    Costs two linear solves per sample, by `Resolvent`.

    Args:
        net: a holomorphic network.
        inputs: what it is shown.
        potentials: $u$, real, one (batch, neurons) array per layer: a settled state, or that of a run.

    Source: Laborieux & Zenke (2024).
    """
    zero, tolerance = jnp.zeros((), net.dtype), default_tolerance(net.dtype)
    s, cost_slope = jax.vjp(net.activities, potentials)
    source = jax.jvp(lambda beta: net.force(inputs.clamped, s, inputs.y, beta), (zero,), (zero + 1,))[1]
    slope = cost_slope(jax.grad(lambda s: jnp.sum(net.loss(inputs.clamped, s, inputs.y)))(s))[0]
    response, left = Resolvent(net, inputs, potentials)(source, tolerance)
    adjoint, left_of_adjoint = Resolvent(net, inputs, potentials, transposed=True)(slope, tolerance)
    chi = jax.jvp(net.activities, (potentials,), (response,))[1]

    def lagrangian(net, clamped):
        force = net.force(clamped, s, inputs.y, zero)
        work = sum(jnp.sum(a * f) for a, f in zip(adjoint, force, strict=True))
        return (jnp.sum(net.loss(clamped, s, inputs.y)) + work) / inputs.x.shape[0]

    read = gradient_read(net, inputs, s, to_complex(chi))
    return Asymmetry(read, gradient_of(lagrangian, net, inputs.x), jnp.maximum(left, left_of_adjoint))
