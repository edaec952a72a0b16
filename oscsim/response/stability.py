"""The stability map: where in the complex plane of beta the free equilibrium continues to."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float

from oscsim.core.arrays import complex_of, per_sample, to_complex
from oscsim.core.checks import as_count, as_seen
from oscsim.core.errors import BadValue
from oscsim.equilibrium import default_tolerance, settle_inputs
from oscsim.equilibrium.linear import free_state, linear_response
from oscsim.equilibrium.states import At
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data, Inputs
from oscsim.response.radius import unit_of


class StabilityMap(eqx.Module):
    r"""Which points of the complex plane of $\beta$ the free equilibrium continues to; made by `stability_map`.

    Attributes:
        grid: $\beta$, as given.
        settled: whether every sample is on that sheet.
        residual: the largest change of a potential in one more step, (..., batch); where it was lost, the last one.
        activities: $s(\beta)$, one complex (..., batch, neurons) array per layer; nan where the sample was lost.

    Example:
        >>> plane = osc.response.stability_map(net, x, y, [0.1, 0.1j, -0.1], steps=8)
        >>> plane.settled.shape, plane.activities[0].shape  # (points, batch, neurons)
        ((3,), (3, 3, 5))
    """

    grid: Complex[Array, "*grid"]
    settled: Bool[Array, "*grid"]
    residual: Float[Array, "*grid batch"]
    activities: Layers

    @property
    def radius(self) -> Float[Array, ""]:
        """The smallest modulus among points that are not settled: the convergence radius or more, to a step; or inf."""
        return jnp.min(jnp.where(self.settled, jnp.inf, jnp.abs(self.grid)), initial=jnp.inf)


def stability_map(
    net: AbstractNetwork,
    x: Data,
    y: Data,
    grid: ArrayLike | Sequence[complex | float],
    *,
    steps: int = 64,
    at: At = None,
) -> StabilityMap:
    r"""Follow the free equilibrium along rays to points of the complex plane of $\beta$, as in the paper's Fig. 2b.

    Every point is approached from 0 in equal steps, each settled from the line through the two states before. A sample
    is lost where it does not settle, or settles away from that line by more than half of the step: it then has
    passed a singularity within about one step, or jumped to another sheet. So behind each branch point there is a
    radial slit, about as wide as a step; elsewhere the state is the one that the power series in $\beta$ continues to.
    Whether neurons that are put there stay is another question: the state may be unstable in time.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        grid: $\beta$, a complex array of any shape; all points and samples are settled as one batch.
        steps: how many to each point.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        TypeError: the grid holds no numbers.
        ValueError: bad inputs, a grid that is empty or not finite, `steps` below 1.

    Source: Laborieux & Zenke (2022), Fig. 2b.

    Example:
        >>> plane = osc.response.stability_map(net, x, y, [0.1, 0.1j, 9.0j], steps=8)
        >>> print(plane.settled)
        [ True  True False]
    """
    steps = as_count("steps", steps)
    values = np.asarray(as_seen("grid", grid, "use an array of complex numbers"))
    if values.size == 0 or not np.all(np.isfinite(values)):
        raise BadValue(f"grid of shape {values.shape} is empty or not finite: use finite complex numbers")
    inputs, free = free_state(net, x, y, at)
    tolerance = default_tolerance(net.dtype) * unit_of(net, free.potentials)
    beta = jnp.asarray(values, complex_of(net.dtype))
    velocity, _, _ = linear_response(net, inputs, free.potentials, jnp.zeros((), net.dtype))
    activities, residual, lost = _follow(
        net, inputs, free.potentials, velocity, beta.reshape(-1), jnp.asarray(steps), jnp.asarray(tolerance, net.dtype)
    )
    shaped = tuple(a.reshape(*values.shape, *a.shape[1:]) for a in activities)
    return StabilityMap(beta, ~jnp.any(lost, axis=1).reshape(values.shape), residual.reshape(*values.shape, -1), shaped)


@eqx.filter_jit
def _follow(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    velocity: Layers,
    grid: Complex[Array, " points"],
    steps: ArrayLike,
    tolerance: ArrayLike,
) -> tuple[Layers, Float[Array, "points batch"], Bool[Array, "points batch"]]:
    """Activities, residuals and which samples were lost, at the end of each ray."""
    batch, points = len(u[0]), len(grid)
    beta = jnp.repeat(grid, batch)

    def size(layers):
        return jnp.sqrt(sum(jnp.sum(jnp.abs(a.reshape(points * batch, -1)) ** 2, axis=1) for a in layers))

    clamped, y, u, velocity = jax.tree.map(
        lambda a: jnp.tile(a, (points, *(1,) * (a.ndim - 1))), (inputs.clamped, inputs.y, u, velocity)
    )
    tiled = Inputs(jnp.zeros((points * batch, 0), net.dtype), y, clamped)  # the force needs no more than the clamped x
    u = to_complex(u)
    before = tuple(a - v * per_sample(beta / steps, v) for a, v in zip(u, velocity, strict=True))
    none = jnp.zeros(points * batch, bool)
    carry = (jnp.zeros((), jnp.int32), u, before, jnp.zeros_like(beta), jnp.zeros_like(beta.real), none)

    def advance(carry):
        step, u, before, reached, residual, lost = carry
        # What is lost stays at the last point where it settled, so that the others need not wait for it.
        aim = jnp.where(lost, reached, beta * ((step + 1) / steps).astype(net.dtype))
        guess = tuple(jnp.where(per_sample(lost, a), a, 2 * a - b) for a, b in zip(u, before, strict=True))
        found = settle_inputs(net, tiled, aim, tolerance, 300, start=guess)
        moved = size(jax.tree.map(jnp.subtract, found.potentials, u))
        missed = size(jax.tree.map(jnp.subtract, found.potentials, guess))
        kept = (found.residual <= tolerance) & (missed <= 0.5 * moved + 1e3 * tolerance) & ~lost
        residual = jnp.where(lost, residual, found.residual)
        new = tuple(jnp.where(per_sample(kept, a), a, b) for a, b in zip(found.potentials, u, strict=True))
        return step + 1, new, u, jnp.where(kept, aim, reached), residual, ~kept

    _, u, _, _, residual, lost = lax.while_loop(lambda carry: carry[0] < steps, advance, carry)
    activities = tuple(
        jnp.where(per_sample(lost, a), jnp.nan, a).reshape(points, batch, *a.shape[1:]) for a in net.activities(u)
    )
    return activities, residual.reshape(points, batch), lost.reshape(points, batch)
