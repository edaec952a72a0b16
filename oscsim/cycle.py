r"""One cycle: how a period is integrated, tick by tick. diffrax lives here and nowhere else.

The cycle is the unit of time: one period is integrated from $t = 0$ to $T$, and cycles are counted by an integer. The
tick is the unit of reading: between two ticks diffrax integrates with any explicit solver and any step control; at
each tick the demodulator is shown the activities. Under noise the same solvers take equal steps, one by one, with the
noise as one more term of the equation.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Inexact, Int, Key

from oscsim._arrays import as_count, complex_of, describe, is_traced, require_positive, to_complex
from oscsim.demodulation import AbstractDemodulator, Boxcar, Plateaus, Reading
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters, parameters, require_holomorphic
from oscsim.networks.inputs import Inputs
from oscsim.noise.base import (
    AbstractForcing,
    AbstractNoise,
    AbstractReadoutNoise,
    AbstractTeachingNoise,
    Draw,
    Increment,
    as_noises,
    check_noises,
    is_srk,
    require_noise_key,
)
from oscsim.noise.steps import StepNoise
from oscsim.teaching import fourier_coefficient, signal_during

DEFAULT_TICKS = 64
MAX_STEPS = 4096
"""Adaptive steps within one tick; more are taken for a trajectory that runs into a pole."""

RUNAWAY = 1e6
"""A potential beyond this counts as diverged: the activations are long out of their range."""


class Cycle(eqx.Module):
    """How one period is integrated and read.

    Attributes:
        solver: an explicit diffrax solver; by default `diffrax.Tsit5()`, under noise `diffrax.Heun()`.
        stepsize_controller: a diffrax controller; by default `PIDController` at relative and absolute tolerance 1e-4 in
            float32, 1e-8 in float64. Not with `steps_per_cycle`, and not under noise.
        steps_per_cycle: integrate with so many equal steps instead; a multiple of `ticks`. Under noise steps are always
            equal, by default of half the fastest time constant or finer.
        ticks: how often per cycle the demodulator reads; by default 64, or the largest divisor of `steps_per_cycle` up
            to that, or one per plateau of a `Staircase`. Under noise every half time constant or more often, but not
            more often than there are steps: what fluctuates faster than the ticks is folded into the reading.
        demodulator: by default `Plateaus()` for a signal with plateaus, `Boxcar()` for any other.

    Raises:
        TypeError: an implicit solver, or an object of the wrong kind.
        ValueError: counts that are not positive, do not divide, or contradict each other.
    """

    solver: diffrax.AbstractSolver | None = None
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    steps_per_cycle: int | None = eqx.field(static=True, default=None)
    ticks: int | None = eqx.field(static=True, default=None)
    demodulator: AbstractDemodulator | None = None

    def __check_init__(self):
        solver, controller, demodulator = self.solver, self.stepsize_controller, self.demodulator
        if solver is not None and (
            not isinstance(solver, diffrax.AbstractSolver)
            or isinstance(solver, diffrax.AbstractImplicitSolver)
            # solvers of split systems, and of SDEs other than those under `noise`
            or not (solver.term_structure is diffrax.AbstractTerm or isinstance(solver, (diffrax.ShARK, diffrax.SRA1)))
        ):
            raise TypeError(f"solver={solver!r}: use an instance of an explicit ODE solver, such as diffrax.Tsit5()")
        if controller is not None and not isinstance(controller, diffrax.AbstractStepSizeController):
            raise TypeError(
                f"stepsize_controller={controller!r}: use an instance, such as diffrax.PIDController(1e-6, 1e-6)"
            )
        if demodulator is not None and not isinstance(demodulator, AbstractDemodulator):
            raise TypeError(f"demodulator={demodulator!r}: use an instance of a demodulator, such as Boxcar()")
        for name in ("steps_per_cycle", "ticks"):
            if getattr(self, name) is not None:
                as_count(name, getattr(self, name))
        if self.steps_per_cycle is not None and self.stepsize_controller is not None:
            raise ValueError(
                "steps_per_cycle and stepsize_controller exclude each other: give equal steps or a controller"
            )
        if self.steps_per_cycle is not None and self.ticks is not None and self.steps_per_cycle % self.ticks:
            raise ValueError(
                f"steps_per_cycle={self.steps_per_cycle} is not a multiple of ticks={self.ticks}: use "
                f"{self.ticks * max(1, round(self.steps_per_cycle / self.ticks))}, or leave ticks out"
            )

    def plan(self, teaching: Any, dtype: Any, noise: Any = None, time_constants: Any = (1.0,)) -> "Plan":
        """The same with every default filled in for this signal, precision, noise, and the neurons' time constants.

        Raises:
            ValueError: settings that contradict each other, the signal or the noise.
            TypeError: something in `noise` is no noise.
        """
        noises = as_noises(noise)
        if noises:
            return self._noisy(teaching, dtype, noises, tuple(jnp.asarray(tau) for tau in time_constants))
        if is_srk(self.solver):
            raise ValueError(f"solver={self.solver!r} is for noise, and there is none: use diffrax.Tsit5()")
        return self._filled(teaching, dtype)

    def _noisy(
        self, teaching: Any, dtype: Any, noises: tuple[AbstractNoise, ...], time_constants: tuple[Array, ...]
    ) -> "Plan":
        """Equal steps, and ticks no coarser than half a time constant."""
        if self.stepsize_controller is not None:
            raise ValueError(
                f"stepsize_controller={type(self.stepsize_controller).__name__}() with noise, whose orders hold for "
                "equal steps: leave it out, or use steps_per_cycle"
            )
        per_step = any(isinstance(noise, StepNoise) for noise in noises)
        solver = self.solver or (diffrax.Euler() if per_step else diffrax.Heun())
        steps, ticks = self.steps_per_cycle, self.ticks or getattr(teaching, "points", None)
        needed = None
        if not is_traced(teaching, time_constants):
            fastest = min(float(np.min(np.asarray(tau))) for tau in time_constants)
            spans = float(teaching.period) / fastest * (1 if per_step else 2)
            needed = max(1, round(spans) if math.isclose(spans, round(spans), rel_tol=1e-5) else math.ceil(spans))
        elif steps is None:
            raise ValueError(
                "steps_per_cycle is None, and noise needs equal steps, whose number cannot follow from a period or a "
                "time constant that is traced: give steps_per_cycle, two per time constant or more"
            )
        if steps is None and needed is not None:
            # a multiple of 8, so that steps divide into blocks (see `_scan_in_blocks`)
            fewest = needed if per_step else max(DEFAULT_TICKS, 8 * math.ceil(needed / 8))
            steps = fewest if ticks is None else ticks * math.ceil(needed / ticks)
        if ticks is None and steps is not None:  # the fewest that are fine enough; every step where none are
            divisors = (d for d in range(1, steps + 1) if steps % d == 0)
            ticks = steps if needed is None else next((d for d in divisors if d >= max(needed, DEFAULT_TICKS)), steps)
        plan = Cycle(solver, None, steps, ticks, self.demodulator)._filled(teaching, dtype)
        assert plan.steps_per_cycle is not None  # given, or filled in above
        step = None if is_traced(teaching) else float(teaching.period) / plan.steps_per_cycle
        check_noises(noises, plan.solver, step, time_constants)
        return plan

    def _filled(self, teaching: Any, dtype: Any) -> "Plan":
        points = getattr(teaching, "points", None)
        ticks = self.ticks or points or largest_divisor(self.steps_per_cycle, DEFAULT_TICKS)
        if points is not None and ticks % points:
            raise ValueError(f"ticks={ticks} is not a multiple of the signal's {points} plateaus: use {points}")
        demodulator = self.demodulator or (Plateaus() if points is not None else Boxcar())
        if isinstance(demodulator, Plateaus) and ticks != points:
            raise ValueError(
                f"ticks={ticks} with Plateaus(), which reads once per plateau of a signal with points={points}: use a "
                "Staircase and leave ticks out, or use Boxcar()"
            )
        if ticks < demodulator.fewest_ticks:
            raise ValueError(
                f"ticks={ticks} are too few to tell the harmonics apart, at least {demodulator.fewest_ticks} are needed"
                + (
                    ""
                    if self.steps_per_cycle is None or self.ticks
                    else f" and steps_per_cycle={self.steps_per_cycle} "
                    f"has no such divisor: use {DEFAULT_TICKS * max(1, round(self.steps_per_cycle / DEFAULT_TICKS))}"
                )
            )
        controller = self.stepsize_controller
        if self.steps_per_cycle is not None:
            if self.steps_per_cycle % ticks:
                raise ValueError(
                    f"steps_per_cycle={self.steps_per_cycle} is not a multiple of the {ticks} ticks of this signal: "
                    f"use {ticks * max(1, round(self.steps_per_cycle / ticks))}"
                )
            controller = diffrax.ConstantStepSize()
        elif controller is None:
            tolerance = 1e-8 if jnp.dtype(dtype) == jnp.float64 else 1e-4
            controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        elif isinstance(controller, (diffrax.ConstantStepSize, diffrax.StepTo)):
            raise ValueError(
                f"stepsize_controller={type(controller).__name__}() leaves the steps within a tick open: use "
                "steps_per_cycle"
            )
        solver = diffrax.Tsit5() if self.solver is None else self.solver
        if self.steps_per_cycle is None and not isinstance(solver, diffrax.AbstractAdaptiveSolver):
            raise ValueError(
                f"solver={solver!r} estimates no error, so its steps cannot adapt: give steps_per_cycle, or use an "
                "adaptive solver such as diffrax.Tsit5()"
            )
        return Plan(solver, controller, self.steps_per_cycle, ticks, demodulator)


class Plan(eqx.Module):
    """A `Cycle` with every default filled in.

    Attributes:
        solver, stepsize_controller, steps_per_cycle, ticks, demodulator: as in `Cycle`.
    """

    solver: diffrax.AbstractSolver
    stepsize_controller: diffrax.AbstractStepSizeController
    steps_per_cycle: int | None = eqx.field(static=True)
    ticks: int = eqx.field(static=True)
    demodulator: AbstractDemodulator


def as_plan(cycle: Cycle | Plan, teaching: Any, net: AbstractNetwork, noise: Any = None) -> Plan:
    """The plan for a cycle; a plan is one already."""
    return cycle if isinstance(cycle, Plan) else cycle.plan(teaching, net.dtype, noise, net.time_constants)


def largest_divisor(steps: int | None, most: int) -> int:
    """The largest divisor of `steps` that is at most `most`; `most` itself where the steps are adaptive."""
    return most if steps is None else max(d for d in range(1, most + 1) if steps % d == 0)


class State(eqx.Module):
    """Where a simulation stands, between two cycles; made by `begin`, moved on by `advance`.

    Attributes:
        potentials: complex $u$, one (batch, neurons) array per layer.
        cycle: how many cycles were run.
        demodulator: the demodulator's own state.
        reading: what was last read.
        diverged: whether the neurons ran away; the potentials are then the last finite ones, the reading is nan.
        noise: the state of each noise, or None.
    """

    potentials: Layers
    cycle: Int[Array, ""]
    demodulator: Any
    reading: Reading
    diverged: Bool[Array, ""]
    noise: Any = None


class Watched(eqx.Module):
    """Samples of a few neurons at every tick of a cycle: what the plots draw.

    Attributes:
        activities: one complex (..., ticks, watched neurons) array per layer.
        teaching: the signal at the same ticks, (..., ticks).
    """

    activities: Layers
    teaching: Inexact[Array, "..."]


class Effort(eqx.Module):
    """What a cycle cost the solver: accepted and rejected steps."""

    accepted: Int[Array, "..."]
    rejected: Int[Array, "..."]


def begin(
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    *,
    cycle: Cycle | Plan = Cycle(),  # noqa: B008
    potentials: Layers | None = None,
    noise: Any = None,
    key: Key[Array, ""] | None = None,
) -> State:
    """The state before the first cycle: the neurons at rest, or at the `potentials` given.

    Where there is noise it needs its key here too, for states of its own.

    Raises:
        ValueError: settings that do not fit each other; noise without a key.
    """
    plan = as_plan(cycle, teaching, net, noise)
    u = net.rest(inputs.x.shape[0]) if potentials is None else potentials
    u = to_complex(u)
    beta = jnp.zeros((), complex_of(net.dtype))
    demodulator = plan.demodulator.init(net.activities(u), beta, plan.ticks)
    return State(
        potentials=u,
        cycle=jnp.zeros((), jnp.int32),
        demodulator=demodulator,
        reading=jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(plan.demodulator.read, demodulator)),
        diverged=jnp.zeros((), bool),
        noise=begin_noise(as_noises(noise), key, u),
    )


def begin_noise(noises: tuple[AbstractNoise, ...], key: Any, u: Layers) -> Any:
    """The state of each noise at the start, drawn from its stationary distribution."""
    if not noises:
        return None
    require_noise_key(noises, key)
    start = jax.random.fold_in(key, np.uint32(2**32 - 1))  # no cycle has this index
    return tuple(noise.init(jax.random.fold_in(start, place), u) for place, noise in enumerate(noises))


first_state = eqx.filter_jit(begin)
"""`begin`, compiled."""


def advance(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    key: Key[Array, ""] | None = None,
    *,
    cycle: Cycle | Plan = Cycle(),  # noqa: B008
    noise: Any = None,
) -> tuple[State, Reading]:
    """Integrate one cycle and read it: a pure function that works under jit, vmap and grad.

    Args:
        state: from `begin`, or from the cycle before.
        net: the neurons.
        inputs: `Inputs.of(net, x, y)`.
        teaching: the signal, one period of it.
        key: for noise, the same one in every cycle: it is folded with the cycle's index.
        cycle: solver, steps, ticks and demodulator.
        noise: what disturbs the neurons, one noise or a tuple; the same as `begin` was given.

    Returns:
        The state after the cycle, and the reading (`Phasors`, or `Points` from plateaus). Where `state.diverged`, the
        reading is nan and the potentials are the last finite ones; nothing is raised here.
    """
    plan = as_plan(cycle, teaching, net, noise)
    state, reading, _, _ = advance_watching(state, net, inputs, teaching, key, plan, None, noise)
    return state, reading


def advance_watching(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    key: Key[Array, ""] | None,
    plan: Plan,
    watch: tuple[Any, ...] | None,
    noise: Any = None,
) -> tuple[State, Reading, Watched | None, Effort]:
    """`advance`, with samples of the watched neurons (flat indices into the first sample's layers) and the effort."""
    ticks, demodulator = plan.ticks, plan.demodulator
    noises = as_noises(noise)
    keys = _noise_keys(noises, state, key, plan)
    length = jnp.asarray(teaching.period / ticks, net.dtype)
    held = getattr(teaching, "points", None) is not None

    def tick(carry, number_and_random):
        (u, read, diverged, effort, step, disturbed), (number, random) = carry, number_and_random
        start = number * length
        # A plateau's value is taken at its middle: its ends belong to two plateaus.
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None, ())
        if noises:
            moved, disturbed, args, steps = _integrate_noisily(u, disturbed, args, length, random, plan, noises)
            succeeded = True
        else:
            moved, succeeded, steps = _integrate(u, args, jnp.where(diverged, 0, length), step, plan)
        diverged |= ~(succeeded & _bounded(moved))
        u = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), moved, u)
        s = net.activities(u)
        beta = _signal(length, args)
        read = demodulator.update(read, _as_read(s, noises, random), beta, number, ticks)
        effort = jax.tree.map(jnp.add, effort, steps)
        if plan.steps_per_cycle is None:  # an adaptive solver starts each tick with the mean step of the last one
            step = length / jnp.maximum(steps.accepted, 1)
        watched = None if watch is None else Watched(_pick(s, watch), beta)
        return (u, read, diverged, effort, step, disturbed), watched

    none = jnp.zeros((), jnp.int32)
    carry = (
        state.potentials,
        demodulator.begin(state.demodulator, state.cycle),
        state.diverged,
        Effort(none, none),
        _first_step(net, length, plan),
        state.noise if noises else None,
    )
    if noises:
        carry, watched = _scan_in_blocks(tick, carry, keys, noises, state.potentials, plan)
    else:
        carry, watched = lax.scan(tick, carry, (jnp.arange(ticks), None))
    u, read, diverged, effort, _, disturbed = carry
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), demodulator.read(read))
    number = jnp.where(state.diverged, state.cycle, state.cycle + 1)  # stands where it diverged, if the caller goes on
    return State(u, number, read, reading, diverged, disturbed), reading, watched, effort


def _first_step(net: AbstractNetwork, length: Array, plan: Plan) -> Array:
    """The step that the first tick starts with: one of the equal steps, or about the fastest time constant."""
    if plan.steps_per_cycle is not None:
        return length / (plan.steps_per_cycle // plan.ticks)
    fastest = jnp.min(jnp.stack([jnp.min(tau) for tau in net.time_constants]))
    return length / jnp.ceil(length / fastest)


def _integrate(u: Layers, args: tuple, length: Array, step: Array, plan: Plan) -> tuple[Layers, Array, Effort]:
    """The potentials after one tick. The solver sees real arrays: (real parts, imaginary parts)."""
    packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u)
    (real, imag), succeeded, effort = _solve(diffrax.ODETerm(_velocity), packed, args, length, step, plan)
    moved = tuple(lax.complex(x, y) for x, y in zip(real, imag, strict=True))
    return moved, succeeded, effort


def _solve(terms: Any, packed: Any, args: Any, length: Array, step: Array, plan: Plan) -> tuple[Any, Array, Effort]:
    """The solution of any equation after one tick, whether it succeeded, and what it cost."""
    solution = diffrax.diffeqsolve(
        terms,
        plan.solver,
        t0=jnp.zeros_like(length),  # time restarts at each tick: no digits are lost to a long past
        t1=length,
        dt0=step,
        y0=packed,
        args=args,
        stepsize_controller=plan.stepsize_controller,
        max_steps=MAX_STEPS if plan.steps_per_cycle is None else plan.steps_per_cycle // plan.ticks + 1,
        throw=False,
    )
    effort = Effort(solution.stats["num_accepted_steps"], solution.stats["num_rejected_steps"])
    return jax.tree.map(lambda a: a[-1], solution.ys), solution.result == diffrax.RESULTS.successful, effort


def _noise_keys(noises: tuple[AbstractNoise, ...], state: State, key: Any, plan: Plan) -> Any:
    """A key for each noise in each step of this cycle, (ticks, steps in a tick); None without noise."""
    if not noises:
        return None
    require_noise_key(noises, key)
    if not isinstance(state.noise, tuple) or len(state.noise) != len(noises):
        raise ValueError("noise is not what the state began with: give begin the same noise, and its key")

    def of_noise(place, noise):
        own = jax.random.fold_in(jax.random.fold_in(key, state.cycle), place)
        each = plan.ticks if isinstance(noise, AbstractReadoutNoise) else plan.steps_per_cycle
        assert each is not None  # a plan for noise has equal steps
        keys = jax.vmap(lambda number: jax.random.fold_in(own, number))(jnp.arange(each, dtype=jnp.uint32))
        return keys.reshape(plan.ticks, each // plan.ticks, *keys.shape[1:])

    return tuple(of_noise(place, noise) for place, noise in enumerate(noises))


BLOCK_STEPS, BLOCK_NUMBERS = 16, 2**20
"""How many steps' random numbers are drawn at a time, and how many numbers of each noise at most."""


def _scan_in_blocks(
    tick: Callable, carry: Any, keys: Any, noises: tuple[AbstractNoise, ...], u: Layers, plan: Plan
) -> tuple[Any, Any]:
    """`lax.scan` over the ticks, with the random numbers of a block of ticks drawn in one go."""
    ticks, area = plan.ticks, is_srk(plan.solver)
    assert plan.steps_per_cycle is not None  # a plan for noise has equal steps
    affordable = BLOCK_NUMBERS // max(1, sum(layer.size for layer in u))
    most = max(1, min(BLOCK_STEPS, affordable) * ticks // plan.steps_per_cycle)
    length = largest_divisor(ticks, most)

    def in_blocks(a):
        return a.reshape(ticks // length, length, *a.shape[1:])

    def block(carry, numbers_and_keys):
        numbers, keys = numbers_and_keys
        random = tuple(
            jax.vmap(jax.vmap(lambda key, noise=noise: noise.random(key, u, area)))(of_noise)
            for noise, of_noise in zip(noises, keys, strict=True)
        )
        return lax.scan(tick, carry, (numbers, random))

    carry, watched = lax.scan(block, carry, jax.tree.map(in_blocks, (jnp.arange(ticks), keys)))
    return carry, jax.tree.map(lambda a: a.reshape(ticks, *a.shape[2:]), watched)


def _as_read(s: Layers, noises: tuple[AbstractNoise, ...], random: Any) -> Layers:
    """The activities as the demodulator sees them at the end of a tick."""
    for place, noise in enumerate(noises):
        if isinstance(noise, AbstractReadoutNoise):
            s = noise.reading(jax.tree.map(lambda a: a[0], random[place]), s)
    return s


class _Forcing(diffrax.AbstractTerm):
    r"""The term $g(s)\, dX / \tau$ of one step; the control is drawn already.

    Attributes:
        net: the neurons.
        noise: which $g$; None for additive noise.
        increment, area: of all additive noises together, or of this one.
    """

    net: AbstractNetwork
    noise: AbstractForcing | None
    increment: Increment
    area: Increment | None

    def vf(self, t: Any, y: tuple[Layers, Layers], args: Any) -> Any:
        rates = tuple(1 / tau for tau in self.net.time_constants)
        if self.noise is None:
            return rates
        amplitude = self.noise.amplitude(self.net.activities(_unpacked(y)))
        assert amplitude is not None  # additive noises come without `noise`
        return tuple(g * rate for g, rate in zip(amplitude, rates, strict=True))

    def contr(self, t0: Any, t1: Any, use_levy: bool = False, **kwargs: Any) -> Any:
        if not use_levy:
            return self.increment
        return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=self.increment, H=self.area)

    def prod(self, vf: Any, control: Increment) -> tuple[Layers, Layers]:
        real = control.real
        imag = tuple(jnp.zeros_like(a) for a in real) if control.imag is None else control.imag
        if self.noise is None:
            real, imag = (tuple(a * rate for a, rate in zip(part, vf, strict=True)) for part in (real, imag))
            return real, imag
        push = [lax.complex(a, b) * g for a, b, g in zip(real, imag, vf, strict=True)]
        return tuple(p.real for p in push), tuple(p.imag for p in push)


def _integrate_noisily(
    u: Layers, states: Any, args: tuple, length: Array, random: Any, plan: Plan, noises: tuple[AbstractNoise, ...]
) -> tuple[Layers, Any, tuple, Effort]:
    """The potentials and the noises after one tick, step by step; and the arguments of its last step."""
    net, inputs, teaching, number, start, middle, _ = args
    assert plan.steps_per_cycle is not None  # a plan for noise has equal steps
    count = plan.steps_per_cycle // plan.ticks
    step = length / count

    def one(carry, position_and_random):
        (packed, states), (position, random) = carry, position_and_random
        states, draws = _drawn(noises, states, random, step, is_srk(plan.solver))
        now = (net, inputs, teaching, number, start + position * step, middle, _jitter(noises, states))
        terms, forcings = diffrax.ODETerm(_velocity), _forcings(net, noises, draws, packed)
        terms = diffrax.MultiTerm(terms, *forcings) if forcings else terms
        origin = jnp.zeros_like(step)  # time restarts at each step: no digits are lost, and every step is equally long
        memory = plan.solver.init(terms, origin, step, packed, now)
        packed = plan.solver.step(terms, origin, step, packed, now, memory, made_jump=False)[0]
        return (packed, states), None

    packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u)
    random = tuple(None if isinstance(n, AbstractReadoutNoise) else r for n, r in zip(noises, random, strict=True))
    (packed, states), _ = lax.scan(one, (packed, states), (jnp.arange(count), random), unroll=count == 1)
    args = (*args[:-1], _jitter(noises, states))
    return _unpacked(packed), states, args, Effort(jnp.asarray(count, jnp.int32), jnp.zeros((), jnp.int32))


def _drawn(
    noises: tuple[AbstractNoise, ...], states: Any, random: Any, step: Array, area: bool
) -> tuple[tuple, dict[int, Draw]]:
    """The states of all noises in the next step, and what the forcings do in it."""
    after, draws = list(states), {}
    for place, noise in enumerate(noises):
        if isinstance(noise, AbstractForcing):
            draws[place] = noise.draw(states[place], random[place], step, area)
            after[place] = draws[place].state
        elif isinstance(noise, AbstractTeachingNoise):
            after[place] = noise.draw(states[place], random[place], step)
    return tuple(after), draws


def _jitter(noises: tuple[AbstractNoise, ...], states: Any) -> tuple:
    """What disturbs the teaching signal, each with its present state."""
    return tuple((n, state) for n, state in zip(noises, states, strict=True) if isinstance(n, AbstractTeachingNoise))


def _forcings(net: AbstractNetwork, noises: tuple[AbstractNoise, ...], draws: dict[int, Draw], packed: Any) -> list:
    """One term for all additive noises together, and one for each whose amplitude depends on the activities."""
    s = net.activities(_unpacked(packed))
    additive, terms = [], []
    for place, draw in draws.items():
        noise = noises[place]
        assert isinstance(noise, AbstractForcing)
        if noise.amplitude(s) is None:
            additive.append(draw)
        else:
            terms.append(_Forcing(net, noise, draw.increment, draw.area))
    if additive:
        areas = None if additive[0].area is None else _total([draw.area for draw in additive], packed[0])
        terms.insert(0, _Forcing(net, None, _total([draw.increment for draw in additive], packed[0]), areas))
    return terms


def _total(increments: list, like: Layers) -> Increment:
    """The sum of increments, each of the shape of the potentials."""

    def summed(parts):
        return tuple(functools.reduce(jnp.add, layers) for layers in zip(*parts, strict=True))

    def full(layers):
        return tuple(jnp.broadcast_to(a, b.shape) for a, b in zip(layers, like, strict=True))

    imag = [full(a.imag) for a in increments if a.imag is not None]
    return Increment(summed([full(a.real) for a in increments]), summed(imag) if imag else None)


def _unpacked(packed: tuple[Layers, Layers]) -> Layers:
    return tuple(lax.complex(x, y) for x, y in zip(*packed, strict=True))


def _velocity(t: Any, packed: tuple[Layers, Layers], args: tuple) -> tuple[Layers, Layers]:
    r"""$\dot u = (-u + \partial\Phi/\partial s) / \tau$ on (real parts, imaginary parts)."""
    net, inputs = args[:2]
    u = _unpacked(packed)
    force = net.force(inputs.clamped, net.activities(u), inputs.y, _signal(t, args))
    velocity = [(f - v) * (1 / tau) for f, v, tau in zip(force, u, net.time_constants, strict=True)]
    return tuple(v.real for v in velocity), tuple(v.imag for v in velocity)


def _signal(t: Array, args: tuple) -> Array:
    r"""$\beta$ at time `t` of the present tick, as a complex number of the network's precision."""
    net, _, teaching, number, start, middle, jitter = args
    signal = signal_during(teaching, number)
    for noise, state in jitter:
        signal = functools.partial(noise.signal, state, signal, period=teaching.period)
    beta = signal(start + t if middle is None else middle)
    return jnp.asarray(beta, complex_of(net.dtype))


def _bounded(u: Layers) -> Array:
    """Whether every potential is finite and in range; nan compares false."""
    parts = [jnp.max(jnp.abs(part)) for layer in u for part in (layer.real, layer.imag)]
    return jnp.all(jnp.stack(parts) < RUNAWAY)


def _pick(s: Layers, watch: tuple[Any, ...]) -> Layers:
    return tuple(layer[0].reshape(-1)[index] for layer, index in zip(s, watch, strict=True))


def check_drive(net: AbstractNetwork, teaching: Any) -> None:
    r"""Refuse a signal that this network cannot follow, or cannot answer exactly.

    Raises:
        NotHolomorphicError: a complex signal meets a network that declares itself non-holomorphic.
        TypeError: the signal has no period or is not callable.
        ValueError: a period shorter than $2 \pi \tau$; below $50 \tau$ there is a warning.
    """
    if not callable(teaching) or not hasattr(teaching, "period"):
        raise TypeError(
            f"teaching={teaching!r}: use a signal with a period that is called with the time, such as Rotating"
        )
    check_parameters(net)
    try:
        value = jax.eval_shape(lambda t: jnp.asarray(teaching(t)), jnp.zeros((), net.dtype))
    except Exception as error:
        raise TypeError(
            f"teaching={teaching!r} cannot be called with a traced time: write it with jax.numpy ({error})"
        ) from error
    if value.shape != ():
        raise ValueError(
            f"teaching={describe(teaching)} returns an array of shape {value.shape}: return one number for all "
            "samples, and use jax.vmap over several signals"
        )
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        require_holomorphic(net, f"the complex signal {type(teaching).__name__}")
    if is_traced(teaching, net):
        return
    require_positive("period", teaching.period)
    period = float(teaching.period)
    slowest = max(float(np.max(np.asarray(tau))) for tau in net.time_constants)
    if not period >= 2 * np.pi * slowest:
        raise ValueError(
            f"period={period:g} is shorter than 2 pi tau = {2 * np.pi * slowest:.3g}; the neurons cannot follow: use "
            f"period >= {50 * slowest:g}"
        )
    if period < 50 * slowest * (1 - 1e-6):
        warnings.warn(
            f"period={period:g} is below 50 tau = {50 * slowest:g}: the neurons lag behind the signal, and the "
            "gradient is biased by O((tau / period)^2)",
            stacklevel=3,
        )


def divergence(net: AbstractNetwork, teaching: Any, state: State) -> str:
    """What to say of neurons that ran away: the cycle, the layer, the signal, and what to change."""
    peaks = [float(jnp.max(jnp.abs(layer))) for layer in state.potentials]
    layer = int(np.argmax(peaks))
    return (
        f"the neurons diverged in cycle {int(state.cycle)}: layer {layer + 1} of {len(peaks)}, last seen at |u| = "
        f"{peaks[layer]:.3g}, under {describe(teaching)}; lower the amplitude (it may be past the convergence radius: "
        "see suggest), or take smaller steps"
    )


# Plastic networks: the weights are part of the equation.


def advance_plastic(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    rate: Any,
    *,
    cycle: Cycle | Plan = Cycle(),  # noqa: B008
) -> tuple[State, Any, Reading]:
    r"""Integrate one cycle of neurons and synapses together: a pure function that works under jit, vmap and grad.

    $\tau \dot u = -u + \frac{\partial\Phi}{\partial s}$ and $\dot\theta = \eta\, \mathrm{Re}\big[e^{-i\omega t}
    \frac{\partial\Phi}{\partial\theta}(t) / a_1\big]$, the mean over the batch, with $a_1$ the teaching signal's own
    first Fourier coefficient. What is integrated is $(\theta - \theta_0) / \eta$, so that a slow rate loses no digits.

    Args:
        state: from `begin`, or from the cycle before.
        net: the neurons, with the weights $\theta_0$ that the cycle starts from.
        inputs: `Inputs.of(net, x, y)`; the clamped part is computed anew as the weights move.
        teaching: the signal, one period of it.
        rate: $\eta$, in units of weight per gradient and time.
        cycle: solver, steps, ticks and demodulator.

    Returns:
        The state after the cycle; how far the parameters moved, a pytree like `parameters(net)` for
        `eqx.apply_updates(net, moved)`; and the reading, which serves whoever watches: no synapse sees it. Where
        `state.diverged`, potentials and parameters are the last finite ones; nothing is raised here.

    Source: Laborieux & Zenke (2022), section 4, with the demodulation left to the slowness of the weights.
    """
    plan = as_plan(cycle, teaching, net)
    ticks, demodulator = plan.ticks, plan.demodulator
    rate = jnp.asarray(rate, net.dtype)
    length = jnp.asarray(teaching.period / ticks, net.dtype)
    held = getattr(teaching, "points", None) is not None
    first = fourier_coefficient(teaching, 1, net.dtype)
    reference = (1 / first).real, (1 / first).imag  # real: the solver sees no complex number

    def tick(carry, number):
        u, moved, read, diverged, step = carry
        start = number * length
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None, ())
        packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u), moved
        term = diffrax.ODETerm(_plastic_velocity)
        solution, succeeded, steps = _solve(
            term, packed, (args, rate, reference), jnp.where(diverged, 0, length), step, plan
        )
        real, imag, new = solution
        new_u = tuple(lax.complex(x, y) for x, y in zip(real, imag, strict=True))
        weights = tuple(jax.tree.leaves(parameters(_moved(net, new, rate))))
        diverged |= ~(succeeded & _bounded(new_u) & _bounded(weights))
        u, moved = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), (new_u, new), (u, moved))
        read = demodulator.update(read, net.activities(u), _signal(length, args), number, ticks)
        if plan.steps_per_cycle is None:
            step = length / jnp.maximum(steps.accepted, 1)
        return (u, moved, read, diverged, step), None

    carry = (
        state.potentials,
        jax.tree.map(jnp.zeros_like, parameters(net)),
        demodulator.begin(state.demodulator, state.cycle),
        state.diverged,
        _first_step(net, length, plan),
    )
    (u, moved, read, diverged, _), _ = lax.scan(tick, carry, jnp.arange(ticks))
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), demodulator.read(read))
    number = jnp.where(state.diverged, state.cycle, state.cycle + 1)
    after = State(u, number, read, reading, diverged, state.noise)
    return after, jax.tree.map(lambda a: rate * a, moved), reading


def _plastic_velocity(t: Any, packed: tuple[Layers, Layers, Any], args: tuple) -> tuple[Layers, Layers, Any]:
    r"""$\dot u$ as in `_velocity`, and $\dot\theta / \eta$: each synapse turns its own product back and follows it."""
    (net, inputs, teaching, _, start, *_), rate, reference = args
    real, imag, moved = packed
    net = _moved(net, moved, rate)
    inputs = Inputs(inputs.x, inputs.y, jax.vmap(net.clamp)(inputs.x))
    now = (net, inputs, *args[0][2:])
    s = net.activities(tuple(lax.complex(x, y) for x, y in zip(real, imag, strict=True)))
    turn = jnp.asarray((start + t) / teaching.period, net.dtype)
    turned_back = lax.complex(*reference) * jnp.exp(-2j * jnp.pi * turn)
    descent = net.plasticity(inputs.x, s, inputs.y, _signal(t, now), turned_back)
    return *_velocity(t, (real, imag), now), descent


def _moved(net: AbstractNetwork, moved: Any, rate: Array) -> AbstractNetwork:
    r"""The network at $\theta_0 + \eta \cdot$ `moved`."""
    return eqx.apply_updates(net, jax.tree.map(lambda a: rate * a, moved))
