"""One cycle of the neurons, tick by tick."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key

from oscsim.core.arrays import describe, sample_norm
from oscsim.dynamics.demodulation import Reading
from oscsim.dynamics.equation import bounded, first_step, integrate, signal_at
from oscsim.dynamics.noisy import as_read, integrate_noisily, noise_keys, scan_in_blocks
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.dynamics.state import Effort, State, Watched
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.signals.noise import as_noises
from oscsim.signals.teaching import Tuning


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
    noises, adaptive, teaching = as_noises(noise), teaching, state.drive(teaching)
    keys = noise_keys(noises, state, key, plan)
    length = jnp.asarray(teaching.period / ticks, net.dtype)
    held = getattr(teaching, "points", None) is not None

    def tick(carry, number_and_random):
        (u, read, diverged, effort, step, disturbed), (number, random) = carry, number_and_random
        start = number * length
        # A plateau's value is taken at its middle: its ends belong to two plateaus.
        args = (net, inputs, teaching, state.cycle, start, start + length / 2 if held else None, ())
        if noises:
            moved, disturbed, args, steps = integrate_noisily(u, disturbed, args, length, random, plan, noises)
            succeeded = True
        else:
            moved, succeeded, steps = integrate(u, args, jnp.where(diverged, 0, length), step, plan)
        diverged |= ~(succeeded & bounded(moved))
        u = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), moved, u)
        s = net.activities(u)
        beta = signal_at(length, args)
        read = demodulator.update(read, as_read(s, noises, random), beta, number, ticks)
        effort = jax.tree.map(jnp.add, effort, steps)
        if plan.steps_per_cycle is None:  # an adaptive solver starts each tick with the mean step of the last one
            step = length / jnp.maximum(steps.accepted, 1)
        watched = None if watch is None else Watched(_pick(s, watch), beta.reshape(-1)[0])
        return (u, read, diverged, effort, step, disturbed), watched

    none = jnp.zeros((), jnp.int32)
    carry = (
        state.potentials,
        demodulator.begin(state.demodulator, state.cycle),
        state.diverged,
        Effort(none, none),
        first_step(net, length, plan),
        state.noise if noises else None,
    )
    if noises:
        carry, watched = scan_in_blocks(tick, carry, keys, noises, state.potentials, plan)
    else:
        carry, watched = lax.scan(tick, carry, (jnp.arange(ticks), None))
    u, read, diverged, effort, _, disturbed = carry
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), demodulator.read(read))
    number = jnp.where(state.diverged, state.cycle, state.cycle + 1)  # stands where it diverged, if the caller goes on
    tuning = None if state.tuning is None else _tuned(adaptive, state.tuning, reading, bool(noises))
    return State(u, number, read, reading, diverged, disturbed, tuning), reading, watched, effort


def _tuned(teaching: Any, tuning: Tuning, reading: Any, noisy: bool) -> Tuning:
    """The amplitudes for the next cycle."""
    if not reading.has_image:
        raise ValueError(
            f"{describe(teaching)} tunes itself by harmonic -1, which was not read: use a demodulator with harmonics="
            "(-1, 0, 1)"
        )
    return teaching.tune(tuning, sample_norm(reading[-1]), sample_norm(reading[1]), noisy)


def _pick(s: Layers, watch: tuple[Any, ...]) -> Layers:
    return tuple(layer[0].reshape(-1)[index] for layer, index in zip(s, watch, strict=True))
