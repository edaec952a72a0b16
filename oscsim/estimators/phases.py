"""`Phases`: the gradient from settled points of the teaching circle."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from oscsim.core.arrays import Count, all_finite, is_traced, per_sample, ratio, repeated, sample_norm, to_complex
from oscsim.core.checks import as_flag, as_positive, positive
from oscsim.core.errors import RESULTS, BadValue
from oscsim.dynamics.gradient import Points
from oscsim.equilibrium import Equilibrium, default_tolerance, is_settled, require_settled, settle_inputs
from oscsim.equilibrium.corrected import require_frozen
from oscsim.equilibrium.taylor import continued_to, taylor
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.estimators.points_error import Circle, points_error, truncated
from oscsim.estimators.steps import as_steps, check_step_noise, iterate, movement, require_finite
from oscsim.networks.base import AbstractNetwork, Layers, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.signals import StepNoise
from oscsim.signals.noise import as_noises, require_noise_key
from oscsim.signals.teaching import DROWNED, TOO_LARGE, as_points, teaching_circle


class Phases(AbstractEstimator):
    r"""Settled points of the teaching circle, as in holomorphic equilibrium propagation.

    $g = -\frac1N \mathrm{Re} \sum_k \frac{\partial\Phi}{\partial\theta}(s_k, \beta_k) / \beta_k$ with $\beta_k = A
    e^{2\pi i k/N}$; the error is $O(A^N)$, and $N = 2$ is symmetric equilibrium propagation, with real signals. Since
    $s(\bar\beta) = \overline{s(\beta)}$, only $\lfloor N/2 \rfloor + 1$ points are settled, all in one batch,
    started where the Taylor polynomial of the free state in $\beta$ says that they lie. The estimate's `error` says
    what the amplitude leaves of so many points, and what comes of points that have not settled as far as the nudge asks
    for.

    With `adaptive` each sample has an amplitude of its own. One whose points leave more than 3 % of its response, or do
    not settle, is settled again at half the amplitude, four times at most; the others stay as they are. Carried from
    batch to batch is the amplitude that all samples start with: 0.8 of it where any had to be halved, 1.25 of it, up
    to `amplitude`, where most samples moved by so little that tolerance and rounding leave more than 1 %.

    Attributes:
        amplitude: $A > 0$; with `adaptive`, what every sample of the first batch starts with.
        points: $N$, at least 2.
        tolerance: residual to settle to; by default 1e-12 in float64, 1e-6 in float32.
        steps: `(T1, T2)` runs the plain iteration instead, without any acceleration or symmetry: T1 steps free, then T2
            steps at each of the N points in turn, as the paper does. None settles to the tolerance.
        noise: `StepNoise(...)` at every step, free ones included; needs `steps`, and a key when called.
        adaptive: whether the amplitude is one per sample, and lowered where it is too large.

    Raises:
        ValueError: an amplitude that is not positive, fewer than two points, steps that are not positive, settings that
            exclude each other.
        NotSettledError: a point does not settle; names it.
        NotHolomorphicError: complex points on a network that declares itself non-holomorphic.
        DivergenceError: the steps run away.

    Source: Laborieux & Zenke (2022), eq. (7).

    Example:
        >>> estimate = osc.Phases(amplitude=0.2, points=6)(net, x, y)
        >>> print(osc.relative_error(estimate.gradient, osc.exact_gradient(net, x, y)) < 1e-3)
        True
    """

    amplitude: Float[Array, ""]
    points: int = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    steps: tuple[int, int] | None = eqx.field(static=True)
    noise: StepNoise | None
    adaptive: bool = eqx.field(static=True)
    remedies = (
        "use a smaller amplitude, more points or adaptive=True where the amplitude is too large; a larger one under "
        "noise; a tighter tolerance or more steps where the points do not settle"
    )

    def __init__(
        self,
        amplitude: ArrayLike,
        points: int = 10,
        *,
        tolerance: float | None = None,
        steps: tuple[int, int] | None = None,
        noise: StepNoise | None = None,
        adaptive: bool = False,
    ):
        self.amplitude, self.points = positive("amplitude")(amplitude), as_points(points)
        self.tolerance = None if tolerance is None else as_positive("tolerance", tolerance)
        self.steps = None if steps is None else as_steps(steps)
        self.noise, self.adaptive = noise, as_flag("adaptive", adaptive)
        if self.steps is not None and self.tolerance is not None:
            raise BadValue(f"steps={self.steps} and tolerance={self.tolerance} exclude each other: give one of them")
        check_step_noise(noise, self.steps)
        if self.adaptive and self.steps is not None:
            raise BadValue(f"steps={self.steps} and adaptive=True exclude each other: only settled points are judged")

    def init(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> Array | None:
        """What is carried from batch to batch: the starting amplitude where it is `adaptive`; None elsewhere."""
        return self.amplitude.astype(net.dtype) if self.adaptive else None

    def estimate(
        self, state: Array | None, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[Array | None, Estimate]:
        require_frozen("net", net, "the points, which do not turn")
        if self.points > 2:
            require_holomorphic(net, f"Phases with {self.points} complex points")
        if self.steps is not None:
            require_noise_key(as_noises(self.noise), key)
            steps = np.int32(self.steps[0]), np.int32(self.steps[1])
            estimate = _stepped_phases(net, inputs, self.amplitude, self.points, steps, self.noise, key)
            require_finite(estimate, self)
            return state, estimate
        tolerance = default_tolerance(net.dtype) if self.tolerance is None else self.tolerance
        start = self.amplitude if state is None else state
        highest = self.amplitude if self.adaptive else None
        estimate, free, nudged, circle, following = _settled_phases(
            net, inputs, start, highest, self.points, np.asarray(tolerance)
        )
        if not is_traced(estimate):
            require_settled(net, inputs, free, 0.0, tolerance)
            for k, betas in enumerate(np.asarray(circle.teaching)):
                point = jax.tree.map(lambda a, k=k: a[k], nudged)
                require_settled(net, inputs, point, betas, tolerance)
        return None if state is None else following, estimate


HALVINGS = 4
"""How often the amplitude of a sample is halved at most."""


@eqx.filter_jit
def _settled_phases(
    net: AbstractNetwork,
    inputs: Inputs,
    amplitude: Array,
    highest: Array | None,
    points: int,
    tolerance: ArrayLike,
) -> tuple[Estimate, Equilibrium, Equilibrium, Circle, Array]:
    """The estimate, the states that it comes from, the circle, and the amplitude that the next batch starts with.

    Up to `highest`; None where the amplitude stays what it is.
    """
    free = settle_inputs(net, inputs, jnp.zeros(()), tolerance)
    unit = teaching_circle(jnp.ones(()), points, net.dtype)[: points // 2 + 1]
    unit = unit.real if points == 2 else unit
    # Conjugate partners give the same term: count them twice instead of building them.
    count = jnp.asarray([1 if 2 * k % points == 0 else 2 for k in range(len(unit))], net.dtype)
    batch = inputs.x.shape[0]
    first = Circle(jnp.full(batch, amplitude, net.dtype), unit, count / points, points)

    def settled(circle, start):
        # All points settle in one batch: sample-major within each point.
        shown = repeated(inputs, len(unit))
        flat = tuple(a.reshape(-1, *a.shape[2:]) for a in start)
        found = settle_inputs(net, shown, circle.teaching.reshape(-1), tolerance, start=flat)
        found = Equilibrium(found.potentials, found.activities, found.residual, found.steps)
        return jax.tree.map(lambda a: a.reshape(len(unit), batch, *a.shape[1:]) if a.ndim else a, found)

    coefficients = taylor(net, inputs, free.potentials)

    def begun(circle):
        return continued_to(free.potentials, coefficients, circle.teaching)

    nudged, circle = settled(first, begun(first)), first
    if highest is not None:
        circle, nudged = _lowered(free, tolerance, first, nudged, lambda c, start: settled(c, start(begun(c))))
    reading = Points(nudged.activities, circle.teaching, by_sample=True)
    gradient = reading.gradient(net, inputs, circle.weights, free.activities)
    error = points_error(net, inputs, gradient, circle, free.potentials, nudged.potentials)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(nudged.residual))
    rested = jnp.all(is_settled(free, tolerance)) & jnp.all(is_settled(nudged, tolerance))
    result = RESULTS.where(rested, RESULTS.successful, RESULTS.not_settled)
    estimate = estimate_at(net, inputs, gradient, free.activities, residual, result, error)
    steps = jnp.broadcast_to(nudged.steps, (len(unit),))
    nudged = Equilibrium(nudged.potentials, nudged.activities, nudged.residual, steps)
    following = amplitude
    if highest is not None:
        drowned = jnp.median(jnp.hypot(error.rounding, error.change)) > DROWNED
        higher = jnp.where(drowned, jnp.minimum(1.25 * amplitude, highest.astype(amplitude.dtype)), amplitude)
        lowered = jnp.any(circle.amplitude < first.amplitude)
        following = jnp.where(lowered, 0.8 * amplitude, jnp.maximum(higher, amplitude)).astype(amplitude.dtype)
    return estimate, free, nudged, circle, following


def _lowered(
    free: Equilibrium,
    tolerance: ArrayLike,
    circle: Circle,
    nudged: Equilibrium,
    settled: Callable[[Circle, Callable[[Layers], Layers]], Equilibrium],
) -> tuple[Circle, Equilibrium]:
    """The circle with a lower amplitude for samples that it is too large for, and their points.

    `settled(circle, start)` settles again, from what `start` makes of where points are expected.
    """

    def lost(circle, nudged):
        response = sample_norm(circle.coefficient(nudged.activities, free.activities, 1))
        precision = jnp.finfo(response.dtype).eps
        noise = precision * sample_norm(free.activities) + jnp.max(nudged.residual, axis=0)
        tail = truncated(circle, nudged.activities, free.activities)
        aliased = (tail > TOO_LARGE) & (tail > ratio(3 * noise, response))
        return aliased | ~jnp.all(is_settled(nudged, tolerance), axis=0)

    def wanting(carry):
        halvings, circle, nudged = carry
        return (halvings < HALVINGS) & jnp.any(lost(circle, nudged))

    def lower(carry):
        halvings, circle, nudged = carry
        which = lost(circle, nudged)
        halved = jnp.where(which, circle.amplitude / 2, circle.amplitude)

        def start(expected):  # the others stay where they are
            both = zip(nudged.potentials, expected, strict=True)
            return tuple(jnp.where(per_sample(which[None], a), b.astype(a.dtype), a) for a, b in both)

        circle = eqx.tree_at(lambda c: c.amplitude, circle, halved)
        return halvings + 1, circle, settled(circle, start)

    return lax.while_loop(wanting, lower, (0, circle, nudged))[1:]


@eqx.filter_jit
def _stepped_phases(
    net: AbstractNetwork,
    inputs: Inputs,
    amplitude: Array,
    points: int,
    steps: tuple[Count, Count],
    noise: StepNoise | None,
    key: Key[Array, ""] | None,
) -> Estimate:
    unit = teaching_circle(jnp.ones(()), points, net.dtype)
    circle = teaching_circle(amplitude, points, net.dtype)
    if points == 2:
        unit, circle = unit.real, circle.real
    keys = jax.random.split(jax.random.key(0) if key is None else key, points + 1)
    rest, quiet = net.rest(inputs.x.shape[0]), jnp.zeros((), net.dtype)
    free = iterate(net, inputs, rest, quiet, steps[0], noise, keys[-1])

    def point(u, beta_and_key):
        u = iterate(net, inputs, u, beta_and_key[0], steps[1], noise, beta_and_key[1])
        return u, (u, net.activities(u))

    start = to_complex(free) if points > 2 else free
    _, (potentials, activities) = lax.scan(point, start, (circle, keys[:-1]))
    gradient = Points(activities, circle).gradient(net, inputs, free=net.activities(free))
    residual = movement(net, inputs, free)
    batch, shares = inputs.x.shape[0], jnp.full(points, 1 / points, net.dtype)
    around = Circle(jnp.full(batch, amplitude, net.dtype), unit, shares, points)
    error = points_error(net, inputs, gradient, around, free, potentials, noisy=noise is not None)
    result = RESULTS.where(all_finite((free, activities)), RESULTS.successful, RESULTS.diverged)
    return estimate_at(net, inputs, gradient, net.activities(free), residual, result, error)
