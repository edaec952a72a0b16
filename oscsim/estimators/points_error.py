r"""The error of a gradient that was read off points, measured on the points themselves.

With $h(\beta) = \frac{\partial\Psi}{\partial\theta}(s(\beta), s_0, \beta) = \sum_n h_n \beta^n$ the gradient is $-h_1$,
and what $N$ points read is $-\sum_m h_{1 + mN} A^{mN}$. Two things are wrong with it.

- *Truncation*, $h_{1+N} A^N$. The coefficients that the points hold say about where the points would lie at half the
  amplitude; what is read there differs by $1 - 2^{-N}$ of the error.
- *Points that are not where they should be*, because they have not settled, or were disturbed. One step of Newton's
  method from each, $(1 - \partial F/\partial u)\, \delta = F(u) - u$, solved to a few per cent by some sweeps, says
  where they would come to rest, and what is read there says what is missing. So it is with those at half the amplitude.

Rounding, of the order of $\epsilon\, |h_0| / A$, comes on top.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree

from oscsim.core.arrays import norm, per_sample, ratio, repeated, sample_norm
from oscsim.core.errors import RESULTS
from oscsim.dynamics.error_bars import asymmetry_norms, relative_parts
from oscsim.dynamics.gradient import read_points
from oscsim.dynamics.gradient_error import LOST, GradientError
from oscsim.equilibrium.resolvent import Resolvent
from oscsim.equilibrium.vectors import largest
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient

ACCURACY, SWEEPS = 0.03, 20
"""How well the step of Newton's method is solved for, in how many sweeps at most."""


ROUNDED = 0.3
"""Units in the last place of what is summed up that rounding leaves of a sum, as measured."""


class Circle(eqx.Module):
    r"""Points $\beta_k = A_b e^{i\varphi_k}$ of the teaching circle, an amplitude per sample, and the weight of each.

    Attributes:
        amplitude: of each sample.
        unit: $e^{i\varphi_k}$; real where all points are.
        weights: their shares of the circle: $1/N$, or $2/N$ of a point that stands for its conjugate too.
        number: $N$; 1 is the one-sided nudge, whose gradient is the difference to the free state.
    """

    amplitude: Float[Array, " batch"]
    unit: Inexact[Array, " points"]
    weights: Float[Array, " points"]
    number: int = eqx.field(static=True)

    @property
    def teaching(self) -> Inexact[Array, "points batch"]:
        r"""$\beta_k$ of each sample."""
        return self.unit[:, None] * self.amplitude[None]

    @property
    def share(self) -> float:
        """Of the truncation error, by which half the amplitude makes it smaller."""
        return 1 - 0.5**self.number

    def turned(self, n: int) -> Inexact[Array, " points"]:
        r"""$w_k e^{-i n \varphi_k}$: a sum with these weights is coefficient $n$ times $A^n$."""
        return self.weights * jnp.conj(self.unit) ** (n % self.number)

    def coefficient(self, values: Layers, free: Layers, n: int) -> Layers:
        r"""$c_n A^n$ of real coefficients, from values at the points and at rest, for $1 \le n \le N$."""
        weights = self.turned(n)
        found = (jnp.tensordot(weights, a, axes=1).real for a in values)
        return tuple(c - f if n == self.number else c for c, f in zip(found, free, strict=True))


class PointsError(GradientError):
    """How right a gradient is that was read off points: as `GradientError`, with sentences of its own.

    `per_sample` is what is wrong with the response of each sample, `rounding` what the precision explains of it, and
    `change` what comes of points that have not settled.

    Attributes:
        number: how many points, 1 for the one-sided nudge.
        unknown: why the contamination is not known, where it is not.
    """

    number: int = eqx.field(static=True, default=1)
    unknown: str = eqx.field(static=True, default="")

    @property
    def outside(self) -> Bool[Array, " batch"]:
        """Samples whose amplitude is too large for so many points, which neither rounding nor settling explains."""
        image = self.per_sample
        return (image > LOST) & ~(3 * self.change + self.rounding * 3 / ROUNDED >= image) & (not self.noisy)

    def _findings(self) -> list[tuple[str, float]]:
        found = super()._findings()
        return [(self.unknown if text.startswith("contamination unknown") else text, size) for text, size in found]

    @property
    def worst(self) -> Int[Array, ""]:
        return jnp.argmax(jnp.where(jnp.isnan(self.per_sample), -1, self.per_sample))

    @property
    def cause(self) -> RESULTS:
        image, rounding, change = (a[self.worst] for a in (self.per_sample, self.rounding, self.change))
        swallowed = (jnp.max(self.change) < 0.5) & (change < rounding)
        found = RESULTS.where(swallowed, RESULTS.rounding, RESULTS.unsettled_points)
        found = RESULTS.where(3 * change + rounding * 3 / ROUNDED >= image, found, RESULTS.truncation)
        return RESULTS.noise if self.noisy else found


@eqx.filter_jit
def points_error(
    network: AbstractNetwork,
    inputs: Inputs,
    gradient: Gradient,
    circle: Circle,
    free: Layers,
    potentials: Layers,
    *,
    noisy: bool = False,
    unknown: str = "",
) -> PointsError:
    """How right the gradient is that was read off these points: pure, works under jit.

    Args:
        network: the neurons.
        inputs: what they were shown.
        gradient: what was read.
        circle: where the points lie.
        free: potentials at rest, (batch, ...) per layer.
        potentials: those of the points, (points, batch, ...) per layer.
        noisy: they were disturbed.
        unknown: why the contamination cannot be known, where it cannot.
    """
    found, rest = _came_to_rest(network, inputs, circle, free, potentials)
    heard = tuple(a[0] for a in rest)
    settled, truncation, rounding = _gradient_at_rest(network, inputs, circle, rest)
    missing = jax.tree.map(lambda a, b: norm(a - b), gradient, settled)
    sizes = jax.tree.map(lambda a, b: jnp.maximum(norm(a), norm(b)), gradient, settled)

    def whole(*parts):
        total = _or_infinite(jnp.sqrt(sum(part**2 for part in parts)))
        return jnp.full_like(total, jnp.nan) if unknown else total

    parts = jax.tree.map(whole, missing, truncation, rounding)
    none, size = jax.tree.map(jnp.zeros_like, sizes), jnp.maximum(norm(gradient), norm(settled))
    change, tail, lost = _wrong_response(circle, found, rest)
    image = jnp.hypot(jnp.hypot(tail, change), lost)  # whose squares may overflow
    return PointsError(
        **relative_parts(sizes, parts, none, none, asymmetry_norms(network, inputs, heard), size),
        per_sample=_or_infinite(image),
        rounding=lost,
        change=_or_infinite(change),
        kept=jnp.ones(image.shape, jnp.int32),
        skipped=jnp.zeros(image.shape, jnp.int32),
        amplitude=jnp.abs(circle.amplitude),
        noisy=noisy,
        number=circle.number,
        unknown=unknown,
    )


def _or_infinite(a: Array) -> Array:
    """Infinite where it is not a number."""
    return jnp.where(jnp.isnan(a), jnp.inf, a)


def _came_to_rest(
    network: AbstractNetwork, inputs: Inputs, circle: Circle, free: Layers, potentials: Layers
) -> tuple[Layers, Layers]:
    """Activities, (1 + 2 points, batch, ...): of the free state, the points, and the points at half the amplitude.

    As they are, and where one step of Newton's method says that they would come to rest.
    """
    start = tuple(a[None].astype(b.dtype) for a, b in zip(free, potentials, strict=True))
    half = _at_half(circle, potentials, free)
    states = jax.tree.map(lambda *parts: jnp.concatenate(parts), start, potentials, half)
    fine = jnp.finfo(network.dtype).eps ** (2 / 3) * jnp.abs(circle.amplitude)
    betas = circle.teaching
    moved = newton_step(network, inputs, states, jnp.concatenate([0 * betas[:1], betas, betas / 2]), fine)
    activities = jax.vmap(network.activities)
    return activities(states), activities(jax.tree.map(jnp.add, states, moved))


def _gradient_at_rest(
    network: AbstractNetwork, inputs: Inputs, circle: Circle, rest: Layers
) -> tuple[Gradient, PyTree, PyTree]:
    """The gradient in points at rest, and norms of each array of it: of what is truncated, and of what is rounded."""
    points, heard, none = len(circle.unit), tuple(a[0] for a in rest), 0 * circle.teaching[:1]
    free_weight = jnp.full(1, 1.0 if circle.number == 1 else 0.0, network.dtype)
    weights = jnp.concatenate([free_weight, -circle.turned(1)])[:, None]

    def read(first, amplitude):
        """The gradient in the points from this place on, which lie at this amplitude, and in the free state."""
        states = tuple(jnp.concatenate([a[:1], a[first : first + points]]) for a in rest)
        betas = jnp.concatenate([none, circle.unit[:, None] * amplitude[None]])
        return read_points(network, inputs, states, heard, betas, weights / amplitude[None])

    settled, halved = read(1, circle.amplitude), read(1 + points, circle.amplitude / 2)
    free = read_points(network, inputs, tuple(a[:1] for a in rest), heard, none, 1 / circle.amplitude[None])
    truncation = jax.tree.map(lambda a, b: norm(a - b) / circle.share, settled, halved)
    return settled, truncation, jax.tree.map(lambda a: ROUNDED * jnp.finfo(network.dtype).eps * norm(a), free)


def _wrong_response(circle: Circle, found: Layers, rest: Layers) -> tuple[Array, Array, Array]:
    """The same of each sample's response, the first coefficient of the activities, relative to it.

    What comes of points that have not settled, what is truncated, and what is rounded.
    """
    points, heard = len(circle.unit), tuple(a[0] for a in rest)

    def response(values, first):
        free = tuple(a[0].real for a in values)
        return circle.coefficient(tuple(a[first : first + points] for a in values), free, 1)

    before, after, half = response(found, 1), response(rest, 1), response(rest, 1 + points)
    limits = jnp.finfo(circle.amplitude.dtype)
    length = jnp.maximum(jnp.maximum(sample_norm(before), sample_norm(after)), limits.tiny)
    change = sample_norm(jax.tree.map(jnp.subtract, before, after)) / length
    tail = sample_norm(jax.tree.map(lambda a, b: a - 2 * b, after, half)) / (circle.share * length)
    lost = ROUNDED * limits.eps * sample_norm(heard) / length
    return change, jnp.where(lost > 1, 0, tail), lost  # of a response that rounding swallows nothing else is known


def truncated(circle: Circle, s: Layers, free: Layers) -> Float[Array, " batch"]:
    """What aliases into the response of each sample, relative to it: from the coefficients that the points hold."""
    sizes = [sample_norm(circle.coefficient(s, free, k)) for k in range(1, circle.number + 1)]
    if circle.number == 2:
        return ratio(sizes[1], sizes[0]) ** 2
    # Coefficients turn as they fall, and a single one can be small by chance.
    last, before = sizes[-2:], sizes[-4:-2] if circle.number > 3 else sizes[:1]
    fall = jnp.sqrt(jnp.clip(ratio(sum(last[-len(before) :]), sum(before)), 0, 1))
    return ratio(jnp.hypot(last[1], last[0] * fall) * fall, sizes[0])


def newton_step(
    network: AbstractNetwork,
    inputs: Inputs,
    u: Layers,
    betas: Inexact[Array, "points batch"],
    fine: Float[Array, " batch"],
) -> Layers:
    r"""$\delta$ with $(1 - \partial F/\partial u)\, \delta = F(u, \beta) - u$, to `ACCURACY`.

    It is how far each point is from where it would come to rest.

    Args:
        network: the neurons.
        inputs: of the batch.
        u: potentials, (points, batch, ...) per layer.
        betas: the teaching signal at each.
        fine: residuals of each sample that are taken for $\delta$ as they are.
    """
    points, batch = betas.shape
    shown, at = repeated(inputs, points), betas.reshape(-1)
    flat = tuple(a.reshape(points * batch, *a.shape[2:]) for a in u)
    force = network.force(shown.clamped, network.activities(flat), shown.y, at)
    source = tuple(f - a for f, a in zip(force, flat, strict=True))
    small = jnp.all(largest(source).reshape(points, batch) <= fine[None])
    resolvent = Resolvent(network, shown, flat, beta=at)
    found = lax.cond(small, lambda source: source, lambda r: resolvent.approximately(r, ACCURACY, SWEEPS), source)
    return tuple(a.reshape(b.shape) for a, b in zip(found, u, strict=True))


def _at_half(circle: Circle, potentials: Layers, free: Layers) -> Layers:
    """Where the points would about lie at half the amplitude: the coefficients that they hold, each at its power."""
    free = tuple(a.real for a in free)
    found = tuple(jnp.broadcast_to(b, a.shape).astype(a.dtype) for a, b in zip(potentials, free, strict=True))
    for n in range(1, circle.number + 1):
        turn = (circle.unit / 2) ** n
        terms = circle.coefficient(potentials, free, n)
        found = tuple(a + per_sample(turn, a) * c[None] for a, c in zip(found, terms, strict=True))
    return found
