r"""Derivatives of what was settled, by the implicit function theorem: how it was found does not matter.

Of $z$ with $r(\theta, z) = 0$ it is $dz = -(\partial r/\partial z)^{-1}\, \frac{\partial r}{\partial\theta} d\theta$:
one linear system for each derivative, forward or in reverse. The rule differentiates itself, so there are higher ones.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from oscsim.core.arrays import complex_of, constant, promoting
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.states import default_tolerance
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs


def settled(net: AbstractNetwork, inputs: Inputs, beta: Array, u: Layers) -> Layers:
    r"""The fixed point $u = F(\sigma(u), \beta)$ that was found, with derivatives in network, inputs and $\beta$."""
    is_complex = any(map(jnp.iscomplexobj, (*u, beta)))
    beta = jnp.broadcast_to(jnp.asarray(beta, complex_of(net.dtype) if is_complex else net.dtype), (len(u[0]),))

    def residual(given: PyTree, u: Layers) -> Layers:
        net, inputs, beta = given
        force = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
        return jax.tree.map(jnp.subtract, u, force)

    def solve(given: PyTree, u: Layers, right: Layers) -> Layers:
        net, inputs, beta = given
        return Resolvent(net, inputs, u, beta=beta).solved(right, default_tolerance(net.dtype))

    return _root(residual, solve, (net, inputs, beta), u)


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
