"""The oscillation itself: one run from rest, or a stream of inputs under a signal that never stops."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from oscsim._arrays import as_count, is_traced
from oscsim.cycle import Cycle, Plan, State, advance, as_plan, check_drive, divergence, first_state, read_anew
from oscsim.demodulation import AbstractDemodulator, Reading, require_whole
from oscsim.errors import DivergenceError
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Inputs
from oscsim.noise.base import as_noises, require_noise_key
from oscsim.readings import require_turning, running_mean


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
        if demodulator is not None:
            require_whole(demodulator, discard)
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

    def planned(self, net: AbstractNetwork) -> "LockIn":
        """The same with the steps that its noise asks for, which cannot be found once the period is traced.

        Raises:
            ValueError: settings that contradict each other, the signal or the noise.
        """
        plan = as_plan(self.cycle, self.teaching, net, self.noise)
        if not as_noises(self.noise):
            return self
        steps, ticks = plan.steps_per_cycle, plan.ticks
        if self.extrapolate:
            steps, ticks = self._two_periods(net)[0].cycle.steps_per_cycle, self.cycle.ticks
        cycle = Cycle(self.cycle.solver, None, steps, ticks, self.cycle.demodulator)
        return eqx.tree_at(lambda lock_in: lock_in.cycle, self, cycle)

    def begin(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The state that the first input is presented to: rest."""
        plan = as_plan(self.cycle, self.teaching, net, self.noise)
        return first_state(net, inputs, self.teaching, cycle=plan, noise=self.noise, key=key)

    def present(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[State, Estimate]:
        """Show one input for `cycles` cycles, from a state on: the state after them, and the estimate."""
        plan = as_plan(self.cycle, self.teaching, net, self.noise)
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
            steps = as_plan(self.cycle, teaching, net, self.noise).steps_per_cycle
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

    def planned(self, net: AbstractNetwork) -> "AlwaysOn":
        """The same with the steps that its noise asks for: see `LockIn.planned`."""
        return AlwaysOn(self.lock_in.planned(net))

    def begin(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The state before the first input: rest."""
        check_drive(net, self.lock_in.teaching)
        return self.lock_in.begin(net, inputs, key)

    def present(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[State, Estimate]:
        """Show the next input: the state after it, and the estimate, which is of this input alone."""
        lock_in = self.lock_in
        plan = as_plan(lock_in.cycle, lock_in.teaching, net, lock_in.noise)
        return lock_in.present(read_anew(state, net, plan), net, inputs, key)


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
def _presented(state: State, net: AbstractNetwork, inputs: Inputs, *how: Any) -> tuple[State, Reading, Estimate]:
    """`mean_reading`, with the estimate in it in place of the residual."""
    state, reading, residual = mean_reading(state, net, inputs, *how)
    gradient = reading.gradient(net, inputs)
    return state, reading, estimate_at(net, inputs, gradient, reading.mean, residual, ~state.diverged)


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
