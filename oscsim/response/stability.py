"""The stability map: where in the complex plane of beta the free equilibrium continues to."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Complex, Float

from oscsim.core.arrays import complex_of, per_sample, repeated
from oscsim.core.checks import as_count, as_numbers, checked, untraced
from oscsim.core.errors import BadValue
from oscsim.equilibrium import default_tolerance
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.linear import free_state, linear_response
from oscsim.equilibrium.states import At
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data
from oscsim.response.continuation import continued, without_x
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


@checked(net=untraced, x=untraced, y=untraced, at=untraced)
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
    values = np.asarray(untraced("grid", as_numbers("grid", grid, "use an array of complex numbers")))
    if values.size == 0 or not np.all(np.isfinite(values)):
        raise BadValue(f"grid of shape {values.shape} is empty or not finite: use finite complex numbers")
    require_frozen("net", net, "what settles here")
    inputs, free = free_state(net, x, y, at)
    tolerance = default_tolerance(net.dtype) * unit_of(net, free.potentials)
    beta = jnp.asarray(values, complex_of(net.dtype))
    velocity, _, _ = linear_response(net, inputs, free.potentials)
    batch = len(inputs.y)
    inputs, u, velocity = repeated((without_x(inputs), free.potentials, velocity), values.size)
    tolerance = jnp.asarray(tolerance, net.dtype)
    u, _, residual, lost = continued(net, inputs, u, velocity, jnp.repeat(beta, batch), jnp.asarray(steps), tolerance)
    shaped = tuple(
        jnp.where(per_sample(lost, a), jnp.nan, a).reshape(*values.shape, batch, *a.shape[1:])
        for a in net.activities(u)
    )
    every = *values.shape, batch
    return StabilityMap(beta, ~jnp.any(lost.reshape(every), axis=-1), residual.reshape(every), shaped)
