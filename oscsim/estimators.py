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
from oscsim.cycle import Cycle, Plan, State, advance, check_drive, divergence, first_state
from oscsim.demodulation import AbstractDemodulator, Reading
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    exact_solution,
    require_settled,
    settle_inputs,
)
from oscsim.errors import DivergenceError
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, require_holomorphic, split_parameters
from oscsim.networks.feedforward import FeedForwardNetwork
from oscsim.networks.inputs import Inputs
from oscsim.noise import StepNoise
from oscsim.noise.base import as_noises, require_noise_key
from oscsim.readings import Points, require_turning, running_mean
from oscsim.teaching import check_points, teaching_circle


class Estimate(eqx.Module):
    """What an estimator returns.

    Attributes:
        gradient: of the mean loss, a pytree like `parameters(net)`.
        loss: the mean loss at the activities that the estimator takes for the free equilibrium.
        activities: those activities, one (batch, neurons) array per layer.
        residual: how far from settled: the largest residual of its states, or the lock residual of the last cycle.
        valid: whether the neurons settled, or did not diverge. Under jit nothing can be raised: look here.
    """

    gradient: Any
    loss: Float[Array, ""]
    activities: Layers
    residual: Float[Array, ""]
    valid: Bool[Array, ""]


class AbstractEstimator(eqx.Module):
    """A way to obtain the gradient of the mean loss of a batch."""

    @abc.abstractmethod
    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        """The estimate for one batch; works under jit, where nothing is raised."""


@eqx.filter_jit
def _estimate(
    net: AbstractNetwork, inputs: Inputs, gradient: Any, activities: Layers, residual: Array, valid: Array
) -> Estimate:
    real = tuple(layer.real for layer in activities)
    return Estimate(gradient, jnp.mean(net.loss(inputs.clamped, real, inputs.y)), real, residual, valid)


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
        if demodulator is not None and discard < demodulator.warm_up:
            raise ValueError(
                f"discard={discard}: the first {demodulator.warm_up} readings of {describe(demodulator)} are not "
                f"whole; use discard={demodulator.warm_up} or more, and more cycles than that"
            )
        if extrapolate and steps_per_cycle is not None and steps_per_cycle % 2:
            raise ValueError(f"steps_per_cycle={steps_per_cycle} with extrapolate: use an even number, half the period "
                             "takes half the steps")  # fmt: skip
        self.teaching, self.cycles, self.discard, self.extrapolate = teaching, int(cycles), int(discard), extrapolate
        as_noises(noise)
        self.noise = noise
        self.cycle = Cycle(solver, stepsize_controller, steps_per_cycle, ticks, demodulator)

    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        check_drive(net, self.teaching)
        require_noise_key(as_noises(self.noise), key)
        inputs = Inputs.of(net, x, y)
        if not self.extrapolate:
            return self.present(self.begin(net, inputs, key), net, inputs, key)[1]
        long, half = self._two_periods(net)
        check_drive(net, half.teaching)
        estimate = long.present(long.begin(net, inputs, key), net, inputs, key)[1]
        other = None if key is None else jax.random.fold_in(key, 1)  # noise of its own
        short = half.present(half.begin(net, inputs, other), net, inputs, other)[1]
        gradient = jax.tree.map(lambda long, short: (4 * long - short) / 3, estimate.gradient, short.gradient)
        residual = jnp.maximum(estimate.residual, short.residual)
        return Estimate(gradient, estimate.loss, estimate.activities, residual, estimate.valid & short.valid)

    def begin(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The state that the first input is presented to: rest."""
        plan = self.cycle.plan(self.teaching, net.dtype, self.noise, net.time_constants)
        return first_state(net, inputs, self.teaching, cycle=plan, noise=self.noise, key=key)

    def present(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[State, Estimate]:
        """Show one input for `cycles` cycles, from a state on: the state after them, and the estimate."""
        plan = self.cycle.plan(self.teaching, net.dtype, self.noise, net.time_constants)
        counts = np.int32(self.cycles), np.int32(self.discard)
        state, reading, estimate = _presented(state, net, inputs, self.teaching, plan, key, *counts, self.noise)
        if not is_traced(reading):
            if bool(state.diverged):
                raise DivergenceError(divergence(net, self.teaching, state))
            require_turning(self.teaching, reading)
        return state, estimate

    def _two_periods(self, net: AbstractNetwork) -> tuple["LockIn", "LockIn"]:
        """This one, and one with a signal twice as fast: the same time to forget the start, at the same step size."""
        teaching, steps, ticks = _twice_as_fast(self.teaching), self.cycle.steps_per_cycle, self.cycle.ticks
        if steps is None and as_noises(self.noise):  # under noise steps are equal: those of half the period, twice
            steps = self.cycle.plan(teaching, net.dtype, self.noise, net.time_constants).steps_per_cycle
            steps = None if steps is None else 2 * steps

        def lock_in(teaching, cycles, discard, steps, ticks):
            return LockIn(
                teaching,
                cycles=cycles,
                discard=discard,
                noise=self.noise,
                demodulator=self.cycle.demodulator,
                ticks=ticks,
                solver=self.cycle.solver,
                stepsize_controller=self.cycle.stepsize_controller,
                steps_per_cycle=steps,
            )

        half, fewer = (
            (None, ticks) if steps is None else (steps // 2, None if ticks is None else math.gcd(ticks, steps // 2))
        )
        long = lock_in(self.teaching, self.cycles, self.discard, steps, ticks)
        return long, lock_in(teaching, self.cycles + self.discard, 2 * self.discard, half, fewer)


class AlwaysOn(eqx.Module):
    r"""Learning without phases: the signal turns without interruption, inputs come and go, the state is carried over.

    Each input meets the neurons as the one before left them. After `lock_in.cycles` cycles of it, the readings of all
    but the first `lock_in.discard` of them make the estimate; weights move at that cycle boundary and the next input
    arrives. Each sample of a batch is a stream of its own. For `oscsim.train`; there is no estimate without a past, so
    it is not called as other estimators are.

    Attributes:
        lock_in: signal, cycles per input, cycles to discard after an input arrives, and how to integrate and read.

    Raises:
        TypeError: not a `LockIn`.
        ValueError: one that extrapolates, which needs a second run.
    """

    lock_in: Any

    def __check_init__(self):
        if not isinstance(self.lock_in, LockIn):
            raise TypeError(f"lock_in={self.lock_in!r}: use LockIn(teaching, cycles=..., discard=...)")
        if self.lock_in.extrapolate:
            raise ValueError("lock_in.extrapolate=True needs a second run, and a stream has none: leave it out")

    def begin(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The state before the first input: rest."""
        check_drive(net, self.lock_in.teaching)
        return self.lock_in.begin(net, inputs, key)

    def present(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[State, Estimate]:
        """Show the next input: the state after it, and the estimate."""
        return self.lock_in.present(state, net, inputs, key)


def _twice_as_fast(teaching: Any) -> Any:
    """The same signal, twice as fast."""
    try:
        return eqx.tree_at(lambda signal: signal.period, teaching, teaching.period / 2)
    except Exception as error:
        raise TypeError(
            f"extrapolate=True has to change the period, which is no field of {type(teaching).__name__}: extrapolate "
            "by hand, (4 g(T) - g(T/2)) / 3"
        ) from error


@eqx.filter_jit
def _presented(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    plan: Plan,
    key: Any,
    cycles: Any,
    discard: Any,
    noise: Any,
) -> tuple[State, Reading, Estimate]:
    """The state after some cycles, the mean reading of those after the first `discard`, and the estimate in it."""
    state, reading, residual = mean_reading(state, net, inputs, teaching, plan, key, cycles, discard, noise)
    gradient = reading.gradient(net, inputs)
    return state, reading, _estimate(net, inputs, gradient, reading.mean, residual, ~state.diverged)


def mean_reading(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    plan: Plan,
    key: Any,
    cycles: Any,
    discard: Any,
    noise: Any,
) -> tuple[State, Reading, Array]:
    """The state after some cycles, the mean reading of those after the first `discard`, and the last lock residual."""

    def one(number, carry):
        state, mean, _ = carry
        new, reading = advance(state, net, inputs, teaching, key, cycle=plan, noise=noise)
        return new, running_mean(mean, reading, number - discard), reading.change(state.reading)

    nothing = jax.tree.map(jnp.zeros_like, state.reading), jnp.zeros((), net.dtype)
    return lax.fori_loop(0, cycles, one, (state, *nothing))


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
            steps = np.int32(self.steps[0]), np.int32(self.steps[1])
            estimate = _stepped_phases(net, inputs, self.amplitude, self.points, steps, self.noise, key)
            if not is_traced(estimate) and not bool(all_finite((estimate.loss, estimate.gradient))):
                raise DivergenceError(f"the neurons diverged under {describe(self)}: lower the amplitude")
            return estimate
        tolerance = default_tolerance(net.dtype) if self.tolerance is None else self.tolerance
        estimate, free, nudged, betas = _settled_phases(net, inputs, self.amplitude, self.points, np.asarray(tolerance))
        if not is_traced(estimate):
            require_settled(net, inputs, free, 0.0, tolerance)
            for k, beta in enumerate(np.asarray(betas)):
                point = jax.tree.map(lambda a, k=k: a[k], nudged)
                require_settled(net, inputs, point, beta, tolerance)
        return estimate


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
    gradient = reading.gradient(net, inputs, count / points)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(nudged.residual))
    return _estimate(net, inputs, gradient, free.activities, residual, residual <= tolerance), free, nudged, half


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
    moved = net.force(inputs.clamped, net.activities(free), inputs.y, jnp.zeros((), net.dtype))
    residual = jnp.max(jnp.stack([jnp.max(jnp.abs(a - b)) for a, b in zip(moved, free, strict=True)]))
    return _estimate(net, inputs, gradient, net.activities(free), residual, all_finite((free, activities)))


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
        level = default_tolerance(net.dtype)
        free = settle_inputs(net, inputs, jnp.zeros(()), np.asarray(level))
        nudged = settle_inputs(net, inputs, self.amplitude, np.asarray(level), start=free.potentials)
        if not is_traced(nudged):
            require_settled(net, inputs, free, 0.0, level)
            require_settled(net, inputs, nudged, self.amplitude, level)
        return _one_sided(net, inputs, self.amplitude, free, nudged)


@eqx.filter_jit
def _one_sided(
    net: AbstractNetwork, inputs: Inputs, amplitude: Array, free: Equilibrium, nudged: Equilibrium
) -> Estimate:
    before = net.plasticity(inputs.x, free.activities, inputs.y, jnp.zeros(()))
    after = net.plasticity(inputs.x, nudged.activities, inputs.y, amplitude)
    gradient = jax.tree.map(lambda a, b: (a - b) / amplitude, before, after)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(nudged.residual))
    return _estimate(net, inputs, gradient, free.activities, residual, residual <= default_tolerance(net.dtype))


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
        return _estimate(net, inputs, gradient, free.activities, jnp.max(free.residual), valid)


class Backpropagation(AbstractEstimator):
    """The gradient of a `FeedForwardNetwork` by ordinary backpropagation: the baseline that learns without dynamics."""

    def __call__(self, net: Any, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        """The gradient for one batch.

        Raises:
            TypeError: a network with dynamics, which has other estimators.
        """
        if not isinstance(net, FeedForwardNetwork):
            raise TypeError(f"net is a {type(net).__name__}: use a FeedForwardNetwork, or Exact('bptt') for a network "
                            "with dynamics")  # fmt: skip
        inputs = Inputs.of(net, x, y)
        return _backpropagated(net, inputs)


@eqx.filter_jit
def _backpropagated(net: FeedForwardNetwork, inputs: Inputs) -> Estimate:
    learned, fixed = split_parameters(net)

    def loss(learned):
        net = eqx.combine(learned, fixed)
        return jnp.mean(jax.vmap(lambda x, y: net.cost(net(x), y))(inputs.x, inputs.y))

    value, gradient = jax.value_and_grad(loss)(learned)
    return Estimate(gradient, value, (), jnp.zeros_like(value), all_finite((value, gradient)))
