"""The oscillation itself: one run from rest, or a stream of inputs under a signal that never stops."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from oscsim.core.arrays import all_finite, is_traced, norm
from oscsim.core.checks import as_count, require_positive
from oscsim.core.errors import DivergenceError
from oscsim.dynamics.average import Average
from oscsim.dynamics.averaging import Counts, averaged
from oscsim.dynamics.demodulation import AbstractDemodulator, require_whole
from oscsim.dynamics.error_bars import TOLERANCE, check_steps, gradient_and_error
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.dynamics.readings import require_turning
from oscsim.dynamics.state import State, divergence, first_state, read_anew
from oscsim.equilibrium import free_equilibrium
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.holomorphy import check_unseen
from oscsim.networks.inputs import Inputs
from oscsim.signals.drive import check_drive
from oscsim.signals.noise import as_noises, require_noise_key
from oscsim.signals.teaching import is_adaptive


class LockIn(AbstractEstimator):
    r"""The oscillation itself: drive with a turning signal, demodulate, and read the gradient off the coefficients.

    Exact in amplitude; the finite period leaves a bias of $O((\omega\tau)^2)$. With `extrapolate` a second run at half
    the period removes it up to $O((\omega\tau)^4)$: $g = (4\, g(T) - g(T/2)) / 3$.

    Attributes:
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        cycles: how many cycles to run, at least.
        discard: how many of them to leave out at the start, and after each change of a sample's amplitude; by default
            those before the network locked.
        extrapolate: Richardson extrapolation over two periods (at equal step size, where steps are fixed).
        noise: what disturbs the neurons, one noise or a tuple; then a key is needed when called.
        cycle: solver, steps, ticks and demodulator, as in `simulate`.
        start: `"rest"`, or `"settled"`: the free equilibrium.
        accuracy: go on until the estimate's own error bar is below this.
        most: how many cycles at most, where samples whose amplitude was lowered, or the accuracy, ask for more; by
            default 4 times `cycles`, 64 times with an accuracy.

    Raises:
        ValueError: `discard` leaves no cycle, or `steps_per_cycle` is odd with `extrapolate`; when called, as
            `simulate`.

    Source: Laborieux & Zenke (2022), section 4.
    """

    teaching: Any
    cycles: int = eqx.field(static=True)
    discard: int | None = eqx.field(static=True)
    extrapolate: bool = eqx.field(static=True)
    noise: Any
    cycle: Cycle
    start: str = eqx.field(static=True)
    accuracy: float | None
    most: int = eqx.field(static=True)

    def __init__(
        self,
        teaching: Any,
        *,
        cycles: int = 3,
        discard: int | None = None,
        extrapolate: bool = False,
        noise: Any = None,
        demodulator: AbstractDemodulator | None = None,
        ticks: int | None = None,
        solver: diffrax.AbstractSolver | None = None,
        stepsize_controller: diffrax.AbstractStepSizeController | None = None,
        steps_per_cycle: int | None = None,
        start: str = "rest",
        accuracy: float | None = None,
        most: int | None = None,
    ):
        cycles = as_count("cycles", cycles)
        if discard is not None and as_count("discard", discard, 0) >= cycles:
            raise ValueError(f"discard={discard} leaves nothing of {cycles} cycles: use 0 to {cycles - 1}")
        if demodulator is not None:
            discard = demodulator.warm_up if discard is None and demodulator.warm_up else discard
            require_whole(demodulator, discard or 0)
            if discard is not None and discard >= cycles:
                raise ValueError(
                    f"cycles={cycles}: the first {discard} readings are not whole, use {discard + 1} or more"
                )
        if start not in ("rest", "settled"):
            raise ValueError(f"start={start!r}: use 'rest' or 'settled'")
        if accuracy is not None:
            require_positive("accuracy", accuracy)
        if most is None:
            most = cycles * (4 if accuracy is None else 64)
        if as_count("most", most) < cycles:
            raise ValueError(f"most={most} is fewer than cycles={cycles}: use {cycles} or more")
        self.start, self.accuracy, self.most = start, None if accuracy is None else float(accuracy), most
        if extrapolate and steps_per_cycle is not None and steps_per_cycle % 2:
            raise ValueError(f"steps_per_cycle={steps_per_cycle} with extrapolate: use an even number, half the period "
                             "takes half the steps")  # fmt: skip
        self.teaching, self.cycles, self.extrapolate = teaching, int(cycles), extrapolate
        self.discard = None if discard is None else int(discard)
        as_noises(noise)
        self.noise = noise
        self.cycle = Cycle(solver, stepsize_controller, steps_per_cycle, ticks, demodulator)

    def init(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> Any:
        """What is carried from batch to batch: the starting amplitude of an `Adaptive` signal; None for any other."""
        check_drive(net, self.teaching)
        check_unseen(net, lambda: inputs)
        return Carried.of(self.teaching, net.dtype) if is_adaptive(self.teaching) else None

    def estimate(
        self, state: Any, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[Any, Estimate]:
        check_drive(net, self.teaching)
        require_noise_key(as_noises(self.noise), key)
        if not self.extrapolate:
            return self._alone(state, net, inputs, key)
        long, half = self._two_periods(net)
        check_drive(net, half.teaching)
        state, estimate = long._alone(state, net, inputs, key)
        other = None if key is None else jax.random.fold_in(key, 1)  # noise of its own
        _, short = half._alone(state, net, inputs, other)
        return state, extrapolated(estimate, short)

    def _alone(
        self, carried: Any, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[Any, Estimate]:
        """One run from its start: what is carried on, and the estimate."""
        lock_in = self if carried is None else self._at(carried.amplitude)
        state, estimate = lock_in.present(lock_in.begin(net, inputs, key, carried), net, inputs, key)
        return None if carried is None else carried.after(self.teaching, state.tuning), estimate

    def _at(self, amplitude: Array) -> "LockIn":
        """The same with a signal that starts at this amplitude."""
        return eqx.tree_at(lambda lock_in: lock_in.teaching, self, self.teaching.at(amplitude))

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

    def begin(
        self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None, carried: Any = None
    ) -> State:
        """The state that the first input is presented to: rest, or settled."""
        plan = as_plan(self.cycle, self.teaching, net, self.noise)
        potentials = free_equilibrium(net, inputs).potentials if self.start == "settled" else None
        state = first_state(net, inputs, self.teaching, cycle=plan, potentials=potentials, noise=self.noise, key=key)
        if carried is None:
            return state
        return eqx.tree_at(lambda s: s.tuning.floor, state, carried.floor)

    def present(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None
    ) -> tuple[State, Estimate]:
        """Show one input for `cycles` cycles, from a state on: the state after them, and the estimate."""
        plan = as_plan(self.cycle, self.teaching, net, self.noise)
        discard = None if self.discard is None else np.int32(self.discard)
        accuracy = None if self.accuracy is None else np.asarray(self.accuracy, net.dtype)
        counts = Counts(np.int32(self.cycles), discard, np.int32(self.most), accuracy)
        state, average, estimate = _presented(state, net, inputs, self.teaching, plan, key, counts, self.noise)
        if not is_traced(estimate):
            if bool(state.diverged):
                raise DivergenceError(divergence(net, self.teaching, state))
            require_turning(self.teaching, average.mean)
            check_steps(net, lambda: inputs, estimate.activities, self.teaching, plan)
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
                start=self.start,
                accuracy=self.accuracy,
            )

        half, fewer = (
            (None, ticks) if steps is None else (steps // 2, None if ticks is None else math.gcd(ticks, steps // 2))
        )
        long = lock_in(self.teaching, self.cycles, self.discard, steps, ticks)
        if self.discard is None:
            return long, lock_in(teaching, 2 * self.cycles, None, half, fewer)
        return long, lock_in(teaching, self.cycles + self.discard, 2 * self.discard, half, fewer)


class Carried(eqx.Module):
    """What an `Adaptive` signal hands on from batch to batch.

    Attributes:
        amplitude: what the next batch starts with.
        floor: the size of the image that noise alone leaves.
    """

    amplitude: Array
    floor: Array

    @staticmethod
    def of(teaching: Any, dtype: Any) -> "Carried":
        """Before the first batch."""
        return Carried(jnp.asarray(teaching.amplitude, dtype), jnp.asarray(jnp.inf, dtype))

    def after(self, teaching: Any, tuning: Any) -> "Carried":
        """After a batch whose amplitudes ended like this."""
        return Carried(teaching.next_start(self.amplitude, tuning), tuning.floor)


class AlwaysOn(AbstractEstimator):
    r"""Learning without phases: the signal turns without interruption, inputs come and go, the state is carried over.

    Each input meets the neurons as the one before left them. After `lock_in.cycles` cycles of it, the readings of those
    that count make the estimate; weights move at that cycle boundary and the next input arrives. Each sample of a
    batch is a stream of its own. Called as a single estimate it starts from rest, as its `LockIn` does.

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

    def init(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The neurons' state before the first input."""
        check_drive(net, self.lock_in.teaching)
        check_unseen(net, lambda: inputs)
        return self.lock_in.begin(net, inputs, key)

    def estimate(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[State, Estimate]:
        """Show the next input: the state after it, and the estimate, which is of this input alone."""
        lock_in = self.lock_in
        plan = as_plan(lock_in.cycle, lock_in.teaching, net, lock_in.noise)
        state = read_anew(state, net, plan)
        if state.tuning is not None:  # amplitudes belong to the inputs: the new ones start where most ended
            start = lock_in.teaching.next_start(jnp.median(state.tuning.amplitude), state.tuning)
            fresh = lock_in.teaching.at(start).begin(inputs.x.shape[0], net.dtype)
            fresh = eqx.tree_at(lambda tuning: tuning.floor, fresh, state.tuning.floor)
            state = eqx.tree_at(lambda s: s.tuning, state, fresh)
        return lock_in.present(state, net, inputs, key)


def extrapolated(long: Estimate, half: Estimate) -> Estimate:
    r"""Richardson extrapolation of an estimate at a period and one at half of it: $(4\, g(T) - g(T/2)) / 3$."""
    gradient = jax.tree.map(lambda a, b: (4 * a - b) / 3, long.gradient, half.gradient)
    residual = jnp.maximum(long.residual, half.residual)
    size = jnp.maximum(norm(gradient), jnp.finfo(residual.dtype).tiny)
    bias = norm(jax.tree.map(jnp.subtract, long.gradient, half.gradient)) / (3 * size)
    assert long.error is not None  # both are of a lock-in, which has one
    assert half.error is not None
    error = long.error.extrapolated(half.error, bias)
    valid = all_finite(gradient) & ~(error.total > TOLERANCE)  # not a number is not above it
    return Estimate(gradient, long.loss, long.activities, residual, valid, error)


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
    counts: "Counts",
    noise: Any,
) -> tuple[State, Average, Estimate]:
    """`averaged`, and the estimate in it."""
    found = averaged(state, net, inputs, teaching, plan, key, counts, noise)
    gradient, error = gradient_and_error(net, inputs, found.average, found.change, teaching, plan, noise)
    valid = ~found.state.diverged & all_finite(gradient)
    return (
        found.state,
        found.average,
        estimate_at(net, inputs, gradient, found.average.mean.mean, found.residual, valid, error),
    )
