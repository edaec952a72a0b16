"""The equation of the neurons, and its solution over one tick. The solver sees real arrays."""

import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from oscsim.core.arrays import complex_of
from oscsim.dynamics.plan import Plan
from oscsim.dynamics.state import Effort
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.signals.teaching import signal_during

MAX_STEPS = 4096
"""Adaptive steps within one tick; more are taken for a trajectory that runs into a pole."""

RUNAWAY = 1e6
"""A potential beyond this counts as diverged: the activations are long out of their range."""


def velocity(t: Any, packed: tuple[Layers, Layers], args: tuple) -> tuple[Layers, Layers]:
    r"""$\dot u = (-u + \partial\Phi/\partial s) / \tau$ on (real parts, imaginary parts)."""
    net, inputs = args[:2]
    u = unpacked(packed)
    force = net.force(inputs.clamped, net.activities(u), inputs.y, signal_at(t, args))
    rates = [(f - v) * (1 / tau) for f, v, tau in zip(force, u, net.time_constants, strict=True)]
    return tuple(rate.real for rate in rates), tuple(rate.imag for rate in rates)


def signal_at(t: Array, args: tuple) -> Array:
    r"""$\beta$ at time `t` of the present tick, as a complex number of the network's precision."""
    net, _, teaching, number, start, middle, jitter = args
    signal = signal_during(teaching, number)
    for noise, state in jitter:
        signal = functools.partial(noise.signal, state, signal, period=teaching.period)
    beta = signal(start + t if middle is None else middle)
    return jnp.asarray(beta, complex_of(net.dtype))


def unpacked(packed: tuple[Layers, Layers]) -> Layers:
    """Complex layers from (real parts, imaginary parts)."""
    return tuple(lax.complex(x, y) for x, y in zip(*packed, strict=True))


def bounded(u: Layers) -> Array:
    """Whether every potential is finite and in range; nan compares false."""
    parts = [jnp.max(jnp.abs(part)) for layer in u for part in (layer.real, layer.imag)]
    return jnp.all(jnp.stack(parts) < RUNAWAY)


def first_step(net: AbstractNetwork, length: Array, plan: Plan) -> Array:
    """The step that the first tick starts with: one of the equal steps, or about the fastest time constant."""
    if plan.steps_per_cycle is not None:
        return length / (plan.steps_per_cycle // plan.ticks)
    fastest = jnp.min(jnp.stack([jnp.min(tau) for tau in net.time_constants]))
    return length / jnp.ceil(length / fastest)


def integrate(u: Layers, args: tuple, length: Array, step: Array, plan: Plan) -> tuple[Layers, Array, Effort]:
    """The potentials after one tick. The solver sees real arrays: (real parts, imaginary parts)."""
    packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u)
    (real, imag), succeeded, effort = solve(diffrax.ODETerm(velocity), packed, args, length, step, plan)
    return unpacked((real, imag)), succeeded, effort


def solve(terms: Any, packed: Any, args: Any, length: Array, step: Array, plan: Plan) -> tuple[Any, Array, Effort]:
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
