"""`LockIn` and `AlwaysOn`: gradients read from an oscillation, in one run or in a stream of inputs."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from oscsim.core.arrays import all_finite, is_traced
from oscsim.core.checks import as_count, as_flag, as_positive, checked, choice
from oscsim.core.errors import RESULTS, BadType, BadValue
from oscsim.dynamics.cycles import Averaged, Counts, averaged
from oscsim.dynamics.demodulation import DEMODULATOR, AbstractDemodulator, require_whole
from oscsim.dynamics.error_bars import gradient_and_error
from oscsim.dynamics.gradient import require_turning
from oscsim.dynamics.integration import Integration, require_integration
from oscsim.dynamics.orbit import locked_start
from oscsim.dynamics.state import State, begin_compiled, failure, read_anew
from oscsim.dynamics.step_error import check_steps
from oscsim.dynamics.system import System
from oscsim.equilibrium import settled_start
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at, richardson
from oscsim.networks.base import AbstractNetwork, Layers, as_network
from oscsim.networks.holomorphy import check_unseen
from oscsim.networks.inputs import Inputs
from oscsim.response.time_scales import check_time_scales
from oscsim.signals.drive import check_drive, turning_coefficient
from oscsim.signals.noise import AbstractNoise, as_noises, require_noise_key
from oscsim.signals.teaching import AbstractAdaptive, AbstractTeaching, Tuning, as_teaching

as_start = choice("rest", "settled", "locked")
"""Where the neurons of a lock-in start."""


class LockIn(AbstractEstimator):
    r"""The gradient from an oscillation: drive with a turning signal, demodulate, read it off the coefficients.

    Exact in amplitude; the finite period leaves a bias of $O((\omega\tau)^2)$. With `extrapolate` a second run at half
    the period removes it up to $O((\omega\tau)^4)$: $g = (4\, g(T) - g(T/2)) / 3$.

    Attributes:
        teaching: the signal, e.g. `Rotating(amplitude=0.4, period=200.0)`.
        cycles: how many cycles to run, at least; with a second number, `(2, 200)`, at most, where samples whose
            amplitude was lowered, or the accuracy, ask for more. By default at most 4 times as many, 64 times with an
            accuracy.
        discard: how many of them to leave out at the start, and after each change of a sample's amplitude; by default
            those before the network locked.
        extrapolate: Richardson extrapolation over two periods (at equal step size, where steps are fixed).
        noise: what disturbs the neurons, one noise or a tuple; then a key is needed when called.
        integration: solver, steps and ticks, as in `simulate`.
        demodulator: how coefficients are read, as in `simulate`.
        start: `"rest"`; `"settled"`, the free equilibrium; or `"locked"`, on the orbit of the network without noise, so
            that nothing is discarded. Under jit a sample for which sweeps, or eight harmonics, find neither starts from
            rest, or settled.
        accuracy: go on until the estimate's own error bar is below this.

    Raises:
        ValueError: `discard` leaves no cycle, or `steps_per_cycle` is odd with `extrapolate`; when called, as
            `simulate`.

    Source: Laborieux & Zenke (2022), section 4.

    Example:
        >>> estimate = osc.LockIn(osc.Rotating(amplitude=0.2, period=100.0), cycles=3)(net, x, y)
        >>> print(f"{osc.cosine(estimate.gradient, osc.exact_gradient(net, x, y)):.2f}")
        1.00
    """

    teaching: AbstractTeaching
    cycles: int = eqx.field(static=True)
    most: int = eqx.field(static=True)
    discard: int | None = eqx.field(static=True)
    extrapolate: bool = eqx.field(static=True)
    remedies = (
        "use Adaptive(period) instead of a fixed amplitude, more cycles under noise, a longer period where neurons lag"
    )
    noises: tuple[AbstractNoise, ...]
    integration: Integration
    demodulator: AbstractDemodulator | None
    start: str = eqx.field(static=True)
    accuracy: float | None

    def __init__(
        self,
        teaching: AbstractTeaching,
        *,
        cycles: int | tuple[int, int] = 3,
        discard: int | None = None,
        extrapolate: bool = False,
        noise: AbstractNoise | tuple[AbstractNoise, ...] | None = None,
        demodulator: AbstractDemodulator | None = None,
        integration: Integration = Integration(),  # noqa: B008
        start: str = "rest",
        accuracy: float | None = None,
    ):
        if accuracy is not None:
            accuracy = as_positive("accuracy", accuracy)
        self.cycles, self.most = _at_least_and_most(cycles, 4 if accuracy is None else 64)
        if discard is not None and as_count("discard", discard, 0) >= self.cycles:
            raise BadValue(f"discard={discard} leaves nothing of {self.cycles} cycles: use 0 to {self.cycles - 1}")
        teaching = as_teaching("teaching", teaching)
        extrapolate = as_flag("extrapolate", extrapolate)
        if demodulator is not None:
            demodulator = DEMODULATOR("demodulator", demodulator)
            discard = demodulator.warm_up if discard is None and demodulator.warm_up else discard
            require_whole(demodulator, discard or 0)
            if discard is not None and discard >= self.cycles:
                raise BadValue(
                    f"cycles={cycles}: the first {discard} readings are not whole, use {discard + 1} or more"
                )
        start = as_start("start", start)
        require_integration(integration)
        steps = integration.steps_per_cycle
        if extrapolate and steps is not None and steps % 2:
            raise BadValue(
                f"steps_per_cycle={steps} with extrapolate: use an even number, half the period takes half the steps"
            )
        self.teaching, self.extrapolate, self.start = teaching, extrapolate, start
        self.discard = None if discard is None else int(discard)
        self.accuracy = accuracy
        self.noises, self.integration, self.demodulator = as_noises(noise), integration, demodulator

    @property
    def adaptive(self) -> AbstractAdaptive | None:
        """The signal, where it tunes its amplitudes."""
        return self.teaching if isinstance(self.teaching, AbstractAdaptive) else None

    def init(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> "Carried | None":
        """What is carried from batch to batch: the starting amplitude of an `Adaptive` signal; None for any other."""
        check_drive(net, self.teaching)
        check_unseen(net, lambda: inputs)
        return None if self.adaptive is None else Carried.of(self.adaptive, net.dtype)

    def estimate(
        self, state: "Carried | None", net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple["Carried | None", Estimate]:
        require_noise_key(self.noises, key)
        if self.extrapolate:
            long, half = self._two_periods(net)
            check_drive(net, half.teaching)  # before the long one runs
            other = None if key is None else jax.random.fold_in(key, 1)  # noise of its own
            after, estimate = long.estimate(state, net, inputs, key)
            return after, extrapolated(estimate, half.estimate(state, net, inputs, other)[1])
        teaching, counts = self.adaptive, self.counts(net.dtype)
        if state is None or teaching is None:
            system = self.system(net)
            start = self.begin(system, inputs, key)
            # Where there may be derivatives the number of cycles is fixed; elsewhere it does not compile anew.
            exactly = self.cycles if self.accuracy is None and is_traced(system, start, inputs, key) else None
            found = averaged(system, start, inputs, counts, key=key, exactly=exactly)
            return None, estimate_in(system, inputs, found)
        system = self._with(teaching.at(state.amplitude)).system(net)
        start = eqx.tree_at(lambda s: s.tuning.floor, self.begin(system, inputs, key), state.floor)
        found = averaged(system, start, inputs, counts, key=key)
        return state.after(teaching, found.state.tuning), estimate_in(system, inputs, found)

    def _with(self, teaching: AbstractTeaching) -> "LockIn":
        """The same with another signal."""
        return eqx.tree_at(lambda lock_in: lock_in.teaching, self, teaching)

    @checked(net=as_network)
    def system(self, net: AbstractNetwork) -> System:
        """The neurons under this signal and noise, and how they are integrated and read.

        Raises:
            ValueError, TypeError, NotHolomorphicError: as `System`.
        """
        return System.of(net, self.teaching, self.noises, self.integration, self.demodulator)

    def planned(self, net: AbstractNetwork) -> "LockIn":
        """The same with the steps that its noise asks for, which cannot be found once the period is traced.

        Raises:
            ValueError: settings that contradict each other, the signal or the noise; a signal that does not turn.
        """
        plan = self.system(net).plan
        turning_coefficient(self.teaching, net.dtype)
        if not self.noises:
            return self
        steps, ticks = plan.steps_per_cycle, plan.ticks
        if self.extrapolate:
            steps, ticks = self._two_periods(net)[0].integration.steps_per_cycle, self.integration.ticks
        integration = Integration(self.integration.solver, None, steps, ticks, adjoint=self.integration.adjoint)
        return eqx.tree_at(lambda lock_in: lock_in.integration, self, integration)

    def begin(self, system: System, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The state that the first input is presented to."""
        return begin_compiled(system, inputs, key=key, start=self.potentials(system, inputs))

    def potentials(self, system: System, inputs: Inputs) -> Layers | None:
        """Where the neurons start: settled, on the orbit, or None for rest."""
        if self.start == "settled":
            return settled_start(system.network, inputs)
        return locked_start(system.network, inputs, system.teaching) if self.start == "locked" else None

    def counts(self, dtype: DTypeLike) -> Counts:
        """How many cycles to run, and which count."""
        discard = None if self.discard is None else np.int32(self.discard)
        accuracy = None if self.accuracy is None else np.asarray(self.accuracy, dtype)
        return Counts(np.int32(self.cycles), np.int32(self.most), discard, accuracy)

    def _two_periods(self, net: AbstractNetwork) -> tuple["LockIn", "LockIn"]:
        """This one, and one with a signal twice as fast: the same time to forget the start, at the same step size."""
        teaching, own = _twice_as_fast(self.teaching), self.integration
        steps, ticks = own.steps_per_cycle, own.ticks
        if steps is None and self.noises:  # under noise steps are equal: those of half the period, twice
            steps = self._with(teaching).system(net).plan.steps_per_cycle
            steps = None if steps is None else 2 * steps

        def lock_in(teaching, cycles, discard, steps, ticks):
            return LockIn(
                teaching,
                cycles=(cycles, max(cycles, self.most)),
                discard=discard,
                noise=self.noises,
                demodulator=self.demodulator,
                integration=dataclasses.replace(own, steps_per_cycle=steps, ticks=ticks),
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


def _at_least_and_most(cycles: int | tuple[int, int], times: int) -> tuple[int, int]:
    """How many cycles at least and at most, from both, or from the first alone."""
    match cycles:
        case (least, most):
            least, most = as_count("cycles", least), as_count("cycles", most)
        case _:
            least = as_count("cycles", cycles)
            most = times * least
    if most < least:
        raise BadValue(f"cycles={cycles}: the second number, how many at most, is below the first; use {least} or more")
    return least, most


class Carried(eqx.Module):
    """What an `Adaptive` signal hands on from batch to batch.

    Attributes:
        amplitude: what the next batch starts with.
        floor: the size of the image that noise alone leaves.
    """

    amplitude: Array
    floor: Array

    @staticmethod
    def of(teaching: AbstractAdaptive, dtype: DTypeLike) -> "Carried":
        """Before the first batch."""
        return Carried(jnp.asarray(teaching.amplitude, dtype), jnp.asarray(jnp.inf, dtype))

    def after(self, teaching: AbstractAdaptive, tuning: Tuning | None) -> "Carried":
        """After a batch whose amplitudes ended like this."""
        if tuning is None:
            return self
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

    Example:
        >>> always = osc.AlwaysOn(osc.LockIn(osc.Rotating(0.2, 100.0), cycles=3))  # for osc.train
        >>> always.streams  # the neurons of one batch go on into the next
        True
    """

    lock_in: LockIn
    streams = True
    remedies = LockIn.remedies

    def __check_init__(self):
        if not isinstance(self.lock_in, LockIn):
            raise BadType(f"lock_in={self.lock_in!r}: use LockIn(teaching, cycles=..., discard=...)")
        if self.lock_in.extrapolate:
            raise BadValue("lock_in.extrapolate=True needs a second run, and a stream has none: leave it out")

    def planned(self, net: AbstractNetwork) -> "AlwaysOn":
        """The same with the steps that its noise asks for: see `LockIn.planned`."""
        return AlwaysOn(self.lock_in.planned(net))

    def warn(self, net: AbstractNetwork, inputs: Inputs) -> None:
        """Warn of inputs that come too fast: see `check_time_scales`."""
        check_time_scales(net, inputs.x, inputs.y, self.lock_in.teaching, self.lock_in.cycles, demodulated=True)

    def init(self, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None) -> State:
        """The neurons' state before the first input."""
        system = self.lock_in.system(net)
        check_unseen(net, lambda: inputs)
        return self.lock_in.begin(system, inputs, key)

    def estimate(
        self, state: State, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[State, Estimate]:
        """Show the next input: the state after it, and the estimate, which is of this input alone."""
        lock_in, system = self.lock_in, self.lock_in.system(net)
        state = read_anew(system, state)
        if state.tuning is not None and lock_in.adaptive is not None:
            state = eqx.tree_at(lambda s: s.tuning, state, lock_in.adaptive.anew(state.tuning))
        found = averaged(system, state, inputs, lock_in.counts(net.dtype), key=key)
        return found.state, estimate_in(system, inputs, found)


def extrapolated(long: Estimate, half: Estimate) -> Estimate:
    r"""Richardson extrapolation of an estimate at a period and one at half of it: $(4\, g(T) - g(T/2)) / 3$."""
    gradient, bias = richardson(long.gradient, half.gradient)
    residual = jnp.maximum(long.residual, half.residual)
    assert long.error is not None  # both are of a lock-in, which has one
    assert half.error is not None
    error = long.error.extrapolated(half.error, bias)
    result = RESULTS.where(all_finite(gradient), error.result, RESULTS.diverged)
    return Estimate(gradient, long.loss, long.activities, residual, result, error)


def _twice_as_fast(teaching: AbstractTeaching) -> AbstractTeaching:
    """The same signal, twice as fast."""
    try:
        return eqx.tree_at(lambda signal: signal.period, teaching, teaching.period / 2)
    except Exception as error:
        raise BadType(
            f"extrapolate=True has to change the period, which is no field of {type(teaching).__name__}: extrapolate "
            "by hand, (4 g(T) - g(T/2)) / 3"
        ) from error


def estimate_in(system: System, inputs: Inputs, found: Averaged) -> Estimate:
    """The estimate in some cycles of one input.

    Raises:
        DivergenceError, MaxStepsError: the neurons ran away, or the solver gave up; not under jit, nor what follows.
        ValueError: the signal does not turn.
    """
    estimate = _read(system, inputs, found)
    if not is_traced(estimate):
        if bool(found.state.diverged):
            raise failure(system, found.state)
        require_turning(system.teaching, found.averages.mean)
        check_steps(system, lambda: inputs, estimate.activities)
    return estimate


@eqx.filter_jit
def _read(system: System, inputs: Inputs, found: Averaged) -> Estimate:
    gradient, error = gradient_and_error(system, inputs, found.averages, found.change)
    intact = ~found.state.diverged & all_finite(gradient)
    result = RESULTS.where(intact, RESULTS.successful, RESULTS.diverged)
    result = RESULTS.where(found.state.exhausted, RESULTS.max_steps_reached, result)
    activities = found.averages.mean.mean
    return estimate_at(system.network, inputs, gradient, activities, found.residual, result, error)
