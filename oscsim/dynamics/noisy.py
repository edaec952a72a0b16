"""The same equation under noise: equal steps, one by one, with the noises as further terms."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from oscsim.dynamics.equation import unpacked, velocity
from oscsim.dynamics.plan import Plan, largest_divisor
from oscsim.dynamics.state import Effort, State
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.signals.noise import (
    AbstractForcing,
    AbstractNoise,
    AbstractReadoutNoise,
    AbstractTeachingNoise,
    Draw,
    Increment,
    is_srk,
    require_noise_key,
)


def noise_keys(noises: tuple[AbstractNoise, ...], state: State, key: Any, plan: Plan) -> Any:
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


def scan_in_blocks(
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


def as_read(s: Layers, noises: tuple[AbstractNoise, ...], random: Any) -> Layers:
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
        amplitude = self.noise.amplitude(self.net.activities(unpacked(y)))
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


def integrate_noisily(
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
        terms, forcings = diffrax.ODETerm(velocity), _forcings(net, noises, draws, packed)
        terms = diffrax.MultiTerm(terms, *forcings) if forcings else terms
        origin = jnp.zeros_like(step)  # time restarts at each step: no digits are lost, and every step is equally long
        memory = plan.solver.init(terms, origin, step, packed, now)
        packed = plan.solver.step(terms, origin, step, packed, now, memory, made_jump=False)[0]
        return (packed, states), None

    packed = tuple(layer.real for layer in u), tuple(layer.imag for layer in u)
    random = tuple(None if isinstance(n, AbstractReadoutNoise) else r for n, r in zip(noises, random, strict=True))
    (packed, states), _ = lax.scan(one, (packed, states), (jnp.arange(count), random), unroll=count == 1)
    args = (*args[:-1], _jitter(noises, states))
    return unpacked(packed), states, args, Effort(jnp.asarray(count, jnp.int32), jnp.zeros((), jnp.int32))


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
    s = net.activities(unpacked(packed))
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
