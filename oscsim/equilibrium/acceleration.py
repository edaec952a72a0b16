"""Fixed points of a map by Anderson acceleration."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PyTree

from oscsim.equilibrium.stable import decays
from oscsim.equilibrium.vectors import flatten_samples

PATIENCE = 100
"""Sweeps after which acceleration gives way to the neurons' own relaxation, in half steps."""


class FixedPoint(NamedTuple):
    r"""What `anderson` found.

    `contracts` says per sample that the map shrank every difference between the last few iterates that its Jacobian can
    be seen in. Where it does not, mixing may have held the iterates at a fixed point that the map itself runs away
    from.
    """

    value: Any
    residual: Float[Array, " batch"]
    steps: Int[Array, ""]
    contracts: Bool[Array, " batch"]


CONTRACTING = 0.9
"""The largest real part among the eigenvalues seen of a map that counts as contracting: they are estimates."""


def anderson(
    function: Callable[[PyTree[Array]], PyTree[Array]],
    start: PyTree[Array],
    tolerance: Any,
    max_steps: Any,
    memory: int,
    linear: bool = False,
) -> FixedPoint:
    r"""A fixed point $z = f(z)$ by Anderson acceleration, each sample of the batch on its own.

    The next $z$ is $\sum_i \alpha_i f(z_i)$ over the last few iterates, with weights that sum to one and make
    $\|\sum_i \alpha_i (f(z_i) - z_i)\|$ least; a complex iterate counts as a real vector of twice the length.
    Where $\|f(z) - z\|$ grew, unless $f$ is `linear`, the iterates before are forgotten: far from the fixed point they
    mislead. Real iterates are not mixed again until it has shrunk as often in a row as `memory` holds: near a
    bifurcation mixing can wander for ever, and sweeps of a real network go down in energy. Complex ones have no energy,
    and their fixed point may repel. After `PATIENCE` evaluations all take half steps, $z + (f(z) - z) / 2$.

    Returns:
        the fixed point; per sample the largest $|f(z) - z|$ at it; evaluations of `function`; per sample whether it was
        seen to contract there.
    """
    flat, unravel = flatten_samples(start)
    real, is_complex = flat.dtype, any(map(jnp.iscomplexobj, jax.tree.leaves(start)))
    depth = max(memory, 1)
    history = (jnp.zeros((flat.shape[0], depth, flat.shape[1]), real),) * 2  # differences of residuals, of values

    def evaluate(z):
        return flatten_samples(function(unravel(z)))[0]

    def running(carry):
        _, _, residual, _, _, step = carry
        size = jnp.max(jnp.abs(residual), axis=1)
        return (step < max_steps) & jnp.any((size > tolerance) & jnp.isfinite(size))

    def improve(carry):
        z, value, residual, (d_residual, d_value), shrunk, step = carry
        if memory == 0:
            z_next = value
        else:
            # Differences are kept with the newest in slot (step mod depth); unused slots are zero and weigh nothing.
            gram = jnp.einsum("bin,bjn->bij", d_residual, d_residual)
            right = jnp.einsum("bin,bn->bi", d_residual, residual)
            trace = jnp.trace(gram, axis1=1, axis2=2)[:, None, None]
            ridge = (10 * jnp.finfo(real).eps * trace + jnp.finfo(real).tiny) * jnp.eye(depth, dtype=real)[None]
            gamma = jnp.linalg.solve(gram + ridge, right[..., None])[..., 0]
            mixed = value - jnp.einsum("bi,bin->bn", gamma, d_value)
            z_next = jnp.where((shrunk < depth)[:, None], value, mixed)
            z_next = jnp.where(step < PATIENCE, z_next, z + residual / 2)
        value_next = evaluate(z_next)
        residual_next = value_next - z_next
        # A sample that has settled stays where it is, since what its history would learn is rounding alone; so does one
        # that is lost.
        keep = ~(jnp.max(jnp.abs(residual), axis=1, keepdims=True) > tolerance)
        if not linear:
            grew = jnp.sum(residual_next**2, axis=1) > jnp.sum(residual**2, axis=1)
            grew = grew & ~keep[:, 0]
            d_residual, d_value = (jnp.where(grew[:, None, None], 0, d) for d in (d_residual, d_value))
            shrunk = shrunk if is_complex else jnp.where(grew, 0, shrunk + 1)
        slot = step % depth
        d_residual = d_residual.at[:, slot].set(jnp.where(keep, d_residual[:, slot], residual_next - residual))
        d_value = d_value.at[:, slot].set(jnp.where(keep, d_value[:, slot], value_next - value))
        z_next, value_next, residual_next = (
            jnp.where(keep, old, new) for old, new in ((z, z_next), (value, value_next), (residual, residual_next))
        )
        return z_next, value_next, residual_next, (d_residual, d_value), shrunk, step + 1

    value = evaluate(flat)
    trusted = jnp.full(flat.shape[0], depth, jnp.int32)
    carry = (flat, value, value - flat, history, trusted, jnp.ones((), jnp.int32))
    z, _, residual, seen, _, steps = lax.while_loop(running, improve, carry)
    return FixedPoint(unravel(z), jnp.max(jnp.abs(residual), axis=1), steps, _seen_to_contract(*seen))


def _seen_to_contract(d_residual: Array, d_value: Array) -> Bool[Array, " batch"]:
    r"""Whether the Jacobian $G$ of the map contracts, as far as differences $\Delta f = G \Delta z$ show it.

    On the span of the $\Delta z$ it is the least squares solution of $\Delta Z H = \Delta F$. No difference at all
    shows nothing.
    """
    d_z = d_value - d_residual
    length = jnp.linalg.norm(d_z, axis=2, keepdims=True)
    used = length[..., 0] > 0
    d_z, d_f = (d / jnp.where(length > 0, length, 1) for d in (d_z, d_value))
    unit = jnp.eye(d_z.shape[1], dtype=d_z.dtype)[None]
    gram = jnp.einsum("bin,bjn->bij", d_z, d_z) + jnp.sqrt(jnp.finfo(d_z.dtype).eps) * unit
    seen = jnp.linalg.solve(gram, jnp.einsum("bin,bjn->bij", d_z, d_f))
    return decays(seen - CONTRACTING * unit, squarings=12) & jnp.any(used, axis=1)
