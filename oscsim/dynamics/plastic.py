"""One cycle of neurons and synapses together: the weights are part of the equation."""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from oscsim.dynamics.demodulation import Reading
from oscsim.dynamics.equation import bounded, first_step, signal_at, solve, velocity
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.dynamics.state import State
from oscsim.networks.base import AbstractNetwork, Layers, parameters
from oscsim.networks.inputs import Inputs
from oscsim.signals.teaching import fourier_coefficient


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
    Where the force has no potential, $\Psi(s(t), \bar s)$ stands for $\Phi$: what is heard is held at the mean that
    was read in the cycle before, or at the activities that the cycle begins with where nothing was read yet.

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
    heard = None if net.symmetric else _heard(state, net, demodulator.warm_up)

    def tick(carry, number):
        u, moved, read, diverged, step = carry
        start = number * length
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None, ())
        packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u), moved
        term = diffrax.ODETerm(_plastic_velocity)
        solution, succeeded, steps = solve(
            term, packed, (args, rate, reference, heard), jnp.where(diverged, 0, length), step, plan
        )
        real, imag, new = solution
        new_u = tuple(lax.complex(x, y) for x, y in zip(real, imag, strict=True))
        weights = tuple(jax.tree.leaves(parameters(_moved(net, new, rate))))
        diverged |= ~(succeeded & bounded(new_u) & bounded(weights))
        u, moved = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), (new_u, new), (u, moved))
        read = demodulator.update(read, net.activities(u), signal_at(length, args), number, ticks)
        if plan.steps_per_cycle is None:
            step = length / jnp.maximum(steps.accepted, 1)
        return (u, moved, read, diverged, step), None

    carry = (
        state.potentials,
        jax.tree.map(jnp.zeros_like, parameters(net)),
        demodulator.begin(state.demodulator, state.cycle),
        state.diverged,
        first_step(net, length, plan),
    )
    (u, moved, read, diverged, _), _ = lax.scan(tick, carry, jnp.arange(ticks))
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), demodulator.read(read))
    number = jnp.where(state.diverged, state.cycle, state.cycle + 1)
    after = State(u, number, read, reading, diverged, state.noise)
    return after, jax.tree.map(lambda a: rate * a, moved), reading


def _plastic_velocity(t: Any, packed: tuple[Layers, Layers, Any], args: tuple) -> tuple[Layers, Layers, Any]:
    r"""$\dot u$ as in `velocity`, and $\dot\theta / \eta$: each synapse turns its own product back and follows it."""
    (net, inputs, teaching, _, start, *_), rate, reference, heard = args
    real, imag, moved = packed
    net = _moved(net, moved, rate)
    inputs = Inputs(inputs.x, inputs.y, jax.vmap(net.clamp)(inputs.x))
    now = (net, inputs, *args[0][2:])
    s = net.activities(tuple(lax.complex(x, y) for x, y in zip(real, imag, strict=True)))
    turn = jnp.asarray((start + t) / teaching.period, net.dtype)
    turned_back = lax.complex(*reference) * jnp.exp(-2j * jnp.pi * turn)
    descent = net.plasticity(inputs.x, s, inputs.y, signal_at(t, now), turned_back, heard)
    return *velocity(t, (real, imag), now), descent


def _heard(state: State, net: AbstractNetwork, warm_up: int) -> Layers:
    """What the neurons hear on average, as real activities: the free equilibrium, where nothing turns."""
    begun = net.activities(state.potentials)
    return tuple(
        jnp.where(state.cycle > warm_up, mean.real, now.real)
        for mean, now in zip(state.reading.mean, begun, strict=True)
    )


def _moved(net: AbstractNetwork, moved: Any, rate: Array) -> AbstractNetwork:
    r"""The network at $\theta_0 + \eta \cdot$ `moved`."""
    return eqx.apply_updates(net, jax.tree.map(lambda a: rate * a, moved))
