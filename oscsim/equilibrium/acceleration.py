"""Anderson acceleration: fixed points of a map."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
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

    value: PyTree
    residual: Float[Array, " batch"]
    steps: Int[Array, ""]
    contracts: Bool[Array, " batch"]


CONTRACTING = 0.9
"""The largest real part among the eigenvalues seen of a map that counts as contracting: they are estimates."""


def anderson(
    function: Callable[[PyTree[Array]], PyTree[Array]],
    start: PyTree[Array],
    tolerance: ArrayLike,
    max_steps: ArrayLike,
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
    differences = jnp.zeros((flat.shape[0], depth, flat.shape[1]), real)
    # Differences of residuals and of values, with the newest in slot (step mod depth), and the products of the former;
    # slots that are not used yet are zero and weigh nothing.
    history = (differences, differences, jnp.zeros((flat.shape[0], depth, depth), real))

    def evaluate(z):
        return flatten_samples(function(unravel(z)))[0]

    def running(carry):
        _, _, residual, _, _, step = carry
        size = jnp.max(jnp.abs(residual), axis=1)
        return (step < max_steps) & jnp.any((size > tolerance) & jnp.isfinite(size))

    def improve(carry):
        z, value, residual, (d_residual, d_value, gram), shrunk, step = carry
        if memory == 0:
            z_next = value
        else:
            right = jnp.einsum("bin,bn->bi", d_residual, residual)
            trace = jnp.trace(gram, axis1=1, axis2=2)[:, None, None]
            ridge = (10 * jnp.finfo(real).eps * trace + jnp.finfo(real).tiny) * jnp.eye(depth, dtype=real)[None]
            gamma = _eliminated(gram + ridge, right[..., None])[0][..., 0]
            mixed = value - jnp.einsum("bi,bin->bn", gamma, d_value)
            z_next = jnp.where((shrunk < depth)[:, None], value, mixed)
            z_next = jnp.where(step < PATIENCE, z_next, z + residual / 2)
        value_next = evaluate(z_next)
        residual_next = value_next - z_next
        # A sample that has settled stays where it is, since what its history would learn is rounding alone; so does one
        # that is lost.
        keep = ~(jnp.max(jnp.abs(residual), axis=1, keepdims=True) > tolerance)
        forget = jnp.zeros_like(keep)
        if not linear:
            forget = jnp.sum(residual_next**2, axis=1, keepdims=True) > jnp.sum(residual**2, axis=1, keepdims=True)
            shrunk = shrunk if is_complex else jnp.where(forget[:, 0], 0, shrunk + 1)
        newest = (jnp.arange(depth) == step % depth)[None, :, None]

        def remembered(past, new):  # in one pass: to read and write a slot in place would copy all of them
            past_or_none = jnp.where(forget[:, None], 0, past)
            return jnp.where(keep[:, None], past, jnp.where(newest, new[:, None], past_or_none))

        d_residual = remembered(d_residual, residual_next - residual)
        d_value = remembered(d_value, value_next - value)
        row = jnp.einsum("bn,bjn->bj", residual_next - residual, d_residual)[:, None]
        gram = remembered(gram, row[:, 0])
        gram = jnp.where(keep[:, None] | ~newest.swapaxes(1, 2), gram, row.swapaxes(1, 2))
        z_next, value_next, residual_next = (
            jnp.where(keep, old, new) for old, new in ((z, z_next), (value, value_next), (residual, residual_next))
        )
        return z_next, value_next, residual_next, (d_residual, d_value, gram), shrunk, step + 1

    value = evaluate(flat)
    trusted = jnp.full(flat.shape[0], depth, jnp.int32)
    carry = (flat, value, value - flat, history, trusted, jnp.ones((), jnp.int32))
    z, _, residual, (d_residual, d_value, _), _, steps = lax.while_loop(running, improve, carry)
    contracts = _seen_to_contract(d_value - d_residual, d_value)
    return FixedPoint(unravel(z), jnp.max(jnp.abs(residual), axis=1), steps, contracts)


def _eliminated(
    matrix: Float[Array, "batch n n"], right: Float[Array, "batch n m"]
) -> tuple[Float[Array, "batch n m"], Float[Array, "batch n"]]:
    """The solution of small systems and their pivots, by elimination without exchanging rows.

    Meant for positive definite matrices, which all pivots of a symmetric one are positive for. The batch is what is
    long: LAPACK would take one system after another.
    """
    rows, pivots = jnp.concatenate([matrix, right], axis=2), []
    for j in range(matrix.shape[1]):
        pivots.append(rows[:, j, j])
        unit = jnp.zeros(matrix.shape[1], matrix.dtype).at[j].set(1)
        rows -= (rows[:, :, j] - unit[None])[:, :, None] * (rows[:, j] / rows[:, j, j][:, None])[:, None]
    return rows[:, :, matrix.shape[1] :], jnp.stack(pivots, axis=1)


def _seen_to_contract(d_z: Float[Array, "batch n m"], d_f: Float[Array, "batch n m"]) -> Bool[Array, " batch"]:
    r"""Whether the Jacobian $G$ of a map $f$ contracts, as far as differences $\Delta f = G \Delta z$ show it.

    If $x \cdot G x < |x|^2$ for all $x$ in the span of the $\Delta z$, which is quickly seen, it does. Otherwise the
    eigenvalues decide that $G$ has on it, those of the least squares solution of $\Delta Z H = \Delta F$. No difference
    at all shows nothing.
    """
    gram, moved = jnp.einsum("bin,bjn->bij", d_z, d_z), jnp.einsum("bin,bjn->bij", d_z, d_f)
    length = jnp.sqrt(jnp.diagonal(gram, axis1=1, axis2=2))
    scale = 1 / jnp.where(length > 0, length, 1)
    gram, moved = (a * scale[:, :, None] * scale[:, None] for a in (gram, moved))
    unit = jnp.eye(d_z.shape[1], dtype=d_z.dtype)[None]
    gram += jnp.sqrt(jnp.finfo(d_z.dtype).eps) * unit

    def by_eigenvalues():
        return decays(_eliminated(gram, moved)[0] - CONTRACTING * unit, squarings=12)

    pivots = _eliminated(CONTRACTING * gram - (moved + jnp.swapaxes(moved, 1, 2)) / 2, moved[:, :, :0])[1]
    surely = jnp.all(pivots > 0, axis=1)
    shown = lax.cond(jnp.all(surely), lambda: surely, lambda: surely | by_eigenvalues())
    return shown & jnp.any(length > 0, axis=1)
