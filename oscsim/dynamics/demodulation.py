r"""Demodulators: how coefficients are read off the activities while they stream by.

A demodulator is shown the activities $s$ and the teaching signal $\beta$ at $K$ ticks a cycle, as a digital lock-in
amplifier samples its input; the mean over $K$ ticks of $s\, e^{-in\omega t}$ is exact but for the harmonics $n + mK$.
Its state is the running coefficients and nothing else: memory does not grow with the simulated time. What it reads
turns into a gradient in `gradient.py`.
"""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int, PyTree

from oscsim.core.arrays import Scalar, describe, per_sample
from oscsim.core.checks import count, instance, positive, shown
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings
from oscsim.dynamics.gradient import Phasors, Points, Reading
from oscsim.networks.base import Layers

FEWEST_TICKS = 8
"""Harmonic 1 is mixed with 1 - ticks and 1 + ticks: fewer leave a visible error at usual amplitudes."""


class AbstractDemodulator(AbstractSettings):
    """A streaming reader: `init` is called once, `begin` at each cycle, `update` at each tick, `read` at any time.

    `fewest_ticks` is how many ticks a cycle it needs, `warm_up` how many cycles pass before its reading is complete,
    `independent` whether the reading of each cycle depends on that cycle alone.

    Example:
        >>> class Stroboscope(osc.AbstractDemodulator):  # the activities at the end of each quarter of the cycle
        ...     fewest_ticks = 4
        ...     def init(self, s, beta, ticks):
        ...         return jax.tree.map(lambda a: jnp.zeros((4, *a.shape), a.dtype), osc.Points(s, beta))
        ...     def begin(self, state, cycle):
        ...         return state
        ...     def update(self, state, s, beta, tick, ticks):
        ...         return jax.tree.map(lambda old, a: old.at[4 * tick // ticks].set(a), state, osc.Points(s, beta))
        ...     def read(self, state):
        ...         return state
        >>> seen = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=3, demodulator=Stroboscope())
        >>> seen.phasors.activities[0].shape  # (cycles, quarters, batch, neurons)
        (3, 4, 3, 5)
    """

    fewest_ticks: ClassVar[int] = 1
    independent: ClassVar[bool] = True

    @property
    def warm_up(self) -> int:
        """How many cycles are to be discarded at the start at least."""
        return 0

    def cut_off(self, first_cycle: int) -> int:
        """How many cycles, from the one of number `first_cycle` on, pass before its reading is complete."""
        return max(0, self.warm_up - first_cycle)

    @abc.abstractmethod
    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> PyTree:
        """The state before anything was seen; `s` and `beta` show the shapes to come."""

    @abc.abstractmethod
    def begin(self, state: PyTree, cycle: Int[Array, ""]) -> PyTree:
        """The state at the start of the cycle of that number."""

    @abc.abstractmethod
    def update(self, state: PyTree, s: Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int) -> PyTree:
        """The state after the tick of that number, counted from 0: the activities at $t = (tick + 1) T / ticks$."""

    @abc.abstractmethod
    def read(self, state: PyTree) -> Reading:
        """The coefficients as they stand."""


def require_whole(demodulator: AbstractDemodulator, discard: int, first_cycle: int = 0) -> None:
    """Refuse to use readings of windows that are cut off at the start.

    Raises:
        ValueError: fewer cycles are discarded, of those after `first_cycle`, than it takes until readings are whole.
    """
    cut_off = demodulator.cut_off(first_cycle)
    if discard < cut_off:
        raise BadValue(
            f"discard={discard}: the first {cut_off} readings of {describe(demodulator)} are not whole; use "
            f"discard={cut_off} or more, and more cycles than that"
        )


def _products(harmonics: tuple[int, ...], s: Layers, beta: Array, turn: Array) -> Phasors:
    r"""$s\, e^{-in\omega t}$ and $\beta\, e^{-in\omega t}$ at one instant; `turn` is $t / T$."""

    def turned(n: int, a: Array) -> Array:
        return a if n == 0 else a * jnp.exp(-2j * jnp.pi * (n * turn)).astype(a.dtype)

    return Phasors(
        activities=tuple(tuple(turned(n, layer) for layer in s) for n in harmonics),
        teaching=tuple(turned(n, beta) for n in harmonics),
        harmonics=harmonics,
    )


def _zeros(harmonics: tuple[int, ...], s: Layers, beta: Array, slots: tuple[int, ...] = ()) -> Phasors:
    return jax.tree.map(
        lambda a: jnp.zeros((*slots, *a.shape), a.dtype), _products(harmonics, s, beta, jnp.zeros((), s[0].real.dtype))
    )


def _turn(tick: Array, ticks: int, s: Layers) -> Array:
    return (tick + 1).astype(s[0].real.dtype) / ticks


DEMODULATOR = instance(AbstractDemodulator, "use an instance of a demodulator, such as Boxcar()")
"""The kind of arguments that are demodulators."""


def _as_harmonics(harmonics: object) -> tuple[int, ...]:
    remedy = "give distinct integers in a tuple, 0 and 1 among them (the gradient needs both)"
    if not isinstance(harmonics, (tuple, list)) or not all(isinstance(n, (int, np.integer)) for n in harmonics):
        raise BadType(f"harmonics={shown(harmonics)}: {remedy}")
    if not {0, 1} <= set(harmonics) or len(set(harmonics)) != len(harmonics):
        raise BadValue(f"harmonics={harmonics!r}: {remedy}")
    return tuple(int(n) for n in harmonics)


class Boxcar(AbstractDemodulator):
    r"""The plain mean over one whole cycle: $c_n = \frac1K \sum_j s(t_j)\, e^{-in\omega t_j}$.

    Attributes:
        harmonics: which $n$ to read; 0 and 1 are what the gradient needs, -1 measures its error.

    Raises:
        ValueError: harmonics without 0 and 1, or repeated ones.

    Example:
        >>> run.plan.demodulator  # the default
        Boxcar(harmonics=(-1, 0, 1))
        >>> run.phasors[1][0].shape  # (cycles, batch, neurons)
        (3, 3, 5)
    """

    harmonics: tuple[int, ...] = eqx.field(static=True, default=(-1, 0, 1), converter=_as_harmonics)
    fewest_ticks: ClassVar[int] = FEWEST_TICKS

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> Phasors:
        return _zeros(self.harmonics, s, beta)

    def begin(self, state: Phasors, cycle: Int[Array, ""]) -> Phasors:
        return jax.tree.map(jnp.zeros_like, state)

    def update(
        self, state: Phasors, s: Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int
    ) -> Phasors:
        new = _products(self.harmonics, s, beta, _turn(tick, ticks, s))
        return jax.tree.map(lambda total, a: total + a / ticks, state, new)

    def read(self, state: Phasors) -> Phasors:
        return state


class Exponential(AbstractDemodulator):
    r"""A first-order low-pass, as hardware would build it: $\kappa T\, \dot c_n = -c_n + s(t)\, e^{-in\omega t}$.

    Integrated exactly from tick to tick, and divided by the weight seen so far, so it is unbiased from the start. It
    never resets; what is left of the other harmonics in it falls as $1 / (2\pi\kappa)$.

    Attributes:
        cycles: $\kappa$, the time constant in cycles.
        harmonics: which $n$ to read; 0 and 1 are what the gradient needs, -1 measures its error.

    Raises:
        ValueError: `cycles` is not positive; harmonics without 0 and 1, or repeated ones.

    Example:
        >>> smooth = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=9, demodulator=osc.Exponential(5.0))
        >>> bool(smooth.lock_residual[-1] < smooth.lock_residual[1])
        True
    """

    cycles: Scalar = eqx.field(converter=positive("cycles"), default=5.0)
    harmonics: tuple[int, ...] = eqx.field(static=True, default=(-1, 0, 1), converter=_as_harmonics)
    fewest_ticks: ClassVar[int] = FEWEST_TICKS
    independent: ClassVar[bool] = False

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> tuple[Phasors, Array]:
        return _zeros(self.harmonics, s, beta), jnp.zeros((), s[0].real.dtype)

    def begin(self, state: tuple[Phasors, Array], cycle: Int[Array, ""]) -> tuple[Phasors, Array]:
        return state

    def update(
        self,
        state: tuple[Phasors, Array],
        s: Layers,
        beta: Inexact[Array, "..."],
        tick: Int[Array, ""],
        ticks: int,
    ) -> tuple[Phasors, Array]:
        new = (_products(self.harmonics, s, beta, _turn(tick, ticks, s)), jnp.ones_like(state[1]))
        gain = -jnp.expm1(-1 / (ticks * self.cycles)).astype(state[1].dtype)
        return jax.tree.map(lambda old, a: old + gain * (a - old), state, new)

    def read(self, state: tuple[Phasors, Array]) -> Phasors:
        total, weight = state
        return jax.tree.map(lambda a: a / weight, total)


class Hann(AbstractDemodulator):
    r"""A Hann window over the last $M$ cycles, read at the end of each.

    $c_n \propto \sum_j w(t_j)\, s(t_j)\, e^{-in\omega t_j}$; the window $w = 1 - \cos(2\pi t / (M T))$ suppresses
    drifts and slow transients far better than the boxcar does. $M$ staggered windows run side by side; each cycle the
    oldest is read. The first $M - 1$ readings come from a truncated window, which mixes harmonics: discard them.

    Attributes:
        cycles: $M$, at least 2.
        harmonics: which $n$ to read; 0 and 1 are what the gradient needs, -1 measures its error.

    Raises:
        ValueError: fewer than two cycles; harmonics without 0 and 1, or repeated ones.

    Example:
        >>> windowed = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=3, demodulator=osc.Hann(cycles=2))
        >>> windowed.plan.demodulator.warm_up  # cycles to discard: their windows are cut off
        1
    """

    cycles: int = eqx.field(
        static=True, default=4, converter=count("cycles", 2, "a Hann window needs an integer of 2 or more")
    )
    harmonics: tuple[int, ...] = eqx.field(static=True, default=(-1, 0, 1), converter=_as_harmonics)
    fewest_ticks: ClassVar[int] = FEWEST_TICKS
    independent: ClassVar[bool] = False

    @property
    def warm_up(self) -> int:
        """The cycles before the first whole window."""
        return self.cycles - 1

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> tuple[Phasors, Array, Array]:
        slots = (self.cycles,)
        return (
            _zeros(self.harmonics, s, beta, slots),
            jnp.zeros(slots, s[0].real.dtype),
            jnp.zeros((), jnp.int32),
        )

    def begin(self, state: tuple[Phasors, Array, Array], cycle: Int[Array, ""]) -> tuple[Phasors, Array, Array]:
        totals, weights, _ = state
        fresh = cycle % self.cycles
        totals, weights = jax.tree.map(lambda a: a.at[fresh].set(0), (totals, weights))
        return totals, weights, jnp.asarray(cycle, jnp.int32)

    def update(
        self,
        state: tuple[Phasors, Array, Array],
        s: Layers,
        beta: Inexact[Array, "..."],
        tick: Int[Array, ""],
        ticks: int,
    ) -> tuple[Phasors, Array, Array]:
        totals, weights, cycle = state
        turn = _turn(tick, ticks, s)
        ages = (cycle - jnp.arange(self.cycles)) % self.cycles + turn
        window = 1 - jnp.cos(2 * jnp.pi * ages / self.cycles)
        new = _products(self.harmonics, s, beta, turn)
        totals = jax.tree.map(lambda total, a: total + per_sample(window, a[None]) * a[None] / ticks, totals, new)
        return totals, weights + window / ticks, cycle

    def read(self, state: tuple[Phasors, Array, Array]) -> Phasors:
        totals, weights, cycle = state
        oldest = (cycle + 1) % self.cycles
        return jax.tree.map(lambda a: a[oldest] / weights[oldest], totals)


class Plateaus(AbstractDemodulator):
    r"""The activities at the end of each plateau of a `Staircase`: $N$ points of the teaching circle per cycle.

    One tick per plateau. Read as `Points`, so the gradient is the $N$-point estimate taken in time.

    Example:
        >>> stairs = osc.Staircase(amplitude=0.2, period=100.0, points=4)
        >>> read = osc.simulate(net, x, y, stairs, cycles=2, demodulator=osc.Plateaus())  # the default for a Staircase
        >>> read.phasors.activities[0].shape  # (cycles, points, batch, neurons)
        (2, 4, 3, 5)
    """

    def init(self, s: Layers, beta: Inexact[Array, "..."], ticks: int) -> Points:
        return Points(
            activities=tuple(jnp.zeros((ticks, *layer.shape), layer.dtype) for layer in s),
            teaching=jnp.zeros((ticks, *beta.shape), beta.dtype),
        )

    def begin(self, state: Points, cycle: Int[Array, ""]) -> Points:
        return state

    def update(self, state: Points, s: Layers, beta: Inexact[Array, "..."], tick: Int[Array, ""], ticks: int) -> Points:
        return jax.tree.map(lambda old, a: old.at[tick].set(a), state, Points(s, beta))

    def read(self, state: Points) -> Points:
        return state
