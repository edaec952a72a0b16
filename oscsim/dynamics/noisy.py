"""The equation of the neurons under noise: equal steps, one by one, with the noises as further terms."""

import functools
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, PyTree

from oscsim.core.errors import BadType, BadValue
from oscsim.dynamics.equation import (
    AbstractEquation,
    Arguments,
    Effort,
    Tick,
    Time,
    bounded,
    packed_of,
    unpacked,
    velocity,
)
from oscsim.dynamics.integration import Plan, largest_divisor
from oscsim.dynamics.state import State
from oscsim.dynamics.system import System
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.signals.noise import AbstractForcing, AbstractNoise, Draw, Increment, is_srk, noise_key

BLOCK_STEPS, BLOCK_NUMBERS = 16, 2**20
"""How many steps' random numbers are drawn at a time, and how many numbers of each noise at most."""


class NoisyNeurons(AbstractEquation[tuple[Layers, PyTree]]):
    r"""$\tau\, du = (-u + \partial\Phi/\partial s)\, dt + g(s)\, dX$: it moves the potentials and the noises' states.

    Attributes:
        plan: how it is integrated.
        noises: what disturbs.
        keys: a key for each noise in each step of the cycle, (ticks, steps in a tick).
        like: potentials, which show the shapes.
        per_tick: how many steps a tick takes.
        recorded: whether ticks say what the noise did.
    """

    plan: Plan
    noises: tuple[AbstractNoise, ...]
    keys: PyTree
    like: Layers
    per_tick: int = eqx.field(static=True)
    recorded: bool = eqx.field(static=True, default=False)

    @staticmethod
    def of(system: System, state: State, key: Key[Array, ""] | None, recorded: bool = False) -> "NoisyNeurons":
        """The equation for the cycle that comes.

        Raises:
            ValueError: no key; the state began with other noises.
        """
        noises, plan, per_cycle = system.noises, system.plan, system.plan.steps_per_cycle
        key = noise_key(key)
        if not isinstance(state.noise, tuple) or len(state.noise) != len(noises):
            raise BadValue("noise is not what the state began with: give begin the same noise, and its key")
        if per_cycle is None:
            raise BadType(f"steps={plan.steps!r}: under noise steps are equal")

        def of_noise(place, noise):
            own = jax.random.fold_in(jax.random.fold_in(key, state.cycle), place)
            each = plan.ticks if noise.each_tick else per_cycle
            keys = jax.vmap(lambda number: jax.random.fold_in(own, number))(jnp.arange(each, dtype=jnp.uint32))
            return keys.reshape(plan.ticks, each // plan.ticks, *keys.shape[1:])

        keys = tuple(of_noise(place, noise) for place, noise in enumerate(noises))
        return NoisyNeurons(plan, noises, keys, state.potentials, per_cycle // plan.ticks, recorded)

    def tick(
        self, moved: tuple[Layers, PyTree], args: Arguments, length: Array, step: Array, diverged: Array, random: PyTree
    ) -> Tick[tuple[Layers, PyTree]]:
        (u, states), noises, solver = moved, self.noises, self.plan.solver

        def disturbing(states):
            return tuple(zip(noises, states, strict=True))

        def one(carry, position_and_random):
            (packed, states), (position, random) = carry, position_and_random
            advanced = [
                noise.advance(state, numbers, step, is_srk(solver))
                for noise, state, numbers in zip(noises, states, random, strict=True)
            ]
            states, draws = tuple(state for state, _ in advanced), [drawn for _, drawn in advanced if drawn is not None]
            now = args._replace(start=args.start + position * step, noises=disturbing(states))
            terms, forcings = diffrax.ODETerm(velocity), _forcings(args.network, draws, packed)
            terms = diffrax.MultiTerm(terms, *forcings) if forcings else terms
            origin = jnp.zeros_like(step)  # time restarts at each step: no digits are lost, every step is as long
            memory = solver.init(terms, origin, step, packed, now)
            after = solver.step(terms, origin, step, packed, now, memory, made_jump=False)[0]
            ends = (packed,) if isinstance(solver, diffrax.Euler) else (packed, after)
            return (after, states), _mean_noise(forcings, ends, step, now) if self.recorded else None

        random = tuple(None if n.each_tick else r for n, r in zip(noises, random, strict=True))
        steps = jnp.arange(self.per_tick), random
        (packed, states), noise = lax.scan(one, (packed_of(u), states), steps, unroll=self.per_tick == 1)
        u, effort = unpacked(packed), Effort(jnp.asarray(self.per_tick, jnp.int32), jnp.zeros((), jnp.int32))
        args, noise = args._replace(noises=disturbing(states)), jax.tree.map(lambda a: jnp.mean(a, axis=0), noise)
        return Tick((u, states), bounded(u), effort, args, jnp.zeros((), bool), noise)

    def potentials(self, moved: tuple[Layers, PyTree]) -> Layers:
        return moved[0]

    def noise(self, moved: tuple[Layers, PyTree], before: PyTree) -> PyTree:
        return moved[1]

    def seen(self, s: Layers, random: PyTree) -> Layers:
        for noise, own in zip(self.noises, random, strict=True):
            s = noise.reading(jax.tree.map(lambda a: a[0], own), s)
        return s

    def scan(self, tick: Callable, carry: PyTree) -> tuple[PyTree, PyTree]:
        """The random numbers of a block of ticks are drawn in one go."""
        ticks, area = self.plan.ticks, is_srk(self.plan.solver)
        affordable = BLOCK_NUMBERS // max(1, sum(layer.size for layer in self.like))
        length = largest_divisor(ticks, max(1, min(BLOCK_STEPS, affordable) // self.per_tick))

        def in_blocks(a):
            return a.reshape(ticks // length, length, *a.shape[1:])

        def block(carry, numbers_and_keys):
            numbers, keys = numbers_and_keys
            random = tuple(
                jax.vmap(jax.vmap(lambda key, noise=noise: noise.random(key, self.like, area)))(of_noise)
                for noise, of_noise in zip(self.noises, keys, strict=True)
            )
            return lax.scan(tick, carry, (numbers, random))

        carry, watched = lax.scan(block, carry, jax.tree.map(in_blocks, (jnp.arange(ticks), self.keys)))
        return carry, jax.tree.map(lambda a: a.reshape(ticks, *a.shape[2:]), watched)


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

    def vf(self, t: Time, y: tuple[Layers, Layers], args: Arguments) -> PyTree:
        rates = tuple(1 / tau for tau in self.net.time_constants)
        if self.noise is None:
            return rates
        amplitude = self.noise.amplitude(self.net.activities(unpacked(y)))
        assert amplitude is not None  # additive noises come without `noise`
        return tuple(g * rate for g, rate in zip(amplitude, rates, strict=True))

    def contr(self, t0: Time, t1: Time, use_levy: bool = False, **kwargs: object) -> PyTree:
        if not use_levy:
            return self.increment
        return diffrax.SpaceTimeLevyArea(dt=t1 - t0, W=self.increment, H=self.area)

    def prod(self, vf: PyTree, control: Increment) -> tuple[Layers, Layers]:
        real = control.real
        imag = tuple(jnp.zeros_like(a) for a in real) if control.imag is None else control.imag
        if self.noise is None:
            real, imag = (tuple(a * rate for a, rate in zip(part, vf, strict=True)) for part in (real, imag))
            return real, imag
        push = [lax.complex(a, b) * g for a, b, g in zip(real, imag, vf, strict=True)]
        return tuple(p.real for p in push), tuple(p.imag for p in push)


def _mean_noise(forcings: list[_Forcing], ends: tuple[PyTree, ...], step: Array, args: Arguments) -> Layers:
    r"""What forcings add to the force over a step, $g(s)\, \Delta X / h$.

    With $g$ as the step begins, as Ito has it, or the mean over both of its ends, as Stratonovich has it.
    """
    moved = [unpacked(f.prod(f.vf(0.0, packed, args), f.increment)) for packed in ends for f in forcings]
    each = zip(args.network.time_constants, *moved, strict=True)
    return tuple(sum(parts) * (tau / (step * len(ends))) for tau, *parts in each)


def _forcings(net: AbstractNetwork, draws: list[tuple[AbstractForcing, Draw]], packed: PyTree) -> list[_Forcing]:
    """One term for all additive noises together, and one for each whose amplitude depends on the activities."""
    s = net.activities(unpacked(packed))
    additive, terms = [], []
    for noise, draw in draws:
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
