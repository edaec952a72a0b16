"""Settled points of the teaching circle."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from oscsim._arrays import (
    all_finite,
    as_scalar,
    is_traced,
    require_positive,
    to_complex,
)
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    require_settled,
    settle_inputs,
)
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.estimators.steps import as_steps, check_step_noise, iterate, movement, require_finite
from oscsim.networks.base import AbstractNetwork, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.noise import StepNoise
from oscsim.noise.base import as_noises, require_noise_key
from oscsim.readings import Points
from oscsim.teaching import check_points, teaching_circle


class Phases(AbstractEstimator):
    r"""Settled points of the teaching circle, as in holomorphic equilibrium propagation.

    $g = -\frac1N \mathrm{Re} \sum_k \frac{\partial\Phi}{\partial\theta}(s_k, \beta_k) / \beta_k$ with $\beta_k = A
    e^{2\pi i k/N}$; the error is $O(A^N)$, and $N = 2$ is symmetric equilibrium propagation, with real signals. Since
    $s(\bar\beta) = \overline{s(\beta)}$, only $\lfloor N/2 \rfloor + 1$ points are settled, all in one batch and
    warm-started from the free equilibrium.

    Attributes:
        amplitude: $A > 0$.
        points: $N$, at least 2.
        tolerance: residual to settle to; by default 1e-12 in float64, 1e-6 in float32.
        steps: `(T1, T2)` runs the plain iteration instead, without any acceleration or symmetry: T1 steps free, then T2
            steps at each of the N points in turn, as the paper does. None settles to the tolerance.
        noise: `StepNoise(...)` at every step, free ones included; needs `steps`, and a key when called.

    Raises:
        ValueError: an amplitude that is not positive, fewer than two points, steps that are not positive, settings that
            exclude each other.
        NotSettledError: a point does not settle; names it.
        NotHolomorphicError: complex points on a network that declares itself non-holomorphic.

    Source: Laborieux & Zenke (2022), eq. (7).
    """

    amplitude: Float[Array, ""]
    points: int = eqx.field(static=True)
    tolerance: float | None = eqx.field(static=True)
    steps: tuple[int, int] | None = eqx.field(static=True)
    noise: StepNoise | None

    def __init__(
        self,
        amplitude: Any,
        points: int = 10,
        *,
        tolerance: float | None = None,
        steps: tuple[int, int] | None = None,
        noise: StepNoise | None = None,
    ):
        self.amplitude = as_scalar(amplitude, "amplitude")
        require_positive("amplitude", self.amplitude)
        check_points(points)
        self.points = int(points)
        if tolerance is not None:
            require_positive("tolerance", tolerance)
        if steps is not None:
            steps = as_steps(steps)
        if steps is not None and tolerance is not None:
            raise ValueError(f"steps={steps} and tolerance={tolerance} exclude each other: give one of them")
        check_step_noise(noise, steps)
        self.tolerance = tolerance
        self.steps = steps
        self.noise = noise

    def estimate(
        self, state: Any, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[Any, Estimate]:
        if self.points > 2:
            require_holomorphic(net, f"Phases with {self.points} complex points")
        if self.steps is not None:
            require_noise_key(as_noises(self.noise), key)
            steps = np.int32(self.steps[0]), np.int32(self.steps[1])
            estimate = _stepped_phases(net, inputs, self.amplitude, self.points, steps, self.noise, key)
            require_finite(estimate, self)
            return state, estimate
        tolerance = default_tolerance(net.dtype) if self.tolerance is None else self.tolerance
        estimate, free, nudged, betas = _settled_phases(net, inputs, self.amplitude, self.points, np.asarray(tolerance))
        if not is_traced(estimate):
            require_settled(net, inputs, free, 0.0, tolerance)
            for k, beta in enumerate(np.asarray(betas)):
                point = jax.tree.map(lambda a, k=k: a[k], nudged)
                require_settled(net, inputs, point, beta, tolerance)
        return state, estimate


@eqx.filter_jit
def _settled_phases(
    net: AbstractNetwork, inputs: Inputs, amplitude: Array, points: int, tolerance: Any
) -> tuple[Estimate, Equilibrium, Equilibrium, Array]:
    free = settle_inputs(net, inputs, jnp.zeros(()), tolerance)
    circle = teaching_circle(amplitude, points, net.dtype)
    half = circle[: points // 2 + 1]
    if points == 2:
        half = half.real
    batch = inputs.x.shape[0]
    # All points settle in one batch: sample-major within each point.
    repeated = jax.tree.map(lambda a: jnp.tile(a, (len(half), *(1,) * (a.ndim - 1))), (inputs, free.potentials))
    betas = jnp.repeat(half, batch)
    nudged = settle_inputs(net, repeated[0], betas, tolerance, start=repeated[1])
    nudged = Equilibrium(
        *jax.tree.map(
            lambda a: a.reshape(len(half), batch, *a.shape[1:]), (nudged.potentials, nudged.activities, nudged.residual)
        ),
        steps=jnp.broadcast_to(nudged.steps, (len(half),)),
    )
    # Conjugate partners give the same term: count them twice instead of building them.
    count = jnp.asarray([1 if 2 * k % points == 0 else 2 for k in range(len(half))], net.dtype)
    reading = Points(nudged.activities, half)
    gradient = reading.gradient(net, inputs, count / points, free.activities)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(nudged.residual))
    return estimate_at(net, inputs, gradient, free.activities, residual, residual <= tolerance), free, nudged, half


@eqx.filter_jit
def _stepped_phases(
    net: AbstractNetwork,
    inputs: Inputs,
    amplitude: Array,
    points: int,
    steps: tuple[Any, Any],
    noise: StepNoise | None,
    key: Key[Array, ""] | None,
) -> Estimate:
    circle = teaching_circle(amplitude, points, net.dtype)
    if points == 2:
        circle = circle.real
    keys = jax.random.split(jax.random.key(0) if key is None else key, points + 1)
    rest, quiet = net.rest(inputs.x.shape[0]), jnp.zeros((), net.dtype)
    free = iterate(net, inputs, rest, quiet, steps[0], noise, keys[-1])

    def point(u, beta_and_key):
        u = iterate(net, inputs, u, beta_and_key[0], steps[1], noise, beta_and_key[1])
        return u, net.activities(u)

    start = to_complex(free) if points > 2 else free
    _, activities = lax.scan(point, start, (circle, keys[:-1]))
    gradient = Points(activities, circle).gradient(net, inputs, free=net.activities(free))
    residual = movement(net, inputs, free)
    return estimate_at(net, inputs, gradient, net.activities(free), residual, all_finite((free, activities)))
