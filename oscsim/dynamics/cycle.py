"""Integration of one cycle, tick by tick."""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int, Key, PyTree

from oscsim.core.arrays import describe, promoting, sample_norm
from oscsim.core.checks import as_key, checked, instance
from oscsim.core.errors import BadValue
from oscsim.dynamics.equation import AbstractEquation, Arguments, Effort, Neurons
from oscsim.dynamics.gradient import Phasors, Reading
from oscsim.dynamics.noisy import NoisyNeurons
from oscsim.dynamics.state import STATE, State, require_fitting
from oscsim.dynamics.system import SYSTEM, System
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import INPUTS, Inputs
from oscsim.networks.learned import Gradient
from oscsim.signals.noise import AbstractForcing
from oscsim.signals.teaching import AbstractTeaching, Tuning

Indices: TypeAlias = Int[Array, "..."] | np.ndarray


class Watch(eqx.Module):
    """What is sampled at every tick.

    Attributes:
        neurons: flat indices into each layer.
        samples: indices into the batch.
        potentials: whether the neurons' potentials are kept, beside their activities.
        noise: whether what noise does to the neurons is kept, too.
    """

    neurons: tuple[Indices, ...]
    samples: Indices
    potentials: bool = eqx.field(static=True, default=False)
    noise: bool = eqx.field(static=True, default=False)

    @property
    def count(self) -> int:
        """How many numbers are kept at a tick."""
        return (1 + self.potentials + self.noise) * len(self.samples) * sum(map(len, self.neurons))

    def picked(self, layers: Layers) -> Layers:
        """Of layers (batch, neurons...), what is watched: (samples, watched)."""
        rows = tuple(layer.reshape(len(layer), -1)[self.samples] for layer in layers)
        return tuple(row[:, index] for row, index in zip(rows, self.neurons, strict=True))


class Watched(eqx.Module):
    r"""Samples of neurons at every tick of a cycle: what the plots draw.

    Attributes:
        activities: one complex (..., ticks, samples, watched neurons) array per layer.
        teaching: the signal that each of the samples sees, (..., ticks, samples).
        potentials: as the activities; None unless asked for.
        noise: what noise on the potentials added to the force, $g(s)\, dX/dt$, its mean over each tick, as the
            activities; None unless asked for. 0 once the neurons have diverged.
    """

    activities: Layers
    teaching: Inexact[Array, "..."]
    potentials: Layers | None = None
    noise: Layers | None = None

    @property
    def names(self) -> list[str]:
        """What its arrays are called in files, in the order of the fields: `activity_1`, ..., `signal`, and so on."""

        def numbered(kind, layers):
            return [f"{kind}_{n}" for n, _ in enumerate(layers or (), start=1)]

        after = numbered("potential", self.potentials) + numbered("noise", self.noise)
        return [*numbered("activity", self.activities), "signal", *after]


class Cycle(eqx.Module):
    """The result of one cycle.

    Attributes:
        reading: `Phasors`, or `Points` from plateaus; nan where the neurons diverged.
        effort: what it cost the solver.
        watched: samples of the neurons that were watched; None where none were.

    Example:
        >>> state, cycle = osc.advance(run.system, run.state, run.inputs)
        >>> cycle.reading[1][0].shape, cycle.watched is None
        ((3, 5), True)
    """

    reading: Reading
    effort: Effort
    watched: Watched | None = None

    def gradient(self, network: AbstractNetwork, inputs: Inputs) -> Gradient:
        """The gradient in this cycle's reading."""
        return self.reading.gradient(network, inputs)


WATCH = instance(Watch, "use what a record's `watch(net, batch)` gives, such as PerCycle()")


@promoting
@checked(system=SYSTEM, state=STATE, inputs=INPUTS, key=as_key, watch=WATCH)
def advance(
    system: System,
    state: State,
    inputs: Inputs,
    *,
    key: Key[Array, ""] | None = None,
    watch: Watch | None = None,
) -> tuple[State, Cycle]:
    """Integrate one cycle and read it: a pure function that works under jit, vmap and grad.

    Args:
        system: the neurons, what drives and disturbs them, how they are integrated and read.
        state: from `begin`, or from the cycle before.
        inputs: `Inputs.of(net, x, y)`.
        key: for noise, the same one in every cycle: it is folded with the cycle's index.
        watch: which neurons of which samples to sample at every tick.

    Returns:
        The state after the cycle, and what it gave. Where `state.diverged`, the reading is nan and the potentials are
        the last finite ones; nothing is raised here.

    Example:
        >>> system, inputs = osc.System.of(net, osc.Rotating(0.2, 100.0)), osc.Inputs.of(net, x, y)
        >>> state = osc.begin(system, inputs)
        >>> for _ in range(3):
        ...     state, cycle = osc.advance(system, state, inputs)
        >>> np.allclose(cycle.reading[1][0], run.phasors[1][0][-1], atol=1e-5)
        True
    """
    require_fitting(system, state, inputs)
    recorded = watch is not None and watch.noise
    if recorded and not any(isinstance(noise, AbstractForcing) for noise in system.noises):
        raise BadValue("noise=True in the record: there is no noise on the potentials; leave it out")
    if system.noises:
        equation, moved = NoisyNeurons.of(system, state, key, recorded), (state.potentials, state.noise)
    else:
        equation, moved = Neurons(system.plan), state.potentials
    return run(equation, moved, system, state, inputs, watch)[:2]


def run(
    equation: AbstractEquation,
    moved: PyTree,
    system: System,
    state: State,
    inputs: Inputs,
    watch: Watch | None = None,
) -> tuple[State, Cycle, PyTree]:
    """One cycle of an equation, from what it moves: the state, what the cycle gave, and what was moved to.

    `equation.scan` is the loop over the ticks, `equation.tick` calls the solver.
    """
    net, plan, teaching = system.network, system.plan, state.drive(system.teaching)
    length = jnp.asarray(teaching.period / plan.ticks, net.dtype)

    def tick(carry, numbered):
        (moved, read, diverged, exhausted, effort, step), (number, random) = carry, numbered
        start = number * length
        # A plateau's value is taken at its middle: its ends belong to two plateaus.
        plateau = None if teaching.points is None else start + length / 2
        args = Arguments(net, inputs, teaching, state.cycle, start, plateau)
        done = equation.tick(moved, args, length, step, diverged, random)
        exhausted |= done.exhausted & ~diverged
        diverged |= ~done.intact
        moved = jax.tree.map(lambda new, old: jnp.where(diverged, old, new), done.moved, moved)
        noise = jax.tree.map(lambda a: jnp.where(diverged, 0, a), done.noise)
        s = net.activities(equation.potentials(moved))
        beta = done.args.signal(length)
        read = plan.demodulator.update(read, equation.seen(s, random), beta, number, plan.ticks)
        effort = jax.tree.map(jnp.add, effort, done.effort)
        watched = None if watch is None else _watched(watch, equation.potentials(moved), s, beta, noise)
        step = plan.steps.next(step, length, done.effort.accepted)
        return (moved, read, diverged, exhausted, effort, step), watched

    none = jnp.zeros((), jnp.int32)
    read = plan.demodulator.begin(state.demodulator, state.cycle)
    first = plan.steps.first(net, length, plan.ticks)
    carry = moved, read, state.diverged, state.exhausted, Effort(none, none), first
    (moved, read, diverged, exhausted, effort, _), watched = equation.scan(tick, carry)
    reading = jax.tree.map(lambda a: jnp.where(diverged, jnp.nan, a), plan.demodulator.read(read))
    number = jnp.where(state.diverged, state.cycle, state.cycle + 1)  # stands where it diverged, if the caller goes on
    tuning = _tuned(system.teaching, state.tuning, reading, bool(system.noises))
    noise = equation.noise(moved, state.noise)
    after = State(equation.potentials(moved), number, read, reading, diverged, exhausted, noise, tuning)
    return after, Cycle(reading, effort, watched), moved


def _tuned(teaching: AbstractTeaching, tuning: Tuning | None, reading: Reading, noisy: bool) -> Tuning | None:
    """The amplitudes for the next cycle; None where the signal has one for all."""
    if tuning is None:
        return None
    if not isinstance(reading, Phasors) or not reading.has_image:
        raise BadValue(
            f"{describe(teaching)} tunes itself by harmonic -1, which was not read: use a demodulator with harmonics="
            "(-1, 0, 1)"
        )
    return teaching.tune(tuning, sample_norm(reading[-1]), sample_norm(reading[1]), noisy)


def _watched(watch: Watch, u: Layers, s: Layers, beta: Array, noise: Layers | None) -> Watched:
    teaching = jnp.broadcast_to(beta, (len(s[0]),))[watch.samples]
    potentials = watch.picked(u) if watch.potentials else None
    return Watched(watch.picked(s), teaching, potentials, None if noise is None else watch.picked(noise))
