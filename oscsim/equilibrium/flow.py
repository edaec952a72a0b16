r"""The flow of the neurons, $\tau \dot u = -u + \partial\Phi/\partial s$, followed until they rest.

The path is followed accurately, by explicit steps whose length each sample chooses for itself, as long as it matters,
since several states may compete for the neurons. Near the end Newton's method takes over, where it can be trusted to
find the state that the neurons go to.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from oscsim.equilibrium.stable import decays, dies_out, is_positive
from oscsim.equilibrium.states import default_tolerance, rounding
from oscsim.equilibrium.vectors import (
    DENSE,
    as_layers,
    flat,
    flat_force,
    flat_time_constants,
    flatten_samples,
    with_matrix,
    without_matrix,
)
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs

ACCURACY = 1e-5
"""Error of one step along the path, absolute and relative to the potentials."""

EXPLICIT_STEPS = 5000
"""Steps along the path before they give way to implicit ones, which slow modes in stiff networks ask for."""

IMPLICIT_STEPS, NEWTON_STEPS = 300, 12
"""Steps of pseudo-transient continuation before the neurons are said to have no stable state; of Newton's method."""

NEAR = 1e-3
"""The residual at which pseudo-transient continuation gives way to Newton's method."""

FIRST_LOOK, NEXT_LOOK = 0.1, 0.25
"""The residual at which Newton's method is first tried, and how much smaller it has to be each time that fails."""

CONTRACTION = 0.1
"""How much smaller each Newton step must be than the one before: far inside the region that belongs to one state."""

REACH = 0.3
"""How far away the end may be when Newton's method is trusted, in potentials, which activities bend on a scale of 1."""

PUSH = 1e-3
"""Displacement of neurons that are in balance in an unstable state, which real ones would leave by themselves."""

PUSHES = 16
"""Of a sample, before it is brought to rest by implicit steps: one that drifts slowly looks balanced, too."""

RUNAWAY = 1e6
"""Potentials beyond which neurons have run off: the activations are long out of their range."""

GROUP = 16
"""Samples that are followed at a time."""


class Followed(NamedTuple):
    """The end of the path of each sample, the residual there, infinite where it settled nowhere, and if it moved."""

    potentials: Float[Array, "batch neurons"]
    residual: Float[Array, " batch"]
    walked: Bool[Array, " batch"]


@eqx.filter_jit
def settle_by_flow(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Float[Array, "..."],
    tolerance: ArrayLike,
    start: Layers,
    found: Layers,
    residual: Float[Array, " batch"],
    wanted: Bool[Array, " batch"],
) -> tuple[Layers, Float[Array, " batch"], Bool[Array, " batch"]]:
    """Those samples among `wanted` that were not found at a stable state, followed from `start`.

    Pure; nothing is computed where none is wanted.

    Returns:
        potentials, residuals, and which samples were followed. One that settles nowhere keeps what was found, with the
        residual there, or an infinite one where what was found is not stable.
    """
    batch = inputs.x.shape[0]
    group = min(batch, GROUP)
    (u, unravel), first = flatten_samples(found), flatten_samples(start)[0]
    beta = jnp.broadcast_to(beta, (batch,))
    tolerance = jnp.asarray(tolerance, net.dtype)

    def some(carry):
        return jnp.any(carry[3])

    def next_group(carry):
        u, residual, followed, wanted = carry
        chosen, rows = lax.top_k(wanted.astype(jnp.int32), group)
        samples = jax.tree.map(lambda a: a[rows], (inputs.clamped, inputs.y, beta))
        settled = residual[rows] <= jnp.maximum(tolerance, rounding((u[rows],)))
        end = _follow(net, samples, first[rows], u[rows], chosen > 0, settled, tolerance)
        arrived = (chosen > 0) & jnp.isfinite(end.residual)
        # What rests in an unstable state and goes nowhere has none.
        kept = jnp.where((chosen > 0) & settled, jnp.inf, residual[rows])
        u = u.at[rows].set(jnp.where(arrived[:, None], end.potentials, u[rows]))
        residual = residual.at[rows].set(jnp.where(arrived, end.residual, kept))
        followed = followed.at[rows].set(followed[rows] | (arrived & end.walked))
        return u, residual, followed, wanted.at[rows].set(False)

    carry = (u, residual, jnp.zeros(batch, bool), wanted)
    u, residual, followed, _ = lax.while_loop(some, next_group, carry)
    return unravel(u), residual, followed


def slope(net: AbstractNetwork, sample: PyTree) -> Callable[[Array], Array]:
    r"""$-u + F(u)$ of one sample (clamped, y, beta), on vectors of all its neurons."""
    clamped, y, beta = sample
    force = flat_force(net, clamped, y)
    return lambda u: force(u, beta) - u


def is_stable(net: AbstractNetwork, sample: PyTree, u: Array) -> Bool[Array, ""]:
    r"""Whether small disturbances of a settled sample die out: $\tau \dot v = (\partial F/\partial u - 1) v$.

    With a potential, $\partial F/\partial u = H D$ for its Hessian $H$ and the slopes $D$ of the activations. Where
    none is negative, they do if $1 - D^{1/2} H D^{1/2}$ is positive definite, whatever the time constants.
    """
    move, tau = slope(net, sample), flat_time_constants(net)
    if u.size > DENSE:
        return dies_out(lambda v: jax.jvp(move, (u,), (v,))[1] / tau, u.size, u.dtype)
    jacobian = jax.jacfwd(move)(u)

    def in_general():
        return decays(jacobian * (jnp.min(tau) / tau)[:, None])  # in rates of the fastest neuron

    def by_energy():
        root, unit = jnp.sqrt(slopes), jnp.eye(u.size, dtype=u.dtype)
        coupling = root[:, None] * (jacobian + unit) / jnp.where(root > 0, root, 1)[None]
        cannot_be_told = 2 * u.size**0.5 * jnp.finfo(u.dtype).eps
        return is_positive((1 - cannot_be_told) * unit - coupling)

    if not net.symmetric:
        return in_general()
    slopes = jax.jvp(lambda u: flat(net.activities(as_layers(net, u[None]))), (u,), (jnp.ones_like(u),))[1]
    return lax.cond(jnp.all(slopes >= 0), by_energy, in_general)


class _Path(NamedTuple):
    """Where a group of samples stands on its way, and how it goes on."""

    u: Float[Array, "group neurons"]
    slope: Float[Array, "group neurons"]
    step: Float[Array, " group"]
    level: Float[Array, " group"]
    count: Int[Array, " group"]
    residual: Float[Array, " group"]
    going: Bool[Array, " group"]
    walked: Bool[Array, " group"]

    def bounded(self) -> Bool[Array, " group"]:
        """Samples that have not run away."""
        far = jnp.max(jnp.abs(self.u), axis=1) > RUNAWAY
        return ~far & jnp.all(jnp.isfinite(self.slope), axis=1)


def _walk(path: _Path, velocity: Callable[[Array], Array], tau: Array) -> _Path:
    """Along the path until each sample is as near to rest as its level asks for, or has used up its steps."""

    def walks(path):
        moves = jnp.max(jnp.abs(path.slope * tau), axis=1)
        return path.going & path.walked & path.bounded() & (moves > path.level) & (path.count < EXPLICIT_STEPS)

    def one(path):
        u, slope, error = _explicit_step(velocity, path.u, path.slope, path.step[:, None])
        size = jnp.max(jnp.abs(error) / (ACCURACY * (1 + jnp.abs(path.u))), axis=1)
        walking = walks(path)
        good = walking & (size <= 1) & jnp.all(jnp.isfinite(slope), axis=1)
        factor = jnp.clip(0.9 * jnp.maximum(size, 1e-9) ** (-1 / 3), 0.2, 5.0)
        step = path.step * jnp.where(jnp.isfinite(factor), factor, 0.2)
        u, slope = (jnp.where(good[:, None], new, old) for new, old in ((u, path.u), (slope, path.slope)))
        step = jnp.where(walking, step, path.step)
        return path._replace(u=u, slope=slope, step=step, count=path.count + walking)

    path = path._replace(slope=velocity(path.u))
    path = path._replace(going=path.going & path.bounded())
    path = lax.while_loop(lambda path: jnp.any(walks(path)), one, path)
    return path._replace(going=path.going & path.bounded())


def _follow(
    net: AbstractNetwork,
    samples: PyTree,
    start: Float[Array, "group neurons"],
    found: Float[Array, "group neurons"],
    wanted: Bool[Array, " group"],
    settled: Bool[Array, " group"],
    tolerance: Array,
) -> Followed:
    """The ends of the paths from `start`, of those that are wanted; what is `settled` stays where it is if stable."""
    tau = flat_time_constants(net)[None]
    clamped, y, beta = samples

    def velocity(u):
        force = net.force(clamped, net.activities(as_layers(net, u)), y, beta)
        return (flatten_samples(force)[0] - u) / tau

    def look(path: _Path) -> _Path:
        """Newton's method for all that have come near, or are at the end of their steps."""

        def one(sample):
            clamped, y, beta, u, going, late = sample
            return lax.cond(
                going,
                lambda: _finish(net, (clamped, y, beta), u, late, tolerance),
                lambda: (u, jnp.asarray(jnp.inf, u.dtype)),
            )

        late = path.count >= EXPLICIT_STEPS
        ends, residual = lax.map(one, (*samples, path.u, path.going, late))
        arrived = path.going & jnp.isfinite(residual)
        on = path.going & ~arrived
        level = jnp.where(on & path.walked, NEXT_LOOK * path.level, path.level)
        balanced = jnp.minimum(tolerance, default_tolerance(dtype))  # what drifts slowly is followed further
        stuck = on & path.walked & (level < balanced)  # in balance, and yet not at a stable state
        pushed = path.u + PUSH * jax.random.normal(jax.random.key(0), path.u.shape, path.u.dtype)
        u = jnp.where(stuck[:, None], pushed, jnp.where(path.walked[:, None], path.u, start))
        return path._replace(
            u=jnp.where(arrived[:, None], ends, jnp.where(on[:, None], u, path.u)),
            level=jnp.where(stuck, FIRST_LOOK, level),
            count=path.count + jnp.where(stuck, EXPLICIT_STEPS // PUSHES, on),  # so that looking and pushing end too
            residual=jnp.where(arrived, residual, path.residual),
            going=on & ~late,
            walked=path.walked | on,
        )

    group, dtype = start.shape[0], start.dtype
    first = _Path(
        u=jnp.where(settled[:, None], found, start),
        slope=jnp.zeros_like(start),
        step=jnp.full(group, 0.01 * jnp.min(tau), dtype),
        level=jnp.full(group, FIRST_LOOK, dtype),
        count=jnp.zeros(group, jnp.int32),
        residual=jnp.full(group, jnp.inf, dtype),
        going=wanted,
        walked=~settled,
    )
    path = lax.while_loop(lambda path: jnp.any(path.going), lambda path: look(_walk(path, velocity, tau)), first)
    return Followed(path.u, path.residual, path.walked)


# Bogacki & Shampine (1989), third order: what each stage adds to the potentials, and what the error is made of.
_STAGES = ((1 / 2, 0, 0, 0), (0, 3 / 4, 0, 0), (2 / 9, 1 / 3, 4 / 9, 0))
_ERROR = (-5 / 72, 1 / 12, 1 / 9, -1 / 8)


def _explicit_step(velocity: Callable[[Array], Array], u: Array, k_1: Array, step: Array) -> tuple[Array, Array, Array]:
    """One step, the velocity after it, and an estimate of its error."""
    stages = jnp.asarray(_STAGES, u.dtype)

    def stage(i, carry):  # a loop, so that the force is compiled once
        slopes, _ = carry
        new = u + step * jnp.tensordot(stages[i], slopes, 1)
        return slopes.at[i + 1].set(velocity(new)), new

    slopes = jnp.zeros((4, *u.shape), u.dtype).at[0].set(k_1)
    slopes, new = lax.fori_loop(0, 3, stage, (slopes, u))
    return new, slopes[3], step * jnp.tensordot(jnp.asarray(_ERROR, u.dtype), slopes, 1)


def _finish(
    net: AbstractNetwork, sample: PyTree, u: Array, late: Bool[Array, ""], tolerance: Array
) -> tuple[Array, Float[Array, ""]]:
    """The stable state that the neurons go to from here, and its residual: infinite where that is not known yet.

    `late` ones are brought near by pseudo-transient continuation first.
    """
    move, tau = slope(net, sample), flat_time_constants(net)
    end, residual, trusted = newton(move, u, tolerance, jnp.where(late, jnp.inf, REACH), late, tau)
    stable = lax.cond(trusted, lambda: is_stable(net, sample, end), lambda: jnp.asarray(False))
    return end, jnp.where(stable, residual, jnp.inf)


class _Search(NamedTuple):
    """A search for a zero by implicit steps."""

    u: Float[Array, " neurons"]
    slope: Float[Array, " neurons"]
    residual: Float[Array, ""]
    last: Float[Array, ""]
    step: Float[Array, ""]
    count: Int[Array, ""]
    trusted: Bool[Array, ""]
    done: Bool[Array, ""]


def newton(
    move: Callable[[Array], Array],
    u: Float[Array, " neurons"],
    tolerance: Array,
    reach: ArrayLike,
    late: ArrayLike = False,
    tau: ArrayLike = 1.0,
) -> tuple[Float[Array, " neurons"], Float[Array, ""], Bool[Array, ""]]:
    r"""A zero of `move` by Newton's method, the residual there, and whether it is the one that `u` belongs to.

    It is where the first step is within `reach` and each later one smaller than the one before by `CONTRACTION`: then
    no other zero is near, and the Jacobian is singular nowhere on the way (Newton & Kantorovich).

    A `late` sample is brought near by pseudo-transient continuation first: implicit steps
    $(\tau/\delta + 1 - \partial F/\partial u)\, \Delta u = F - u$ that lengthen as the residual falls,
    $\delta \propto 1 / |F - u|$ (Kelley & Keyes 1998).
    """
    eps = float(jnp.finfo(u.dtype).eps)
    late = jnp.asarray(late)

    def size(v):
        return jnp.max(jnp.abs(v))

    def going(search):
        most = NEWTON_STEPS + jnp.where(late, IMPLICIT_STEPS, 0)
        return search.trusted & ~search.done & (search.count < most)

    def one(search):
        u, slope, residual, last, step, count, _, _ = search
        far = late & (residual > NEAR)
        by = _solve(move, u, slope, 1 + jnp.where(far, tau / step, 0))
        new = u + by
        slope_there = move(new)
        left = size(slope_there)
        small = ~far & (size(by) <= eps**0.5 * (1 + size(u)))  # there rounding decides how steps compare
        finite = jnp.isfinite(left)
        trusted = far | (finite & (small | (size(by) <= CONTRACTION * last)))
        better = finite & trusted & (~small | (left < residual))
        lengthened = step * jnp.where(finite, jnp.clip(residual / left, 0.5, 2.0), 0.1)
        return _Search(
            u=jnp.where(better, new, u),
            slope=jnp.where(better, slope_there, slope),
            residual=jnp.where(better, left, residual),
            last=jnp.where(far, jnp.inf, size(by)).astype(u.dtype),
            step=jnp.where(far, lengthened, step).astype(u.dtype),
            count=count + 1,
            trusted=trusted,
            done=~far & ((left <= tolerance) | (small & ~(left < 0.5 * residual))),
        )

    first = move(u)
    search = _Search(
        u=u,
        slope=first,
        residual=size(first),
        last=jnp.asarray(reach / CONTRACTION, u.dtype),
        step=jnp.asarray(jnp.min(jnp.asarray(tau)), u.dtype),
        count=jnp.zeros((), jnp.int32),
        trusted=jnp.asarray(True),
        done=size(first) <= 0,
    )
    end = lax.while_loop(going, one, search)
    settled = end.residual <= jnp.maximum(tolerance, rounding((end.u,), 0))
    return end.u, end.residual, end.trusted & end.done & settled


def _solve(move: Callable[[Array], Array], u: Array, right: Array, inertia: ArrayLike) -> Array:
    r"""$(m - \partial F/\partial u)\, v = r$ with the `inertia` $m$, 1 for Newton's step; `move` is $F - u$."""
    if u.size <= DENSE:
        matrix = jnp.diag(jnp.broadcast_to(inertia - 1, u.shape)) - jax.jacfwd(move)(u)
        return with_matrix(matrix, right)
    return without_matrix(lambda v: (inertia - 1) * v - jax.jvp(move, (u,), (v,))[1], right)
