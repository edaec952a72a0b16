"""`Classic`: one-sided equilibrium propagation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key

from oscsim.core.arrays import Count, all_finite, is_traced
from oscsim.core.checks import as_count, as_scalar
from oscsim.core.errors import RESULTS, BadValue
from oscsim.dynamics.gradient import Points, read_points
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    free_equilibrium,
    is_settled,
    require_settled,
    settle_inputs,
)
from oscsim.equilibrium.corrected import require_frozen
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.estimators.points_error import Circle, points_error
from oscsim.estimators.steps import as_steps, check_step_noise, iterate, movement, require_finite
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals import StepNoise
from oscsim.signals.noise import as_noises, require_noise_key


class Classic(AbstractEstimator):
    r"""Classic one-sided equilibrium propagation.

    $g = -\left(\frac{\partial\Phi}{\partial\theta}(s_A, A) - \frac{\partial\Phi}{\partial\theta}(s_0, 0)\right) / A$:
    a free and a nudged equilibrium, both real; biased by $O(A)$. The estimate's `error` says by how much, from what
    would be read at half the nudge, and what comes of a nudge that moves neurons by less than they are settled to.

    Attributes:
        amplitude: $A$, the nudge; its sign is free.
        steps: `(T1, T2)` runs the plain iteration instead of settling: T1 steps free, then T2 steps nudged.
        noise: `StepNoise(...)` at every step; needs `steps`, and a key when called.
        readings: each phase is read so often, one step apart, and the readings of $\partial\Phi/\partial\theta$ are
            averaged: 5 in the authors' noisy runs.

    Raises:
        ValueError: an amplitude of zero, or not finite; counts that are not positive; noise without steps or without a
            key; several readings without noise.
        TypeError: another noise than `StepNoise`.
        NotSettledError: one of the two does not settle.
        DivergenceError: the steps run away.

    Source: Scellier & Bengio (2017).

    Example:
        >>> estimate = osc.Classic(amplitude=0.02)(net, x, y)
        >>> print(f"{osc.cosine(estimate.gradient, osc.exact_gradient(net, x, y)):.2f}")
        1.00
    """

    amplitude: Float[Array, ""]
    steps: tuple[int, int] | None = eqx.field(static=True)
    noise: StepNoise | None
    readings: int = eqx.field(static=True)
    remedies = (
        "use a smaller amplitude, or Phases with more points; under noise a larger amplitude, or more readings; more "
        "steps where the neurons do not settle"
    )

    def __init__(
        self,
        amplitude: ArrayLike,
        *,
        steps: tuple[int, int] | None = None,
        noise: StepNoise | None = None,
        readings: int = 1,
    ):
        self.amplitude = as_scalar("amplitude", amplitude)
        if not is_traced(self.amplitude) and float(self.amplitude) == 0:
            raise BadValue(f"amplitude={float(self.amplitude):g}: use a finite number other than 0")
        self.steps = None if steps is None else as_steps(steps)
        check_step_noise(noise, steps)
        self.noise, self.readings = noise, as_count("readings", readings)
        if self.readings > 1 and noise is None:
            raise BadValue(f"readings={readings} without noise would all be equal: leave it out")

    def estimate(
        self, state: None, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[None, Estimate]:
        require_frozen("net", net, "the nudge, which does not turn")
        if self.steps is not None:
            require_noise_key(as_noises(self.noise), key)
            steps = np.int32(self.steps[0]), np.int32(self.steps[1])
            estimate = _stepped(net, inputs, self.amplitude, steps, self.noise, key, self.readings)
            require_finite(estimate, self)
            return state, estimate
        level = default_tolerance(net.dtype)
        free = free_equilibrium(net, inputs)
        nudged = settle_inputs(net, inputs, self.amplitude, np.asarray(level), start=free.potentials)
        if not is_traced(nudged):
            require_settled(net, inputs, nudged, self.amplitude, level)
        return state, _settled(net, inputs, self.amplitude, free, nudged)


def one_sided(points: Points, net: AbstractNetwork, inputs: Inputs) -> Gradient:
    r"""$-(\frac{\partial\Psi}{\partial\theta}(s_A, s_0, A) - \frac{\partial\Psi}{\partial\theta}(s_0, s_0, 0)) / A$.

    Of two points, the free one first: what neurons hear stays there.
    """
    betas, heard = points.over_samples().teaching, tuple(a[0] for a in points.activities)
    share = 1 / (betas[1] - betas[0]).real
    return read_points(net, inputs, points.activities, heard, betas, jnp.stack([share, -share]))


@eqx.filter_jit
def _settled(
    net: AbstractNetwork, inputs: Inputs, amplitude: Array, free: Equilibrium, nudged: Equilibrium
) -> Estimate:
    amplitude = amplitude.astype(net.dtype)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(nudged.residual))
    activities = tuple(jnp.stack(layers) for layers in zip(free.activities, nudged.activities, strict=True))
    gradient = one_sided(Points(activities, jnp.stack([jnp.zeros_like(amplitude), amplitude])), net, inputs)
    circle = one_point(amplitude, inputs)
    potentials = tuple(a[None] for a in nudged.potentials)
    error = points_error(net, inputs, gradient, circle, free.potentials, potentials)
    level = default_tolerance(net.dtype)
    settled = jnp.all(is_settled(free, level)) & jnp.all(is_settled(nudged, level))
    result = RESULTS.where(settled, RESULTS.successful, RESULTS.not_settled)
    return estimate_at(net, inputs, gradient, free.activities, residual, result, error)


def one_point(amplitude: Array, inputs: Inputs) -> Circle:
    """The one-sided nudge as a circle of one point."""
    one = jnp.ones(1, amplitude.dtype)
    return Circle(jnp.full(inputs.x.shape[0], amplitude), one, one, 1)


@eqx.filter_jit
def _stepped(
    net: AbstractNetwork,
    inputs: Inputs,
    amplitude: Array,
    steps: tuple[Count, Count],
    noise: StepNoise | None,
    key: Key[Array, ""] | None,
    readings: int,
) -> Estimate:
    zero, amplitude = jnp.zeros((), net.dtype), amplitude.astype(net.dtype)

    def phase(u, beta, count, key, heard=None):
        """The potentials at the last reading, and the mean of all."""
        key, key_readings = (None, None) if key is None else tuple(jax.random.split(key))

        def plasticity(u):
            return net.plasticity(inputs.x, net.activities(u), inputs.y, beta, heard=heard)

        def read(number, carry):
            u, total = carry
            own = None if key_readings is None else jax.random.fold_in(key_readings, number)
            u = iterate(net, inputs, u, beta, 1, noise, own)
            return u, jax.tree.map(jnp.add, total, plasticity(u))

        u = iterate(net, inputs, u, beta, count, noise, key)
        u, total = lax.fori_loop(1, readings, read, (u, plasticity(u)))
        return u, jax.tree.map(lambda a: a / readings, total)

    key_free, key_nudged = (None, None) if key is None else jax.random.split(key)
    free, before = phase(net.rest(inputs.x.shape[0]), zero, steps[0], key_free)
    nudged, after = phase(free, amplitude, steps[1], key_nudged, net.activities(free))
    gradient = jax.tree.map(lambda a, b: (a - b) / amplitude, before, after)
    result = RESULTS.where(all_finite((free, nudged)), RESULTS.successful, RESULTS.diverged)
    error = points_error(
        net,
        inputs,
        gradient,
        one_point(amplitude, inputs),
        free,
        tuple(a[None] for a in nudged),
        noisy=noise is not None,
        unknown="" if readings == 1 else MEANS,
    )
    return estimate_at(net, inputs, gradient, net.activities(free), movement(net, inputs, free), result, error)


MEANS = (
    "contamination unknown: the gradient is a mean over readings of noisy states, of which the last alone is known; "
    "compare several estimates"
)
"""Why there is no error bar."""
