"""Asymmetric couplings: what they do to the gradient that a lock-in reads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Float, PyTree

from oscsim.core.arrays import norm
from oscsim.equilibrium.linear import gradient_read
from oscsim.equilibrium.vectors import DENSE, as_layers, flat, flat_force, krylov
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

    @property
    def total(self) -> Float[Array, ""]:
        """The norm of the difference, relative to that of the exact gradient."""
        return _relative(self.read, self.exact)

    @property
    def per_array(self) -> PyTree:
        """The same of each parameter array alone, a pytree like `parameters(net)` of numbers."""
        return jax.tree.map(_relative, self.read, self.exact)


def _relative(found: PyTree, exact: Gradient) -> Float[Array, ""]:
    size = norm(exact)
    return norm(jax.tree.map(jnp.subtract, found, exact)) / jnp.maximum(size, jnp.finfo(size.dtype).tiny)


@eqx.filter_jit
def asymmetry_error(net: AbstractNetwork, inputs: Inputs, potentials: Layers) -> Asymmetry:
    r"""How far the gradient that is read is from the exact one because the force has no potential; pure.

    With $J = \partial F/\partial u$ at the state $u$, a lock-in of vanishing frequency reads the response
    $\chi = -\sigma' (1 - J)^{-1}\, \partial C/\partial s$, while the exact gradient takes the adjoint
    $\lambda = (1 - J)^{-T} \sigma' \partial C/\partial s$. Of a layered network, with $D = \sigma'$, $P = D^{-1} - K$
    and $K$ the couplings, $\chi = -P^{-1} P^T \lambda$: the difference is that of the antisymmetric part of $K$.
    Where the force has a potential, $\chi = -\lambda$.

    Costs two linear solves per sample, beside a Jacobian up to `DENSE` neurons and without one above.

    Args:
        net: a holomorphic network.
        inputs: what it is shown.
        potentials: $u$, real, one (batch, neurons) array per layer: a settled state, or that of a run.

    Source: Laborieux & Zenke (2024).
    """
    zero = jnp.zeros((), net.dtype)

    def one(sample):
        clamped, y, layers = sample
        u = flat(layers)
        force = flat_force(net, clamped, y)
        along_beta = jax.jvp(lambda beta: force(u, beta), (zero,), (zero + 1,))[1]

        def cost(u):
            clamped_1, y_1, s = jax.tree.map(lambda a: a[None], (clamped, y, net.activities(as_layers(net, u))))
            return net.loss(clamped_1, s, y_1)[0]

        slope = jax.grad(cost)(u)
        if u.size <= DENSE:
            operator = lx.MatrixLinearOperator(jnp.eye(u.size, dtype=u.dtype) - jax.jacfwd(lambda u: force(u, zero))(u))
            solver = lx.LU()
        else:
            _, along = jax.linearize(lambda u: force(u, zero), u)
            operator = lx.FunctionLinearOperator(lambda v: v - along(v), jax.eval_shape(lambda: u))
            solver = krylov(net.dtype)

        def solved(operator, right):
            # at unit size, so that one tolerance serves every scale
            size = jnp.maximum(norm(right), jnp.finfo(net.dtype).tiny)
            v = lx.linear_solve(operator, right / size, solver, throw=False).value
            return size * v, norm(operator.mv(v) - right / size)

        response, adjoint = solved(operator, along_beta), solved(operator.T, slope)
        return as_layers(net, response[0]), as_layers(net, adjoint[0]), jnp.maximum(response[1], adjoint[1])

    # One sample after another, as in `linear_response`.
    response, adjoint, residual = lax.map(one, (inputs.clamped, inputs.y, potentials))
    s, chi = jax.jvp(net.activities, (potentials,), (response,))

    def lagrangian(net, clamped):
        force = net.force(clamped, s, inputs.y, zero)
        work = sum(jnp.sum(a * f) for a, f in zip(adjoint, force, strict=True))
        return (jnp.sum(net.loss(clamped, s, inputs.y)) + work) / inputs.x.shape[0]

    read = gradient_read(net, inputs, s, jax.tree.map(lambda a: lax.complex(a, jnp.zeros_like(a)), chi))
    return Asymmetry(read, gradient_of(lagrangian, net, inputs.x), residual)
