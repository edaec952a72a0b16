"""The equation of the neurons, and its solution over one tick. The solver sees real arrays."""

import abc
import functools
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Complex, Int, PyTree, Real

from oscsim.core.arrays import complex_of
from oscsim.dynamics.integration import Plan
from oscsim.equilibrium.flow import RUNAWAY
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.signals.noise import AbstractNoise
from oscsim.signals.teaching import AbstractTeaching

Packed = tuple[Layers, Layers]
"""Complex layers as (real parts, imaginary parts)."""

Time = bool | int | float | Array | np.ndarray
"""What diffrax may give as the time."""


class Effort(eqx.Module):
    """What a cycle cost the solver: accepted and rejected steps."""

    accepted: Int[Array, "..."]
    rejected: Int[Array, "..."]


class Arguments(NamedTuple):
    """What the vector field is given beside time and potentials.

    Attributes:
        network: the neurons.
        inputs: what they are shown.
        teaching: the signal of this cycle.
        cycle: its number.
        start: when in the cycle the present tick, or step, starts.
        plateau: the time at which a plateau's value is taken for the whole tick; None where the signal moves.
        noises: what disturbs, each with its state.
    """

    network: AbstractNetwork
    inputs: Inputs
    teaching: AbstractTeaching
    cycle: Int[Array, ""]
    start: Real[Array, ""]
    plateau: Real[Array, ""] | None
    noises: tuple[tuple[AbstractNoise, PyTree], ...] = ()

    def signal(self, t: Time) -> Complex[Array, "..."]:
        r"""$\beta$ at time `t` of the present tick, as a complex number of the network's precision."""
        signal = functools.partial(self.teaching, cycle=self.cycle)
        for noise, state in self.noises:
            signal = functools.partial(noise.signal, state, signal, period=self.teaching.period)
        beta = signal(self.start + t if self.plateau is None else self.plateau)
        return jnp.asarray(beta, complex_of(self.network.dtype))

    def shown(self, t: Time) -> Inputs:
        """What the neurons are shown at time `t` of the present tick."""
        return self.inputs.at(self.network, self.start + t, self.cycle, self.teaching.period)


def velocity(t: Time, packed: Packed, args: Arguments) -> Packed:
    r"""$\dot u = (-u + \partial\Phi/\partial s) / \tau$ on (real parts, imaginary parts)."""
    net, inputs = args.network, args.shown(t)
    u = unpacked(packed)
    force = net.force(inputs.clamped, net.activities(u), inputs.y, args.signal(t))
    rates = [(f - v) * (1 / tau) for f, v, tau in zip(force, u, net.time_constants, strict=True)]
    return tuple(rate.real for rate in rates), tuple(rate.imag for rate in rates)


def packed_of(u: Layers) -> Packed:
    """(Real parts, imaginary parts) from complex layers."""
    return tuple(layer.real for layer in u), tuple(layer.imag for layer in u)


def unpacked(packed: Packed) -> Layers:
    """Complex layers from (real parts, imaginary parts)."""
    return tuple(lax.complex(x, y) for x, y in zip(*packed, strict=True))


def bounded(layers: Layers) -> Bool[Array, ""]:
    """Whether every number is finite and in range; nan compares false."""
    parts = [jnp.max(jnp.abs(part)) for layer in layers for part in (layer.real, layer.imag)]
    return jnp.all(jnp.stack(parts) < RUNAWAY)


CALM = 100.0
"""Forces up to so many times the potentials do not carry neurons away, as a pole near by does."""


def calm(u: Layers, args: Arguments, t: Array) -> Bool[Array, ""]:
    """Whether no neuron is being carried away, by a pole or to infinity, at time `t` of the present tick."""
    net, inputs = args.network, args.shown(t)
    force = net.force(inputs.clamped, net.activities(u), inputs.y, args.signal(t))
    near = [jnp.all(jnp.abs(f) < CALM * (1 + jnp.abs(v))) for f, v in zip(force, u, strict=True)]
    return jnp.all(jnp.stack(near))


Moved = TypeVar("Moved")
"""What an equation moves: the potentials, and what goes with them."""


class Tick(eqx.Module, Generic[Moved]):
    """What one tick of an equation gave.

    Attributes:
        moved: what it moves, after the tick.
        intact: whether the solver succeeded and everything is in range.
        effort: what it cost.
        args: the arguments at its end.
        exhausted: whether the solver ran out of steps while the neurons did not run away.
        noise: what noise added to the force, its mean over the tick; None unless asked for.
    """

    moved: Moved
    intact: Bool[Array, ""]
    effort: Effort
    args: Arguments
    exhausted: Bool[Array, ""]
    noise: Layers | None = None


class AbstractEquation(eqx.Module, Generic[Moved]):
    """An equation that moves the neurons, and how it is solved over a tick."""

    plan: eqx.AbstractVar[Plan]

    @abc.abstractmethod
    def tick(
        self, moved: Moved, args: Arguments, length: Array, step: Array, diverged: Array, random: PyTree
    ) -> Tick[Moved]:
        """One tick of this length, from a first step of that; `random` is what `scan` drew for it."""

    @abc.abstractmethod
    def potentials(self, moved: Moved) -> Layers:
        """The potentials in what is moved."""

    def noise(self, moved: Moved, before: PyTree) -> PyTree:
        """The states of the noises, which were these before the cycle."""
        return before

    def seen(self, s: Layers, random: PyTree) -> Layers:
        """The activities as the demodulator sees them at the end of a tick."""
        return s

    def scan(self, tick: Callable, carry: PyTree) -> tuple[PyTree, PyTree]:
        """`lax.scan` over the ticks of a cycle: `tick(carry, (number, random))`."""
        return lax.scan(tick, carry, (jnp.arange(self.plan.ticks), None))


class AbstractSmooth(AbstractEquation[Moved]):
    """An equation without noise, which diffrax solves with any explicit solver and any steps."""

    @abc.abstractmethod
    def velocity(self, t: Time, packed: PyTree, args: Arguments) -> PyTree:
        """The derivative in time of what is moved, as real arrays."""

    @abc.abstractmethod
    def packed(self, moved: Moved) -> PyTree:
        """What is moved, as real arrays: the solver sees no others."""

    @abc.abstractmethod
    def unpacked(self, packed: PyTree) -> Moved:
        """The way back."""

    @abc.abstractmethod
    def in_range(self, moved: Moved, args: Arguments) -> Bool[Array, ""]:
        """Whether everything is finite and in range."""

    def tick(
        self, moved: Moved, args: Arguments, length: Array, step: Array, diverged: Array, random: PyTree
    ) -> Tick[Moved]:
        length, plan = jnp.where(diverged, 0, length), self.plan
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(self.velocity),
            plan.solver,
            t0=jnp.zeros_like(length),  # time restarts at each tick: no digits are lost to a long past
            t1=length,
            dt0=step,
            y0=self.packed(moved),
            args=args,
            stepsize_controller=plan.steps.controller,
            adjoint=plan.adjoint or diffrax.RecursiveCheckpointAdjoint(),
            max_steps=plan.steps.most(plan.ticks),
            throw=False,
        )
        moved = self.unpacked(jax.tree.map(lambda a: a[-1], solution.ys))
        in_range = self.in_range(moved, args)
        intact = (solution.result == diffrax.RESULTS.successful) & in_range
        effort = Effort(solution.stats["num_accepted_steps"], solution.stats["num_rejected_steps"])
        exhausted = jnp.zeros((), bool)
        if plan.steps_per_cycle is None:  # equal steps have no cap
            capped = (solution.result == diffrax.RESULTS.max_steps_reached) & in_range
            exhausted = lax.cond(capped, lambda: calm(self.potentials(moved), args, length), lambda: exhausted)
        return Tick(moved, intact, effort, args, exhausted)


class Neurons(AbstractSmooth[Layers]):
    r"""$\tau \dot u = -u + \partial\Phi/\partial s$."""

    plan: Plan

    def velocity(self, t: Time, packed: Packed, args: Arguments) -> Packed:
        return velocity(t, packed, args)

    def packed(self, moved: Layers) -> Packed:
        return packed_of(moved)

    def unpacked(self, packed: Packed) -> Layers:
        return unpacked(packed)

    def in_range(self, moved: Layers, args: Arguments) -> Bool[Array, ""]:
        return bounded(moved)

    def potentials(self, moved: Layers) -> Layers:
        return moved
