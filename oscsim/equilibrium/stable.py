r"""Linear stability: whether the solutions of $\dot v = A v$ decay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from oscsim.core.arrays import ratio
from oscsim.equilibrium.vectors import with_matrix


def decays(matrix: Float[Array, "... n n"], squarings: int = 40) -> Bool[Array, "..."]:
    r"""Whether every eigenvalue of $A$ has a negative real part, by products of matrices alone.

    The Cayley transform $C = (1 - A)^{-1} (1 + A)$ takes the left half plane into the unit disc, so $C^{2^k}$ goes to
    zero or grows. A rate below $2^{-k}$ either way, or below the rounding of 1, cannot be told from zero, and counts as
    growth: count time in the unit of the fastest rates.
    """
    unit = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    unit = unit.reshape(*(1,) * (matrix.ndim - 2), *unit.shape)
    solve = with_matrix if matrix.ndim == 2 else jnp.linalg.solve
    power = solve(unit - matrix, unit + matrix)

    def size(power):
        return jnp.sqrt(jnp.sum(power**2, axis=(-2, -1)))

    def undecided(carry):
        power, count = carry
        return (count < squarings) & jnp.any((size(power) > 0.5) & (size(power) < 1e12))

    def square(carry):
        power, count = carry
        known = ~((size(power) > 0.5) & (size(power) < 1e12))[..., None, None]
        return jnp.where(known, power, power @ power), count + 1

    power, _ = lax.while_loop(undecided, square, (power, 0))
    return size(power) <= 0.5


@jax.custom_batching.sequential_vmap
def is_positive(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a symmetric matrix is positive definite: Cholesky's factorisation fails where it is not."""
    return jnp.all(jnp.isfinite(jnp.linalg.cholesky(matrix)))


def dies_out(slope: Callable[[Array], Array], size: int, dtype: DTypeLike, iterations: int = 300) -> Bool[Array, ""]:
    r"""`decays` without a matrix, by following $\dot v = A v$ in steps that its largest eigenvalue allows.

    A first pass of power iteration finds the size $\rho$ of that eigenvalue; a second one takes steps of
    $0.9 / \rho$ from a random start. The growth over their second half decides, so that rates below
    $\rho$ / `iterations` may be taken for others.
    """
    start = jax.random.normal(jax.random.key(0), (size,), dtype)

    def iterate(step):
        def one(_, carry):
            v, growth = carry
            new = step(v)
            length = jnp.linalg.norm(new)
            return ratio(new, length), growth + jnp.log(length)

        first, _ = lax.fori_loop(0, iterations // 2, one, (start / jnp.linalg.norm(start), jnp.zeros((), dtype)))
        return lax.fori_loop(0, iterations // 2, one, (first, jnp.zeros((), dtype)))[1]

    largest = jnp.exp(iterate(slope) / (iterations // 2))
    return iterate(lambda v: v + 0.9 / largest * slope(v)) < 0
