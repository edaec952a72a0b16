r"""Branch points: where in the complex plane of $\beta$ two equilibria meet, which limits the amplitude."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Complex, Float

from oscsim.core.arrays import complex_of, promoting, ratio, repeated, sample_norm, to_complex
from oscsim.core.checks import as_count, checked, untraced
from oscsim.equilibrium import default_tolerance, settle_inputs
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.linear import free_state, linear_response
from oscsim.equilibrium.states import At
from oscsim.equilibrium.vectors import as_layers, flat, flat_force, with_matrix
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Data, Inputs
from oscsim.response.continuation import continued, without_x
from oscsim.response.radius import unit_of

POINTS = 64
"""Of the teaching circle, to estimate where the nearest singularity is."""

ROUNDS = 8
"""How often a sample's circle is enlarged or shrunk to about half of the distance of its singularity."""

STARTS = 0.8, 0.97
"""Fractions of the estimate at which Newton's method starts."""

STEPS = 30
"""Of Newton's method, at most."""

SETTLING = 4
"""Of these, how many only find the null vectors."""

NEAR = 0.98, 0.995
"""Fractions of a branch point at which its distance from the continued state is looked at: half as far, as a root."""


class BranchPoints(eqx.Module):
    r"""The branch point of each sample that is nearest to $\beta = 0$; made by `branch_points`.

    Attributes:
        beta: where it lies, with its complex conjugate; nan where none was found.
        potentials: $u$ there, one complex (batch, ...) array per layer.
        residual: the size of the last step of Newton's method there: how right `beta` and `potentials` are.

    Example:
        >>> points = osc.response.branch_points(net, x, y)
        >>> points.beta.shape, points.radius.shape
        ((3,), (3,))
    """

    beta: Complex[Array, " batch"]
    potentials: Layers
    residual: Float[Array, " batch"]

    @property
    def radius(self) -> Float[Array, " batch"]:
        r"""$|\beta|$: the convergence radius of each sample."""
        return jnp.abs(self.beta)


@promoting
@checked(net=untraced, x=untraced, y=untraced, at=untraced)
def branch_points(net: AbstractNetwork, x: Data, y: Data, *, directions: int = 8, at: At = None) -> BranchPoints:
    r"""Where two equilibria of complex $\beta$ meet nearest to 0: the convergence radius, and its direction.

    They solve $u = F(u, \beta)$ with $1 - \partial F/\partial u$ singular. Newton's method for both starts where the
    Taylor coefficients of the settled state in $\beta$ say, $c_n \sim n^{-3/2}\, \beta_*^{-n}$ and its conjugate. A
    root counts only if the free state, continued along the ray to it, approaches it as a square root does.

    A pole of an activation or of the cost is no branch point; where one is nearer, none is found, or one farther away.

    Args:
        net: a holomorphic network.
        x: inputs, (batch, ...).
        y: targets, (batch,) labels or (batch, classes).
        directions: along so many rays, and one that the coefficients say, Newton's method is begun.
        at: the state that is meant, an `Equilibrium`, potentials or a `Run`; by default the one that `settle` finds.

    Raises:
        NotSettledError: the free network has no stable state, or none at `at`.
        NotHolomorphicError: the network declares itself non-holomorphic.
        ValueError: bad inputs.

    Source: Govaerts (2000), *Numerical Methods for Bifurcations of Dynamical Equilibria*, section 4.1, for the bordered
    system.

    Example:
        >>> points = osc.response.branch_points(net, x, y)
        >>> print(jnp.min(points.radius) > 0.2)  # the amplitude of run, 0.2, lies below all of them
        True
    """
    directions = as_count("directions", directions)
    require_frozen("net", net, "what settles here")
    inputs, free = free_state(net, x, y, at)
    inputs, u, batch = without_x(inputs), free.potentials, len(inputs.y)
    unit = unit_of(net, u)
    tolerance = jnp.asarray(unit * default_tolerance(net.dtype), net.dtype)
    velocity, _, _ = linear_response(net, inputs, u)
    estimate = _estimated(net, inputs, u, jnp.asarray(unit, net.dtype), tolerance)
    fan = jnp.exp(1j * jnp.pi * jnp.arange(directions + 1) / directions).astype(estimate.dtype)
    rays = jnp.concatenate([estimate[None], fan[:, None] * jnp.abs(estimate)[None]])
    aims = jnp.concatenate([share * rays for share in STARTS]).reshape(-1)
    inputs, u, velocity = repeated((inputs, u, velocity), len(aims) // batch)
    start, reached = continued(net, inputs, u, velocity, aims, jnp.asarray(64), tolerance)[:2]
    beta, there, residual = _newton(net, inputs, start, reached)
    good = (residual <= 100 * tolerance) & _is_reached(net, inputs, u, velocity, beta, there, tolerance)
    size = jnp.where(good, jnp.abs(beta), jnp.inf).reshape(-1, batch)
    nearest = jnp.argmin(size, axis=0) * batch + jnp.arange(batch)
    found = BranchPoints(beta, there, residual)
    best = jax.tree.map(lambda a: a[nearest], found)
    above = lax.complex(best.beta.real, jnp.abs(best.beta.imag))
    return eqx.tree_at(lambda p: p.beta, best, jnp.where(jnp.isinf(jnp.min(size, axis=0)), jnp.nan, above))


@eqx.filter_jit
def _estimated(
    net: AbstractNetwork, inputs: Inputs, u: Layers, unit: Array, tolerance: Array
) -> Complex[Array, " batch"]:
    r"""From the Taylor coefficients of settled points on a circle of each sample's own, $d_n = n^{3/2} c_n$.

    A pair of square roots at $\beta_*$ and its conjugate makes $d_{n+1} = p\, d_n - q\, d_{n-1}$ for large $n$, with
    the roots $A / \beta_*$ of $z^2 - p z + q$. Least squares over all neurons.
    """
    half, batch = POINTS // 2 + 1, len(u[0])
    turn = jnp.exp(2j * jnp.pi * jnp.arange(half) / POINTS).astype(complex_of(net.dtype))
    tiled, start = repeated((inputs, u), half)
    n = jnp.arange(1, POINTS // 2, dtype=net.dtype)

    def one(carry, _):
        amplitude, _ = carry
        beta = (turn[:, None] * amplitude[None]).reshape(-1)
        found = settle_inputs(net, tiled, beta, tolerance, start=start)
        values = jnp.concatenate([a.reshape(half, batch, -1) for a in found.potentials], axis=-1)
        whole = jnp.concatenate([values, values[1:-1][::-1].conj()])
        c = (jnp.fft.fft(whole, axis=0) / POINTS).real
        size = jnp.linalg.norm(c, axis=2)
        floor = 30 * jnp.maximum(tolerance, jnp.finfo(net.dtype).eps * size[0])
        settled = jnp.all((found.residual <= 10 * tolerance).reshape(half, batch), axis=0)
        inside = settled & (jnp.max(size[POINTS // 2 :], axis=0) < 1e-2 * size[1])
        clear = jnp.cumprod(size[1 : POINTS // 2] > floor[None], axis=0)  # up to the first that rounding hides
        most = jnp.sum(clear, axis=0)
        z = _root(c[1 : POINTS // 2] * (n**1.5)[:, None, None], clear, most)
        estimate = amplitude / z
        aim = jnp.where(most >= 6, 0.5 * jnp.abs(estimate), 6 * amplitude)
        after = jnp.where(inside, jnp.clip(aim, amplitude / 4, 8 * amplitude), amplitude / 3)
        return (after, jnp.where(inside & (most >= 4), estimate, carry[1])), None

    first = jnp.full(batch, 0.05 * unit), jnp.full(batch, jnp.nan, turn.dtype)
    return lax.scan(one, first, None, length=ROUNDS)[0][1]


def _root(d: Array, clear: Array, most: Array) -> Complex[Array, " batch"]:
    """The larger root of the recurrence that the later half of the clear coefficients obeys, with positive angle."""
    number = jnp.arange(len(d))[:, None]
    used = (clear[2:] * (number[1:-1] >= jnp.minimum(most // 2, most - 4)[None]))[..., None]
    scale = jnp.max(jnp.abs(d), axis=(0, 2), keepdims=True)
    after, now, before = (ratio(used * a, scale) for a in (d[2:], d[1:-1], d[:-2]))
    # each coefficient counts as much as the others: they fall as a power
    weight = ratio(1, jnp.linalg.norm(before, axis=2, keepdims=True))
    after, now, before = (weight * a for a in (after, now, before))

    def dot(a, b):
        return jnp.sum(a * b, axis=(0, 2))

    a, b, c = dot(now, now), dot(now, before), dot(before, before)
    f, g = dot(now, after), dot(before, after)
    p, q = (f * c - b * g) / (a * c - b * b), (b * f - a * g) / (a * c - b * b)
    root = jnp.sqrt((p * p / 4 - q).astype(complex_of(d.dtype)))
    z = jnp.where(p >= 0, p / 2 + root, p / 2 - root)
    return lax.complex(z.real, -jnp.abs(z.imag))


@eqx.filter_jit
def _newton(
    net: AbstractNetwork, inputs: Inputs, u: Layers, beta: Complex[Array, " batch"]
) -> tuple[Complex[Array, " batch"], Layers, Float[Array, " batch"]]:
    r"""Newton's method in $(u, \beta)$ for $u = F(u, \beta)$ and $g = 0$.

    $g$ is zero where $M = 1 - \partial F/\partial u$ is singular: $(M, b; c^\top, 0)(v; g) = (0; 1)$. With $w$ of the
    transposed system, $dg = w^\top d(\partial F/\partial u)\, v$.
    """
    enough = 4 * jnp.finfo(net.dtype).eps

    def one(sample):
        clamped, y, u, beta = sample
        force = flat_force(net, clamped, y)
        size = u.size

        def slope(w, v, u, beta):
            return jnp.sum(w * jax.jvp(lambda u: force(u, beta), (u,), (v,))[1])

        def bordered(corner, row, column):
            return jnp.block([[corner, column[:, None]], [row[None, :], jnp.zeros((1, 1), corner.dtype)]])

        def step(carry):
            u, beta, b, c, _, number = carry
            matrix = jnp.eye(size) - jax.jacfwd(lambda u: force(u, beta), holomorphic=True)(u)
            one = jnp.zeros(size + 1, u.dtype).at[-1].set(1)
            right, left = with_matrix(bordered(matrix, c, b), one), with_matrix(bordered(matrix.T, b, c), one)
            v, w, g = right[:-1], left[:-1], right[-1]
            g_u, g_beta = jax.grad(slope, argnums=(2, 3), holomorphic=True)(w, v, u, beta)
            f_beta = jax.jvp(lambda beta: force(u, beta), (beta,), (jnp.ones_like(beta),))[1]
            off = jnp.concatenate([u - force(u, beta), g[None]])
            system = jnp.block([[matrix, -f_beta[:, None]], [g_u[None, :], g_beta[None, None]]])
            moved = with_matrix(system, -off)
            residual = jnp.max(jnp.abs(moved))
            # Not far at once, and not at all until the borders are near the null vectors, by inverse iteration.
            moved = moved * jnp.where(number < SETTLING, 0, jnp.minimum(1, 1 / jnp.maximum(residual, 1e-30)))
            towards = (v.conj() / jnp.linalg.norm(v), w.conj() / jnp.linalg.norm(w))
            return u + moved[:-1], beta + moved[-1], towards[1], towards[0], residual, number + 1

        draw = jax.random.normal(jax.random.key(0), (2, size), beta.real.dtype)
        border = (draw / jnp.linalg.norm(draw, axis=1, keepdims=True)).astype(u.dtype)
        carry = (u, beta, *border, jnp.asarray(jnp.inf, beta.real.dtype))
        carry = lax.while_loop(lambda c: (c[-1] < STEPS) & (c[-2] > enough), step, (*carry, 0))
        u, beta, *_, residual, _ = carry
        return beta, u, jnp.where(jnp.isfinite(residual), residual, jnp.inf)

    vectors = jax.vmap(flat)(to_complex(u))
    found, there, residual = lax.map(one, (inputs.clamped, inputs.y, vectors, beta))
    return found, as_layers(net, there), residual


def _is_reached(
    net: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    velocity: Layers,
    beta: Complex[Array, " batch"],
    there: Layers,
    tolerance: Array,
) -> Bool[Array, " batch"]:
    """Whether the free state, continued along the ray, comes near as the square root of the distance."""
    off = []
    for share in NEAR:
        at = jnp.where(jnp.isfinite(beta), share * beta, 0)
        state, _, _, lost = continued(net, inputs, u, velocity, at, jnp.asarray(100), tolerance)
        off.append(jnp.where(lost, jnp.inf, sample_norm(jax.tree.map(jnp.subtract, state, there))))
    ratio = off[0] / off[1]
    return (ratio > 1.6) & (ratio < 2.5)
