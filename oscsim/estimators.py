r"""Estimators: from a network, inputs and targets to the gradient of the mean loss, each by its own physics.

Every estimator is called the same way, `estimator(net, x, y, key=None)`, and returns an `Estimate`.
"""

import abc
import math
from typing import Any, Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from oscsim._arrays import (
    all_finite,
    as_count,
    as_scalar,
    describe,
    is_traced,
    require_positive,
    to_complex,
)
from oscsim.cycle import Cycle, Plan, advance, begin, check_drive
from oscsim.demodulation import AbstractDemodulator, Reading
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    exact_solution,
    require_settled,
    settle,
    settle_inputs,
)
from oscsim.errors import DivergenceError
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.noise import StepNoise
from oscsim.noise.base import as_noises, require_noise_key
from oscsim.readings import Points, require_turning
from oscsim.teaching import check_points, teaching_circle


class Estimate(eqx.Module):
    """What an estimator returns.

    Attributes:
        gradient: of the mean loss, a pytree like `parameters(net)`.
        loss: the mean loss at the activities that the estimator takes for the free equilibrium.
        activities: those activities, one (batch, neurons) array per layer.
        valid: whether the neurons settled, or did not diverge. Under jit nothing can be raised: look here.
    """

    gradient: Any
    loss: Float[Array, ""]
    activities: Layers
    valid: Bool[Array, ""]


class AbstractEstimator(eqx.Module):
    """A way to obtain the gradient of the mean loss of a batch."""

    @abc.abstractmethod
    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        """The estimate for one batch; works under jit, where nothing is raised."""


def _estimate(net: AbstractNetwork, inputs: Inputs, gradient: Any, activities: Layers, valid: Array) -> Estimate:
    real = tuple(layer.real for layer in activities)
    return Estimate(gradient, jnp.mean(net.loss(inputs.clamped, real, inputs.y)), real, valid)


class LockIn(AbstractEstimator):
    r"""The oscillation itself: drive with a turning signal, demodulate, and read the gradient off the coefficients.

    Exact in amplitude; the finite period leaves a bias of $O((\omega\tau)^2)$. With `extrapolate` a second run at half
    the period removes it up to $O((\omega\tau)^4)$: $g = (4\, g(T) - g(T/2)) / 3$.

    Attributes:
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        cycles: how many cycles to run from rest.
        discard: how many of them to leave out at the start.
        extrapolate: Richardson extrapolation over two periods (at equal step size, where steps are fixed).
        noise: what disturbs the neurons, one noise or a tuple; then a key is needed when called.
        cycle: solver, steps, ticks and demodulator, as in `simulate`.

    Raises:
        ValueError: `discard` leaves no cycle, or `steps_per_cycle` is odd with `extrapolate`; when called, as
        `simulate`.

    Source: Laborieux & Zenke (2022), section 4.
    """

    teaching: Any
    cycles: int = eqx.field(static=True)
    discard: int = eqx.field(static=True)
    extrapolate: bool = eqx.field(static=True)
    noise: Any
    cycle: Cycle

    def __init__(
        self,
        teaching: Any,
        *,
        cycles: int = 3,
        discard: int = 1,
        extrapolate: bool = False,
        noise: Any = None,
        demodulator: AbstractDemodulator | None = None,
        ticks: int | None = None,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        steps_per_cycle: int | None = None,
    ):
        cycles = as_count("cycles", cycles)
        if as_count("discard", discard, 0) >= cycles:
            raise ValueError(f"discard={discard} leaves nothing of {cycles} cycles: use 0 to {cycles - 1}")
        if extrapolate and steps_per_cycle is not None and steps_per_cycle % 2:
            raise ValueError(f"steps_per_cycle={steps_per_cycle} with extrapolate: use an even number, half the period "
                             "takes half the steps")  # fmt: skip
        self.teaching, self.cycles, self.discard, self.extrapolate = teaching, int(cycles), int(discard), extrapolate
        as_noises(noise)
        self.noise = noise
        self.cycle = Cycle(solver, stepsize_controller, steps_per_cycle, ticks, demodulator)

    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        check_drive(net, self.teaching)
        noises = as_noises(self.noise)
        require_noise_key(noises, key)
        half = None
        if self.extrapolate:
            half = _at_half_the_period(self.teaching)
            check_drive(net, half)
        inputs = Inputs.of(net, x, y)
        cycle = self.cycle
        if half is not None and noises and cycle.steps_per_cycle is None:  # those of half the period, twice
            plan = cycle.plan(half, net.dtype, self.noise, net.time_constants)
            assert plan.steps_per_cycle is not None  # a plan for noise has equal steps
            cycle = Cycle(cycle.solver, None, 2 * plan.steps_per_cycle, cycle.ticks, cycle.demodulator)
        estimate = self._run(net, inputs, self.teaching, cycle, key)
        if half is None:
            return estimate
        steps = cycle.steps_per_cycle
        if steps is not None:  # equal step size: half the steps, and ticks that divide them
            ticks = None if cycle.ticks is None else math.gcd(cycle.ticks, steps // 2)
            cycle = Cycle(cycle.solver, None, steps // 2, ticks, cycle.demodulator)
        other = jax.random.fold_in(key, 1) if noises and key is not None else key  # noise of its own
        short = self._run(net, inputs, half, cycle, other, shorter=2)
        gradient = jax.tree.map(lambda long, short: (4 * long - short) / 3, estimate.gradient, short.gradient)
        return Estimate(gradient, estimate.loss, estimate.activities, estimate.valid & short.valid)

    def _run(
        self, net: AbstractNetwork, inputs: Inputs, teaching: Any, cycle: Cycle, key: Any, shorter: int = 1
    ) -> Estimate:
        plan = cycle.plan(teaching, net.dtype, self.noise, net.time_constants)
        kept, discard = self.cycles - self.discard, shorter * self.discard  # the same time, in shorter cycles
        counts = np.int32(discard + kept), np.int32(discard)
        reading, diverged = mean_reading(net, inputs, teaching, plan, key, *counts, self.noise)
        if not is_traced(reading):
            if bool(diverged):
                raise DivergenceError(
                    f"the neurons diverged within {self.cycles} cycles of {describe(teaching)}: lower the amplitude "
                    "(see suggest), or run simulate with the same settings to see where"
                )
            require_turning(teaching, reading)
        return _estimate(net, inputs, reading.gradient(net, inputs), reading.mean, ~diverged)


def _at_half_the_period(teaching: Any) -> Any:
    """The same signal, twice as fast."""
    try:
        return eqx.tree_at(lambda signal: signal.period, teaching, teaching.period / 2)
    except Exception as error:
        raise TypeError(
            f"extrapolate=True has to change the period, which is no field of {type(teaching).__name__}: extrapolate "
            "by hand, (4 g(T) - g(T/2)) / 3"
        ) from error


@eqx.filter_jit
def mean_reading(
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    plan: Plan,
    key: Any,
    cycles: Any,
    discard: Any,
    noise: Any = None,
    potentials: Layers | None = None,
) -> tuple[Reading, Array]:
    """The reading averaged over the cycles after the first `discard`, from rest unless the `potentials` are given.

    And whether the neurons diverged.
    """
    state = begin(net, inputs, teaching, cycle=plan, potentials=potentials, noise=noise, key=key)

    def one(number, carry):
        state, total = carry
        state, reading = advance(state, net, inputs, teaching, key, cycle=plan, noise=noise)
        return state, jax.tree.map(lambda t, a: t + jnp.where(number >= discard, a, 0), total, reading)

    state, total = lax.fori_loop(0, cycles, one, (state, state.reading))
    return jax.tree.map(lambda a: a / (cycles - discard), total), state.diverged


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
            remedy = "use two positive integers, free steps and steps per point"
            if not isinstance(steps, (tuple, list)) or len(steps) != 2:
                raise ValueError(f"steps={steps!r}: {remedy}")
            free, nudged = (as_count(f"steps={steps}: entry {i}", n, remedy=remedy) for i, n in enumerate(steps))
            steps = free, nudged
        if steps is not None and tolerance is not None:
            raise ValueError(f"steps={steps} and tolerance={tolerance} exclude each other: give one of them")
        if noise is not None and steps is None:
            raise ValueError("noise needs steps=(T1, T2): a noisy network settles nowhere")
        if noise is not None and not isinstance(noise, StepNoise):
            raise TypeError(f"noise={noise!r}: use StepNoise(standard_deviation)")
        self.tolerance = tolerance
        self.steps = steps
        self.noise = noise

    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        check_parameters(net)
        if self.points > 2:
            require_holomorphic(net, f"Phases with {self.points} complex points")
        inputs = Inputs.of(net, x, y)
        if self.steps is not None:
            if self.noise is not None and key is None:
                raise ValueError("key is None: noise needs a random key, such as jax.random.key(0)")
            estimate = _stepped_phases(net, inputs, self.amplitude, self.points, self.steps, self.noise, key)
            if not is_traced(estimate) and not bool(all_finite((estimate.loss, estimate.gradient))):
                raise DivergenceError(f"the neurons diverged under {describe(self)}: lower the amplitude")
            return estimate
        tolerance = default_tolerance(net.dtype) if self.tolerance is None else self.tolerance
        estimate, free, nudged, betas = _settled_phases(net, inputs, self.amplitude, self.points, tolerance)
        if not is_traced(estimate):
            require_settled(net, inputs, free, 0.0, tolerance)
            for k, beta in enumerate(np.asarray(betas)):
                point = jax.tree.map(lambda a, k=k: a[k], nudged)
                require_settled(net, inputs, point, beta, tolerance)
        return estimate


@eqx.filter_jit
def _settled_phases(
    net: AbstractNetwork, inputs: Inputs, amplitude: Array, points: int, tolerance: float
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
    gradient = reading.gradient(net, inputs, count / points)
    valid = jnp.all(free.residual <= tolerance) & jnp.all(nudged.residual <= tolerance)
    return _estimate(net, inputs, gradient, free.activities, valid), free, nudged, half


@eqx.filter_jit
def _stepped_phases(
    net: AbstractNetwork,
    inputs: Inputs,
    amplitude: Array,
    points: int,
    steps: tuple[int, int],
    noise: StepNoise | None,
    key: Key[Array, ""] | None,
) -> Estimate:
    def iterate(u, beta, count, key):
        def step(number, u):
            u = net.force(inputs.clamped, net.activities(u), inputs.y, beta)
            if noise is None:
                return u
            return noise(u, jax.random.fold_in(key, number))

        return lax.fori_loop(0, count, step, u)

    circle = teaching_circle(amplitude, points, net.dtype)
    if points == 2:
        circle = circle.real
    keys = jax.random.split(jax.random.key(0) if key is None else key, points + 1)
    free = iterate(net.rest(inputs.x.shape[0]), jnp.zeros((), net.dtype), steps[0], keys[-1])

    def point(u, beta_and_key):
        u = iterate(u, beta_and_key[0], steps[1], beta_and_key[1])
        return u, net.activities(u)

    start = to_complex(free) if points > 2 else free
    _, activities = lax.scan(point, start, (circle, keys[:-1]))
    gradient = Points(activities, circle).gradient(net, inputs)
    return _estimate(net, inputs, gradient, net.activities(free), all_finite((free, activities)))


class Classic(AbstractEstimator):
    r"""Classic one-sided equilibrium propagation.

    $g = -\left(\frac{\partial\Phi}{\partial\theta}(s_A, A) - \frac{\partial\Phi}{\partial\theta}(s_0, 0)\right) / A$:
    a free and a nudged equilibrium, both real; biased by $O(A)$.

    Attributes:
        amplitude: $A$, the nudge; its sign is free.

    Raises:
        ValueError: an amplitude of zero, or not finite.
        NotSettledError: one of the two does not settle.

    Source: Scellier & Bengio (2017).
    """

    amplitude: Float[Array, ""]

    def __init__(self, amplitude: Any):
        self.amplitude = as_scalar(amplitude, "amplitude")
        if not is_traced(self.amplitude) and self.amplitude == 0:
            raise ValueError(f"amplitude={float(self.amplitude):g}: use a finite number other than 0")

    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        check_parameters(net)
        inputs = Inputs.of(net, x, y)
        free = settle(net, inputs.x, inputs.y)
        nudged = settle(net, inputs.x, inputs.y, self.amplitude, start=free.potentials)
        tolerance = default_tolerance(net.dtype)
        valid = jnp.all(free.residual <= tolerance) & jnp.all(nudged.residual <= tolerance)
        return _one_sided(net, inputs, self.amplitude, free.activities, nudged.activities, valid)


@eqx.filter_jit
def _one_sided(
    net: AbstractNetwork, inputs: Inputs, amplitude: Array, free: Layers, nudged: Layers, valid: Array
) -> Estimate:
    before = net.plasticity(inputs.x, free, inputs.y, jnp.zeros(()))
    after = net.plasticity(inputs.x, nudged, inputs.y, amplitude)
    return _estimate(net, inputs, jax.tree.map(lambda a, b: (a - b) / amplitude, before, after), free, valid)


class Exact(AbstractEstimator):
    """The exact gradient at the free equilibrium, as `exact_gradient` computes it.

    Attributes:
        method: `"implicit"` or `"bptt"`.

    Raises:
        ValueError: an unknown method.
        NotSettledError: the free network does not settle.
    """

    method: Literal["implicit", "bptt"] = eqx.field(static=True, default="implicit")

    def __check_init__(self):
        if self.method not in ("implicit", "bptt"):
            raise ValueError(f"method={self.method!r}: use 'implicit' or 'bptt'")

    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        check_parameters(net)
        inputs = Inputs.of(net, x, y)
        gradient, free, valid = exact_solution(net, inputs, self.method, default_tolerance(net.dtype), 1000)
        return _estimate(net, inputs, gradient, free.activities, valid)
