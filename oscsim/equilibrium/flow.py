r"""Where the neurons themselves come to rest: $\tau \dot u = -u + \partial\Phi/\partial s$, followed to its end.

The path is followed accurately, by explicit steps whose length each sample chooses for itself, as long as it matters,
since several states may compete for the neurons. Near the end Newton's method takes over, where it can be trusted to
find the state that the neurons go to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from oscsim.equilibrium.stable import decays, dies_out
from oscsim.equilibrium.states import rounding
from oscsim.equilibrium.vectors import DENSE, as_layers, flat_force, flat_time_constants, flatten_samples
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs

ACCURACY = 1e-5
"""Error of one step along the path, absolute and relative to the potentials."""

EXPLICIT_STEPS = 5000
"""Steps along the path before they give way to implicit ones, which slow modes in stiff networks ask for."""

IMPLICIT_STEPS = 300
"""Steps of pseudo-transient continuation before the neurons are said to have no stable state."""

FIRST_LOOK, NEXT_LOOK = 0.1, 0.25
"""The residual at which Newton's method is first tried, and how much smaller it has to be each time that fails."""

CONTRACTION = 0.1
"""How much smaller each Newton step must be than the one before: far inside the region that belongs to one state."""

REACH = 0.3
"""How far away the end may be when Newton's method is trusted, in potentials, which activities bend on a scale of 1."""

PUSH = 1e-3
"""Displacement of neurons that are in balance in an unstable state, which real ones would leave by themselves."""

GROUP = 16
"""Samples that are followed at a time."""


class Followed(NamedTuple):
    """The end of the path of each sample, and the residual there: infinite where it settled nowhere."""

    potentials: Float[Array, "batch neurons"]
    residual: Float[Array, " batch"]


@eqx.filter_jit
def settle_by_flow(
    net: AbstractNetwork,
    inputs: Inputs,
    beta: Float[Array, "..."],
    tolerance: Any,
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

    def look(one):
        sample, u, settled = one
        return lax.cond(settled, lambda: is_stable(net, sample, u), lambda: jnp.asarray(False))

    def next_group(carry):
        u, residual, followed, wanted = carry
        chosen, rows = lax.top_k(wanted.astype(jnp.int32), group)
        clamped, y, beta_here = jax.tree.map(lambda a: a[rows], (inputs.clamped, inputs.y, beta))
        samples = (clamped, y, beta_here)
        settled = residual[rows] <= jnp.maximum(tolerance, rounding((u[rows],)))
        stable = lax.map(look, (samples, u[rows], settled & (chosen > 0)))
        lost = (chosen > 0) & ~stable
        end = _follow(net, samples, first[rows], lost, tolerance)
        better = lost & jnp.isfinite(end.residual)
        u = u.at[rows].set(jnp.where(better[:, None], end.potentials, u[rows]))
        kept = jnp.where(lost & settled, jnp.inf, residual[rows])
        residual = residual.at[rows].set(jnp.where(better, end.residual, kept))
        return u, residual, followed.at[rows].set(followed[rows] | better), wanted.at[rows].set(False)

    carry = (u, residual, jnp.zeros(batch, bool), wanted)
    u, residual, followed, _ = lax.while_loop(some, next_group, carry)
    return unravel(u), residual, followed


def slope(net: AbstractNetwork, sample: Any) -> Callable[[Array], Array]:
    r"""$-u + F(u)$ of one sample (clamped, y, beta), on vectors of all its neurons."""
    clamped, y, beta = sample
    force = flat_force(net, clamped, y)
    return lambda u: force(u, beta) - u


def is_stable(net: AbstractNetwork, sample: Any, u: Array) -> Bool[Array, ""]:
    r"""Whether small disturbances of a settled sample die out: $\tau \dot v = (\partial F/\partial u - 1) v$."""
    move, tau = slope(net, sample), flat_time_constants(net)
    if u.size <= DENSE:
        return decays(jax.jacfwd(move)(u) / tau[:, None])
    return dies_out(lambda v: jax.jvp(move, (u,), (v,))[1] / tau, u.size, u.dtype)


class _Path(NamedTuple):
    """Where a group of samples stands on its way, and how it goes on."""

    u: Float[Array, "group neurons"]
    slope: Float[Array, "group neurons"]
    step: Float[Array, " group"]
    level: Float[Array, " group"]
    count: Int[Array, " group"]
    residual: Float[Array, " group"]
    going: Bool[Array, " group"]


def _follow(net: AbstractNetwork, samples: Any, start: Array, wanted: Array, tolerance: Array) -> Followed:
    """The ends of the paths from `start`; a sample that is not wanted stays there."""
    tau = flat_time_constants(net)[None]
    clamped, y, beta = samples

    def velocity(u):
        force = net.force(clamped, net.activities(as_layers(net, u)), y, beta)
        return (flatten_samples(force)[0] - u) / tau

    def moves(u):
        return jnp.max(jnp.abs(u * tau), axis=1)

    def walk(path: _Path) -> _Path:
        """Along the path until each sample is as near to rest as its level asks for, or has used up its steps."""

        def walks(path):
            return path.going & (moves(path.slope) > path.level) & (path.count < EXPLICIT_STEPS)

        def one(path):
            u, slope, error = _explicit_step(velocity, path.u, path.slope, path.step[:, None])
            size = jnp.max(jnp.abs(error) / (ACCURACY * (1 + jnp.abs(path.u))), axis=1)
            good = walks(path) & (size <= 1) & jnp.all(jnp.isfinite(slope), axis=1)
            factor = jnp.clip(0.9 * jnp.maximum(size, 1e-9) ** (-1 / 3), 0.2, 5.0)
            step = path.step * jnp.where(jnp.isfinite(factor), factor, 0.2)
            u, slope = (jnp.where(good[:, None], new, old) for new, old in ((u, path.u), (slope, path.slope)))
            step = jnp.where(walks(path), step, path.step)
            return path._replace(u=u, slope=slope, step=step, count=path.count + walks(path))

        return lax.while_loop(lambda path: jnp.any(walks(path)), one, path)

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
        # In balance, and yet not at a stable state.
        level = jnp.where(path.going, NEXT_LOOK * path.level, path.level)
        stuck = path.going & ~arrived & (level < tolerance)
        pushed = path.u + PUSH * jax.random.normal(jax.random.key(0), path.u.shape, path.u.dtype)
        u = jnp.where(arrived[:, None], ends, jnp.where(stuck[:, None], pushed, path.u))
        return _Path(
            u=u,
            slope=velocity(u),
            step=path.step,
            level=jnp.where(stuck, FIRST_LOOK, level),
            count=path.count,
            residual=jnp.where(arrived, residual, path.residual),
            going=path.going & ~arrived & ~late,
        )

    count = jnp.zeros(start.shape[0], jnp.int32)
    first = _Path(
        u=start,
        slope=velocity(start),
        step=jnp.full(start.shape[0], 0.01 * jnp.min(tau), start.dtype),
        level=jnp.full(start.shape[0], FIRST_LOOK, start.dtype),
        count=count,
        residual=jnp.full(start.shape[0], jnp.inf, start.dtype),
        going=wanted,
    )
    path = lax.while_loop(lambda path: jnp.any(path.going), lambda path: look(walk(path)), first)
    return Followed(path.u, path.residual)


def _explicit_step(velocity: Callable[[Array], Array], u: Array, k_1: Array, step: Array) -> tuple[Array, Array, Array]:
    """One step of third order, the velocity after it, and an estimate of its error (Bogacki & Shampine 1989)."""
    k_2 = velocity(u + step / 2 * k_1)
    k_3 = velocity(u + 3 * step / 4 * k_2)
    new = u + step * (2 * k_1 + 3 * k_2 + 4 * k_3) / 9
    k_4 = velocity(new)
    return new, k_4, step * (-5 * k_1 / 72 + k_2 / 12 + k_3 / 9 - k_4 / 8)


def _finish(
    net: AbstractNetwork, sample: Any, u: Array, late: Bool[Array, ""], tolerance: Array
) -> tuple[Array, Float[Array, ""]]:
    """The stable state that the neurons go to from here, and its residual: infinite where that is not known yet.

    `late` ones are brought near by pseudo-transient continuation first.
    """
    move, tau = slope(net, sample), flat_time_constants(net)
    u = lax.cond(late, lambda u: _continued(move, u, tau), lambda u: u, u)
    end, residual, trusted = newton(move, u, tolerance, jnp.where(late, jnp.inf, REACH))
    stable = lax.cond(trusted, lambda: is_stable(net, sample, end), lambda: jnp.asarray(False))
    return end, jnp.where(stable, residual, jnp.inf)


def newton(
    move: Callable[[Array], Array], u: Float[Array, " neurons"], tolerance: Array, reach: Array
) -> tuple[Float[Array, " neurons"], Float[Array, ""], Bool[Array, ""]]:
    """A zero of `move` by Newton's method, the residual there, and whether it is the one that `u` belongs to.

    It is where the first step is within `reach` and each later one smaller than the one before by `CONTRACTION`: then
    no other zero is near, and the Jacobian is singular nowhere on the way (Newton & Kantorovich).
    """
    eps = float(jnp.finfo(u.dtype).eps)

    def size(v):
        return jnp.max(jnp.abs(v))

    def going(carry):
        _, _, _, trusted, count, done = carry
        return trusted & ~done & (count < 12)

    def one(carry):
        u, residual, last, _, count, _ = carry
        step = _solve(move, u, move(u), 1.0)
        new = u + step
        left = size(move(new))
        small = size(step) <= eps**0.5 * (1 + size(u))  # there rounding decides how steps compare
        trusted = jnp.isfinite(left) & ((size(step) <= CONTRACTION * last) | small)
        done = (left <= tolerance) | (small & ~(left < 0.5 * residual))
        better = trusted & (~small | (left < residual))
        return jnp.where(better, new, u), jnp.where(better, left, residual), size(step), trusted, count + 1, done

    first = size(move(u))
    last = jnp.asarray(reach / CONTRACTION, u.dtype)
    u, residual, _, trusted, _, done = lax.while_loop(going, one, (u, first, last, jnp.asarray(True), 0, first <= 0))
    settled = residual <= jnp.maximum(tolerance, rounding((u,), 0))
    return u, residual, trusted & done & settled


def _solve(move: Callable[[Array], Array], u: Array, right: Array, inertia: Any) -> Array:
    r"""$(m - \partial F/\partial u)\, v = r$ with the `inertia` $m$, 1 for Newton's step; `move` is $F - u$."""
    if u.size <= DENSE:
        matrix = jnp.diag(jnp.broadcast_to(inertia - 1.0, u.shape)) - jax.jacfwd(move)(u)
        return jnp.linalg.solve(matrix, right)
    level = 30 * float(jnp.finfo(u.dtype).eps)
    operator = lx.FunctionLinearOperator(
        lambda v: (inertia - 1) * v - jax.jvp(move, (u,), (v,))[1], jax.eval_shape(lambda: right)
    )
    solver = lx.GMRES(rtol=level, atol=level, restart=50, stagnation_iters=50)
    return lx.linear_solve(operator, right, solver, throw=False).value


def _continued(move: Callable[[Array], Array], u: Array, tau: Array) -> Array:
    r"""Pseudo-transient continuation: implicit steps $\delta$ that lengthen as the residual falls.

    $(\tau/\delta + 1 - \partial F/\partial u)\, \Delta u = F - u$, $\delta \propto 1 / |F - u|$ (Kelley & Keyes 1998).
    """

    def size(u):
        return jnp.max(jnp.abs(move(u)))

    def going(carry):
        _, _, residual, count = carry
        return (residual > 1e-2 * FIRST_LOOK) & (count < IMPLICIT_STEPS)

    def one(carry):
        u, step, residual, count = carry
        new = u + _solve(move, u, move(u), 1 + tau / step)
        left = size(new)
        good = jnp.isfinite(left)
        factor = jnp.where(good, jnp.clip(residual / left, 0.5, 2.0), 0.1)
        return jnp.where(good, new, u), step * factor, jnp.where(good, left, residual), count + 1

    return lax.while_loop(going, one, (u, jnp.min(tau), size(u), 0))[0]
