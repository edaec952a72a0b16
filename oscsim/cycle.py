r"""One cycle: how a period is integrated, tick by tick. diffrax lives here and nowhere else.

The cycle is the unit of time: one period is integrated from $t = 0$ to $T$, and cycles are counted by an integer. The
tick is the unit of reading: between two ticks diffrax integrates with any explicit solver and any step control; at
each tick the demodulator is shown the activities.
"""

import warnings
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
from oscsim.teaching import fourier_coefficient, signal_during

DEFAULT_TICKS = 64
MAX_STEPS = 4096
"""Adaptive steps within one tick; more are taken for a trajectory that runs into a pole."""

RUNAWAY = 1e6
"""A potential beyond this counts as diverged: the activations are long out of their range."""


class Cycle(eqx.Module):
    """How one period is integrated and read.

    Attributes:
        solver: an explicit diffrax solver; by default `diffrax.Tsit5()`.
        stepsize_controller: a diffrax controller; by default `PIDController` at relative and absolute tolerance 1e-4 in
            float32, 1e-8 in float64. Not with `steps_per_cycle`.
        steps_per_cycle: integrate with so many equal steps instead; a multiple of `ticks`.
        ticks: how often per cycle the demodulator reads; by default 64, or the largest divisor of `steps_per_cycle` up
            to that, or one per plateau of a `Staircase`.
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
            or solver.term_structure is not diffrax.AbstractTerm  # solvers of SDEs and of split systems
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

    def plan(self, teaching: Any, dtype: Any) -> "Plan":
        """The same with every default filled in for this signal and this precision."""
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


def as_plan(cycle: Cycle | Plan, teaching: Any, dtype: Any) -> Plan:
    """The plan for a cycle; a plan is one already."""
    return cycle if isinstance(cycle, Plan) else cycle.plan(teaching, dtype)


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
    """

    potentials: Layers
    cycle: Int[Array, ""]
    demodulator: Any
    reading: Reading
    diverged: Bool[Array, ""]


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
) -> State:
    """The state before the first cycle: the neurons at rest, or at the `potentials` given."""
    plan = as_plan(cycle, teaching, net.dtype)
    u = net.rest(inputs.x.shape[0]) if potentials is None else potentials
    u = to_complex(u)
    beta = jnp.zeros((), complex_of(net.dtype))
    demodulator = plan.demodulator.init(net.activities(u), beta, plan.ticks)
    return State(
        potentials=u,
        cycle=jnp.zeros((), jnp.int32),
        demodulator=demodulator,
        reading=jax.tree.map(jnp.zeros_like, plan.demodulator.read(demodulator)),
        diverged=jnp.zeros((), bool),
    )


def advance(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    key: Key[Array, ""] | None = None,
    *,
    cycle: Cycle | Plan = Cycle(),  # noqa: B008
) -> tuple[State, Reading]:
    """Integrate one cycle and read it: a pure function that works under jit, vmap and grad.

    Args:
        state: from `begin`, or from the cycle before.
        net: the neurons.
        inputs: `Inputs.of(net, x, y)`.
        teaching: the signal, one period of it.
        key: for noise; nothing in a cycle is random without it.
        cycle: solver, steps, ticks and demodulator.

    Returns:
        The state after the cycle, and the reading (`Phasors`, or `Points` from plateaus). Where `state.diverged`, the
        reading is nan and the potentials are the last finite ones; nothing is raised here.
    """
    plan = as_plan(cycle, teaching, net.dtype)
    state, reading, _, _ = advance_watching(state, net, inputs, teaching, key, plan, None)
    return state, reading


def advance_watching(
    state: State,
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    key: Key[Array, ""] | None,
    plan: Plan,
    watch: tuple[Any, ...] | None,
) -> tuple[State, Reading, Watched | None, Effort]:
    """`advance`, with samples of the watched neurons (flat indices into the first sample's layers) and the effort."""
    ticks, demodulator = plan.ticks, plan.demodulator
    length = jnp.asarray(teaching.period / ticks, net.dtype)
    held = getattr(teaching, "points", None) is not None

    def tick(carry, number):
        u, read, diverged, effort, step = carry
        start = number * length
        # A plateau's value is taken at its middle: its ends belong to two plateaus.
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None)
        moved, succeeded, steps = _integrate(u, args, jnp.where(diverged, 0, length), step, plan)
        diverged |= ~(succeeded & _bounded(moved))
        u = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), moved, u)
        s = net.activities(u)
        beta = _signal(length, args)
        read = demodulator.update(read, s, beta, number, ticks)
        effort = jax.tree.map(jnp.add, effort, steps)
        if plan.steps_per_cycle is None:  # an adaptive solver starts each tick with the mean step of the last one
            step = length / jnp.maximum(steps.accepted, 1)
        watched = None if watch is None else Watched(_pick(s, watch), beta)
        return (u, read, diverged, effort, step), watched

    none = jnp.zeros((), jnp.int32)
    carry = (
        state.potentials,
        demodulator.begin(state.demodulator, state.cycle),
        state.diverged,
        Effort(none, none),
        _first_step(net, length, plan),
    )
    (u, read, diverged, effort, _), watched = lax.scan(tick, carry, jnp.arange(ticks))
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), demodulator.read(read))
    return State(u, state.cycle + 1, read, reading, diverged), reading, watched, effort


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


def _velocity(t: Any, packed: tuple[Layers, Layers], args: tuple) -> tuple[Layers, Layers]:
    r"""$\dot u = (-u + \partial\Phi/\partial s) / \tau$ on (real parts, imaginary parts)."""
    net, inputs = args[:2]
    u = tuple(lax.complex(x, y) for x, y in zip(*packed, strict=True))
    force = net.force(inputs.clamped, net.activities(u), inputs.y, _signal(t, args))
    velocity = [(f - v) * (1 / tau) for f, v, tau in zip(force, u, net.time_constants, strict=True)]
    return tuple(v.real for v in velocity), tuple(v.imag for v in velocity)


def _signal(t: Array, args: tuple) -> Array:
    r"""$\beta$ at time `t` of the present tick, as a complex number of the network's precision."""
    net, _, teaching, number, start, middle = args
    beta = signal_during(teaching, number)(start + t if middle is None else middle)
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
        ValueError: a period shorter than $2 \\pi \\tau$; below $50 \\tau$ there is a warning.
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
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        require_holomorphic(net, f"the complex signal {type(teaching).__name__}")
    if is_traced(teaching, net):
        return
    require_positive("period", teaching.period)
    period = float(teaching.period)
    slowest = max(float(jnp.max(tau)) for tau in net.time_constants)
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
    plan = as_plan(cycle, teaching, net.dtype)
    ticks, demodulator = plan.ticks, plan.demodulator
    rate = jnp.asarray(rate, net.dtype)
    length = jnp.asarray(teaching.period / ticks, net.dtype)
    held = getattr(teaching, "points", None) is not None
    first = fourier_coefficient(teaching, 1, net.dtype)
    reference = (1 / first).real, (1 / first).imag  # real: the solver sees no complex number

    def tick(carry, number):
        u, moved, read, diverged, step = carry
        start = number * length
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None)
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
    after = State(u, state.cycle + 1, read, reading, diverged)
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
