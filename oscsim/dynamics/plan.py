"""How one period is integrated and read: solver, steps, ticks, demodulator; and whether a network can follow."""

import math
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_count
from oscsim.dynamics.demodulation import AbstractDemodulator, Boxcar, Plateaus
from oscsim.networks.base import (
    AbstractNetwork,
    fastest_neuron,
)
from oscsim.signals.noise import AbstractNoise, as_noises, check_noises, is_srk
from oscsim.signals.step import StepNoise

DEFAULT_TICKS = 64


class Cycle(eqx.Module):
    """How one period is integrated and read.

    Attributes:
        solver: an explicit diffrax solver; by default `diffrax.Tsit5()`, under noise `diffrax.Heun()`, under
            `StepNoise` `diffrax.Euler()`.
        stepsize_controller: a diffrax controller; by default `PIDController` at relative and absolute tolerance 1e-4 in
            float32, 1e-8 in float64. Not with `steps_per_cycle`, and not under noise.
        steps_per_cycle: integrate with so many equal steps instead; a multiple of `ticks`. Under noise steps are always
            equal, by default of half the fastest time constant or finer; of that time constant under `StepNoise`.
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
        plan = self._filled(teaching, dtype)
        plan.require_fine_steps(teaching, time_constants)
        return plan

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
            fastest = fastest_neuron(time_constants)
            spans = float(teaching.period) / fastest * (1 if per_step else 2)
            needed = max(1, round(spans) if math.isclose(spans, round(spans), rel_tol=1e-5) else math.ceil(spans))
        elif steps is None:
            raise ValueError(
                "steps_per_cycle is None, and noise needs equal steps, whose number cannot follow from a period or a "
                "time constant that is traced: give steps_per_cycle, two per time constant or more"
            )
        if steps is None and needed is not None:
            # a multiple of 8, so that steps divide into blocks (see `scan_in_blocks`)
            fewest = needed if per_step else max(DEFAULT_TICKS, 8 * math.ceil(needed / 8))
            steps = fewest if ticks is None else ticks * math.ceil(needed / ticks)
        if ticks is None and steps is not None:  # the fewest that are fine enough; every step where none are
            divisors = (d for d in range(1, steps + 1) if steps % d == 0)
            ticks = steps if needed is None else next((d for d in divisors if d >= max(needed, DEFAULT_TICKS)), steps)
        plan = Cycle(solver, None, steps, ticks, self.demodulator)._filled(teaching, dtype)
        assert plan.steps_per_cycle is not None  # given, or filled in above
        step = None if is_traced(teaching) else float(teaching.period) / plan.steps_per_cycle
        check_noises(noises, plan.solver, step, time_constants)
        plan.require_fine_steps(teaching, time_constants)
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

    def require_fine_steps(self, teaching: Any, time_constants: Any) -> None:
        """Refuse equal steps that let the relaxation of the fastest neurons jump to and fro instead of ending."""
        if self.steps_per_cycle is None or is_traced(teaching, time_constants):
            return
        fastest = fastest_neuron(time_constants)
        step = float(teaching.period) / self.steps_per_cycle
        if step >= 2 * fastest * (1 - 1e-6):
            raise ValueError(
                f"steps_per_cycle={self.steps_per_cycle} makes steps of {step:.3g}, and the fastest neurons have a "
                f"time constant of {fastest:.3g}: use {math.ceil(float(teaching.period) / fastest)} or more"
            )


def as_plan(cycle: Cycle | Plan, teaching: Any, net: AbstractNetwork, noise: Any = None) -> Plan:
    """The plan for a cycle; a plan is one already."""
    return cycle if isinstance(cycle, Plan) else cycle.plan(teaching, net.dtype, noise, net.time_constants)


def largest_divisor(steps: int | None, most: int) -> int:
    """The largest divisor of `steps` that is at most `most`; `most` itself where the steps are adaptive."""
    return most if steps is None else max(d for d in range(1, most + 1) if steps % d == 0)
