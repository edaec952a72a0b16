"""Settings of the integration: the solver, its steps, and how often a cycle is read."""

import math
from typing import ClassVar, TypeAlias

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix
from jax.typing import DTypeLike
from jaxtyping import Array, Int

from oscsim.core.arrays import is_traced
from oscsim.core.checks import MOST, count, optional, require_instance
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings
from oscsim.core.registry import register
from oscsim.dynamics.demodulation import DEMODULATOR, AbstractDemodulator, Boxcar, Plateaus
from oscsim.networks.base import AbstractNetwork, fastest_neuron
from oscsim.signals.noise import AbstractNoise, check_noises, is_srk
from oscsim.signals.teaching import AbstractTeaching

DEFAULT_TICKS = 64

NOISY_STEPS, NOISY_EULER_STEPS, NOISY_TICKS = 4, 32, 2
"""How many steps, and ticks, per fastest time constant there are under noise by default.

In steps of $z$ time constants `Heun` leaves about $1 - z^2/4$ of the variance of a lone neuron under white noise,
`Euler` makes $1 / (1 - z/2)$ of it: 1.8 % too little and 1.6 % too much. `ShARK` and `SRA1` leave 1.2 and 1.1 % less.
"""

MAX_STEPS = 4096
"""Adaptive steps within one tick, at most, where nothing else is asked for."""


def usual_tolerance(dtype: DTypeLike) -> float:
    """Of adaptive steps, in numbers of that type, where nothing else is asked for."""
    return 1e-8 if dtype == np.float64 else 1e-4


ADJOINTS = (diffrax.RecursiveCheckpointAdjoint, diffrax.DirectAdjoint, diffrax.ForwardMode)
"""Those that differentiate the steps themselves; others solve an equation of their own."""

for norm in (optimistix.max_norm, optimistix.rms_norm, optimistix.two_norm):
    register(norm)  # by which controllers measure errors


class Integration(AbstractSettings):
    """How a cycle is integrated: the solver, its steps, and how often the activities are read.

    Attributes:
        solver: an explicit diffrax solver; by default `diffrax.Tsit5()`, under noise `diffrax.Heun()`, under
            `StepNoise` `diffrax.Euler()`.
        stepsize_controller: a diffrax controller; by default `PIDController` at relative and absolute tolerance 1e-4 in
            float32, 1e-8 in float64: the absolute one, in the units of the potentials, suits activations that bend on a
            scale of about 1. Not with `steps_per_cycle`, and not under noise.
        steps_per_cycle: integrate with so many equal steps instead; a multiple of `ticks`. Under noise steps are always
            equal, by default of a quarter of the fastest time constant or finer, with `diffrax.Euler()` of a 32nd, so
            that a lone neuron has the variance that theory gives it, to 2 %; of that time constant under `StepNoise`.
        ticks: how often per cycle the demodulator reads; by default 64, or the largest divisor of `steps_per_cycle` up
            to that, or one per plateau of a `Staircase`. Under noise every half time constant or more often, but not
            more often than there are steps: what fluctuates faster than the ticks is folded into the reading.
        max_steps: how many adaptive steps a tick may take, by default 4096; a `MaxStepsError` says that they were not
            enough. Not with `steps_per_cycle`, and not under noise.
        adjoint: which derivatives can be taken through the steps, by jax: `diffrax.RecursiveCheckpointAdjoint()`, the
            default, first ones in reverse (`jax.grad`), in little memory; `diffrax.ForwardMode()` any in forward mode
            (`jax.jvp`, `jax.jacfwd`); `diffrax.DirectAdjoint()` all of them (`jax.hessian`), at more cost, which grows
            with `max_steps`.

    Raises:
        TypeError: an implicit solver, or an object of the wrong kind.
        ValueError: counts that are not positive, do not divide, or contradict each other.

    Example:
        >>> steps = osc.Integration(diffrax.Heun(), steps_per_cycle=256)
        >>> fixed = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=3, integration=steps)
        >>> print(fixed.effort.accepted)  # solver steps of each cycle
        [256 256 256]
    """

    solver: diffrax.AbstractSolver | None = None
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    steps_per_cycle: int | None = eqx.field(static=True, default=None, converter=optional(count("steps_per_cycle")))
    ticks: int | None = eqx.field(static=True, default=None, converter=optional(count("ticks")))
    max_steps: int | None = eqx.field(static=True, default=None, converter=optional(count("max_steps")))
    adjoint: diffrax.AbstractAdjoint | None = None

    def __check_init__(self):
        solver, controller = self.solver, self.stepsize_controller
        if solver is not None and (
            not isinstance(solver, diffrax.AbstractSolver)
            or isinstance(solver, diffrax.AbstractImplicitSolver)
            # solvers of split systems, and of SDEs other than those under `noise`
            or not (solver.term_structure is diffrax.AbstractTerm or isinstance(solver, (diffrax.ShARK, diffrax.SRA1)))
        ):
            raise BadType(f"solver={solver!r}: use an instance of an explicit ODE solver, such as diffrax.Tsit5()")
        if controller is not None:
            remedy = "use an instance, such as diffrax.PIDController(1e-6, 1e-6)"
            require_instance("stepsize_controller", controller, diffrax.AbstractStepSizeController, remedy)
        if self.adjoint is not None:
            names = ", ".join(f"diffrax.{kind.__name__}()" for kind in ADJOINTS)
            require_instance("adjoint", self.adjoint, ADJOINTS, f"use one of {names}")
        steps, ticks = self.steps_per_cycle, self.ticks
        if steps is not None and self.max_steps is not None:
            raise BadValue(
                f"max_steps={self.max_steps} with steps_per_cycle={steps}: equal steps have no cap; leave max_steps out"
            )
        if steps is not None and controller is not None:
            raise BadValue(
                "steps_per_cycle and stepsize_controller exclude each other: give equal steps or a controller"
            )
        if steps is not None and ticks is not None and steps % ticks:
            raise BadValue(
                f"steps_per_cycle={steps} is not a multiple of ticks={ticks}: use "
                f"{ticks * max(1, round(steps / ticks))}, or leave ticks out"
            )


def require_integration(integration: object) -> None:
    """Refuse what does not say how a cycle is to be integrated, such as a bare solver."""
    require_instance("integration", integration, Integration, "use Integration(solver=..., steps_per_cycle=...)")


class EqualSteps(eqx.Module):
    """So many equal steps a cycle.

    Attributes:
        per_cycle: how many, a multiple of the ticks.
    """

    per_cycle: int = eqx.field(static=True)

    @property
    def controller(self) -> diffrax.AbstractStepSizeController:
        """What diffrax is given."""
        return diffrax.ConstantStepSize()

    def most(self, ticks: int) -> int:
        """How many steps diffrax may take within a tick."""
        return self.per_cycle // ticks + 1

    def first(self, net: AbstractNetwork, length: Array, ticks: int) -> Array:
        """The step that the first tick, of this length, starts with."""
        return length / (self.per_cycle // ticks)

    def next(self, step: Array, length: Array, accepted: Int[Array, ""]) -> Array:
        """The step that the next tick starts with, after one that took so many."""
        return step


class AdaptiveSteps(eqx.Module):
    """Steps that a controller chooses.

    Attributes:
        controller: a diffrax controller.
        cap: how many steps a tick may take; None for `MAX_STEPS`.
    """

    per_cycle: ClassVar[None] = None

    controller: diffrax.AbstractStepSizeController
    cap: int | None = eqx.field(static=True, default=None)

    def most(self, ticks: int) -> int:
        """How many steps diffrax may take within a tick."""
        return self.cap or MAX_STEPS

    def first(self, net: AbstractNetwork, length: Array, ticks: int) -> Array:
        """About the fastest time constant."""
        fastest = jnp.min(jnp.stack([jnp.min(tau) for tau in net.time_constants]))
        return length / jnp.ceil(length / fastest)

    def next(self, step: Array, length: Array, accepted: Int[Array, ""]) -> Array:
        """The mean step of the tick before."""
        return length / jnp.maximum(accepted, 1)


Steps: TypeAlias = EqualSteps | AdaptiveSteps


class Plan(eqx.Module):
    """An `Integration` and a demodulator with every default filled in.

    Attributes:
        solver: a diffrax solver.
        steps: equal or adaptive ones.
        ticks: how often per cycle the demodulator reads.
        demodulator: what reads.
        adjoint: which derivatives can be taken through it; None for those of `diffrax.RecursiveCheckpointAdjoint()`.
    """

    solver: diffrax.AbstractSolver
    steps: Steps
    ticks: int = eqx.field(static=True)
    demodulator: AbstractDemodulator
    adjoint: diffrax.AbstractAdjoint | None = None

    @property
    def steps_per_cycle(self) -> int | None:
        """How many steps a cycle takes; None where they adapt."""
        return self.steps.per_cycle

    @staticmethod
    def of(
        integration: Integration,
        demodulator: AbstractDemodulator | None,
        net: AbstractNetwork,
        teaching: AbstractTeaching,
        noises: tuple[AbstractNoise, ...],
    ) -> "Plan":
        """The plan for these neurons under this signal and these noises.

        Raises:
            ValueError: settings that contradict each other, the signal or the noise.
            TypeError: no demodulator.
        """
        if demodulator is not None:
            demodulator = DEMODULATOR("demodulator", demodulator)
        if noises:
            plan = _noisy(integration, demodulator, net, teaching, noises)
        elif is_srk(integration.solver):
            raise BadValue(f"solver={integration.solver!r} is for noise, and there is none: use diffrax.Tsit5()")
        else:
            plan = _filled(integration, demodulator, net, teaching)
        _require_fine_steps(plan, net, teaching)
        return plan


def _noisy(
    integration: Integration,
    demodulator: AbstractDemodulator | None,
    net: AbstractNetwork,
    teaching: AbstractTeaching,
    noises: tuple[AbstractNoise, ...],
) -> Plan:
    """Equal steps, and ticks no coarser than half a time constant."""
    if integration.stepsize_controller is not None:
        raise BadValue(
            f"stepsize_controller={type(integration.stepsize_controller).__name__}() with noise, whose orders hold for "
            "equal steps: leave it out, or use steps_per_cycle"
        )
    if integration.max_steps is not None:
        raise BadValue(f"max_steps={integration.max_steps} with noise, where steps are equal: leave it out")
    per_step = any(noise.discrete for noise in noises)
    solver = integration.solver or (diffrax.Euler() if per_step else diffrax.Heun())
    spans = None if is_traced(teaching, net.time_constants) else _spans(net, teaching)
    steps, ticks = integration.steps_per_cycle, integration.ticks or teaching.points
    if steps is None:
        if spans is None:
            raise BadValue(
                "steps_per_cycle is None, and noise needs equal steps, whose number cannot follow from a period or a "
                "time constant that is traced: give steps_per_cycle, four per time constant or more"
            )
        usual = NOISY_EULER_STEPS if isinstance(solver, diffrax.Euler) else NOISY_STEPS
        needed = _resolving(spans if per_step else usual * spans)
        fewest = needed if per_step else _in_blocks(needed)
        steps = fewest if ticks is None else ticks * math.ceil(needed / ticks)
        if steps > MOST:
            period = float(teaching.period)
            raise BadValue(f"period={period:g} takes {steps:.2g} steps under noise, {MOST} at most: use a shorter one")
    if ticks is None:  # the fewest that are fine enough; every step where none are
        least = steps if spans is None else max(_resolving(NOISY_TICKS * spans), DEFAULT_TICKS)
        ticks = steps // largest_divisor(steps, max(1, steps // least))
    equal = Integration(solver, None, steps, ticks, adjoint=integration.adjoint)
    plan = _filled(equal, demodulator, net, teaching)
    step = None if is_traced(teaching) else float(teaching.period) / steps
    check_noises(noises, plan.solver, step, net.time_constants)
    return plan


def steps_under_noise(period: float, fastest: float) -> int:
    """How many steps of `Heun` a cycle takes by default under noise, with neurons as fast as that."""
    return _in_blocks(_resolving(NOISY_STEPS * period / fastest))


def _in_blocks(steps: int) -> int:
    """A multiple of 8 that is no fewer, so that steps divide into blocks (see `NoisyNeurons.scan`)."""
    return max(DEFAULT_TICKS, 8 * math.ceil(steps / 8))


def _spans(net: AbstractNetwork, teaching: AbstractTeaching) -> float:
    """How many time constants of the fastest neuron a cycle takes."""
    return float(teaching.period) / fastest_neuron(net.time_constants)


def _resolving(spans: float) -> int:
    """How many steps are no longer than one in so many."""
    return max(1, round(spans) if math.isclose(spans, round(spans), rel_tol=1e-5) else math.ceil(spans))


def _filled(
    integration: Integration, demodulator: AbstractDemodulator | None, net: AbstractNetwork, teaching: AbstractTeaching
) -> Plan:
    """Defaults for the demodulator, the ticks, the steps and the solver."""
    points, per_cycle = teaching.points, integration.steps_per_cycle
    ticks = integration.ticks or points or largest_divisor(per_cycle, DEFAULT_TICKS)
    if points is not None and ticks % points:
        raise BadValue(f"ticks={ticks} is not a multiple of the signal's {points} plateaus: use {points}")
    demodulator = demodulator or (Plateaus() if points is not None else Boxcar())
    _check_ticks(integration, demodulator, ticks, points)
    solver = diffrax.Tsit5() if integration.solver is None else integration.solver
    if per_cycle is not None:
        if per_cycle % ticks:
            raise BadValue(
                f"steps_per_cycle={per_cycle} is not a multiple of the {ticks} ticks of this signal: use "
                f"{ticks * max(1, round(per_cycle / ticks))}"
            )
        return Plan(solver, EqualSteps(per_cycle), ticks, demodulator, integration.adjoint)
    controller = integration.stepsize_controller
    if controller is None:
        tolerance = usual_tolerance(net.dtype)
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
    elif isinstance(controller, (diffrax.ConstantStepSize, diffrax.StepTo)):
        raise BadValue(
            f"stepsize_controller={type(controller).__name__}() leaves the steps within a tick open: use "
            "steps_per_cycle"
        )
    if not isinstance(solver, diffrax.AbstractAdaptiveSolver):
        raise BadValue(
            f"solver={solver!r} estimates no error, so its steps cannot adapt: give steps_per_cycle, or use an "
            "adaptive solver such as diffrax.Tsit5()"
        )
    return Plan(solver, AdaptiveSteps(controller, integration.max_steps), ticks, demodulator, integration.adjoint)


def _check_ticks(integration: Integration, demodulator: AbstractDemodulator, ticks: int, points: int | None) -> None:
    """Refuse ticks that this demodulator cannot read at."""
    if isinstance(demodulator, Plateaus) and ticks != points:
        raise BadValue(
            f"ticks={ticks} with Plateaus(), which reads once per plateau of a signal with points={points}: use a "
            "Staircase and leave ticks out, or use Boxcar()"
        )
    if ticks < demodulator.fewest_ticks:
        steps = integration.steps_per_cycle
        own = steps is not None and not integration.ticks
        remedy = f"use {DEFAULT_TICKS * max(1, round((steps or 0) / DEFAULT_TICKS))}"
        raise BadValue(
            f"ticks={ticks} are too few to tell the harmonics apart, at least {demodulator.fewest_ticks} are needed"
            + (f" and steps_per_cycle={steps} has no such divisor: {remedy}" if own else "")
        )


def _require_fine_steps(plan: Plan, net: AbstractNetwork, teaching: AbstractTeaching) -> None:
    """Refuse equal steps that let the relaxation of the fastest neurons jump to and fro instead of ending."""
    if plan.steps_per_cycle is None or is_traced(teaching, net.time_constants):
        return
    fastest = fastest_neuron(net.time_constants)
    step = float(teaching.period) / plan.steps_per_cycle
    if step >= 2 * fastest * (1 - 1e-6):
        raise BadValue(
            f"steps_per_cycle={plan.steps_per_cycle} makes steps of {step:.3g}, and the fastest neurons have a "
            f"time constant of {fastest:.3g}: use {math.ceil(float(teaching.period) / fastest)} or more"
        )


def largest_divisor(steps: int | None, most: int) -> int:
    """The largest divisor of `steps` that is at most `most`; `most` itself where the steps are adaptive."""
    return most if steps is None else next(d for d in range(most, 0, -1) if steps % d == 0)
