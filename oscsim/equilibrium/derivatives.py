r"""Derivatives of what was settled, by the implicit function theorem: how it was found does not matter.

Of $z$ with $r(\theta, z) = 0$ it is $dz = -(\partial r/\partial z)^{-1}\, \frac{\partial r}{\partial\theta} d\theta$:
one linear system for each derivative, forward or in reverse. The rule differentiates itself, so there are higher ones.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from oscsim.core.arrays import complex_of, constant, is_traced, promoting
from oscsim.equilibrium.vectors import DENSE, as_layers, flat, flat_force, with_matrix, without_matrix
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs


def settled(net: AbstractNetwork, inputs: Inputs, beta: Array, u: Layers) -> Layers:
    r"""The fixed point $u = F(\sigma(u), \beta)$ that was found, with derivatives in network, inputs and $\beta$."""
    if not is_traced(net, inputs, beta):
        return u
    is_complex = any(map(jnp.iscomplexobj, (*u, beta)))
    beta = jnp.broadcast_to(jnp.asarray(beta, complex_of(net.dtype) if is_complex else net.dtype), (len(u[0]),))

    def residual(given: PyTree, u: Layers) -> Layers:
        net, inputs, beta = given
        force = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
        return jax.tree.map(jnp.subtract, u, force)

    def solve(given: PyTree, u: Layers, right: Layers) -> Layers:
        net, inputs, beta = given
        return relaxed(net, inputs, beta, u, right)

    return _root(residual, solve, (net, inputs, beta), u)


def settled_adjoint(
    net: AbstractNetwork, inputs: Inputs, u: Layers, pulled: Callable[..., Layers], adjoint: Layers
) -> Layers:
    r"""The adjoint $\lambda = \partial C/\partial u + (\partial F/\partial u)^\top \lambda$ that was found, likewise.

    `pulled(net, inputs, u, adjoint)` is the right side.
    """
    if not is_traced(net, inputs, u):
        return adjoint

    def residual(given: PyTree, adjoint: Layers) -> Layers:
        return jax.tree.map(jnp.subtract, adjoint, pulled(*given, adjoint))

    def solve(given: PyTree, adjoint: Layers, right: Layers) -> Layers:
        net, inputs, u = given
        zero = jnp.zeros(len(u[0]), net.dtype)
        return relaxed(net, inputs, zero, u, right, transposed=True)

    return _root(residual, solve, (net, inputs, u), adjoint)


def _root(
    residual: Callable[[PyTree, PyTree], PyTree],
    solve: Callable[[PyTree, PyTree, PyTree], PyTree],
    given: PyTree,
    found: PyTree,
) -> PyTree:
    r"""What was `found` with `residual(given, found)` zero, as a function of what is given.

    `solve(given, found, r)` is $(\partial r/\partial z)^{-1} r$.
    """
    arrays, rest = eqx.partition(given, eqx.is_array)

    @jax.custom_jvp
    def root(arrays, found):
        return found

    @root.defjvp
    @promoting
    def _rule(primals, tangents):
        arrays, found = primals[0], root(*primals)
        moved = jax.jvp(lambda arrays: residual(eqx.combine(arrays, rest), found), (arrays,), tangents[:1])[1]
        return found, jax.tree.map(jnp.negative, solve(eqx.combine(arrays, rest), found, moved))

    return root(arrays, constant(found))


def relaxed(
    net: AbstractNetwork, inputs: Inputs, beta: Array, u: Layers, right: Layers, transposed: bool = False
) -> Layers:
    r"""$(1 - \partial F/\partial u)^{-1} r$ of each sample, or of the transpose.

    By LU up to `DENSE` neurons, by GMRES above. `beta` is one number per sample, complex where `u` is.
    """

    def one(sample):
        clamped, y, beta, u, right = sample
        force, u, right = flat_force(net, clamped, y), flat(u), flat(right)

        def still(u):
            return u - force(u, beta)

        if u.size <= DENSE:
            matrix = jax.jacfwd(still, holomorphic=jnp.iscomplexobj(u))(u)
            return with_matrix(matrix.T if transposed else matrix, right)

        def apply(v):
            return jax.vjp(still, u)[1](v)[0] if transposed else jax.jvp(still, (u,), (v,))[1]

        return without_matrix(apply, right)

    # One sample after another: see `linear_response`.
    return as_layers(net, lax.map(one, (inputs.clamped, inputs.y, beta, u, right)))
