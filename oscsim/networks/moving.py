"""Inputs that move within the cycle: a function of time, or a recorded series."""

import abc
import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Real

from oscsim.core.arrays import Scalar, is_traced
from oscsim.core.checks import as_finite, as_flag, as_function, positive
from oscsim.core.errors import BadType, BadValue
from oscsim.core.printing import AbstractSettings

Cycle: TypeAlias = int | np.integer | Int[Array, ""]
"""The number of a cycle."""

Period: TypeAlias = float | Real[Array, ""]
"""How long a cycle lasts, in units of time."""

SAMPLES = 64
"""A cycle's mean input is taken over so many times of it, or over more where a series has more."""


class AbstractMoving(AbstractSettings):
    """An input that moves while the teaching signal turns."""

    @abc.abstractmethod
    def at(self, t: Real[Array, ""], cycle: Cycle, period: Period) -> Array:
        """The inputs (batch, ...) at time `t` of the cycle of that number."""

    def check_lasts(self, first: int, cycles: int, period: float) -> None:
        """Refuse so many cycles, from the one of number `first` on, where the input ends before them."""

    def samples(self, period: Period) -> int:
        """Over how many times of a cycle its mean is taken."""
        return SAMPLES

    def mean(self, cycle: Cycle, period: Period) -> Array:
        """The mean inputs (batch, ...) over the cycle of that number."""
        samples = self.samples(period)

        def add(total, number):
            return total + self.at((number + 0.5) / samples * period, cycle, period), None

        like = jax.eval_shape(self.at, jnp.zeros(()), cycle, period)
        total, _ = lax.scan(add, jnp.zeros(like.shape, like.dtype), jnp.arange(samples))
        return total / samples


class Moving(AbstractMoving):
    r"""Inputs as a function of time: `simulate(net, osc.Moving(function), y, ...)`.

    While the signal turns, the neurons are shown $x(t)$. A gradient is read as if they were shown the mean of $x(t)$
    over the cycle. That is right for inputs that move slowly, or much faster than the neurons. Inputs that have a part
    at the frequency of the teaching signal add to $c_1$ and to the image $c_{-1}$: the error bar tells.

    Attributes:
        function: `function(t, cycle)`, from the time within the cycle, 0 to the period, and the number of the cycle, to
            inputs (batch, ...). It is called with traced numbers, so it is written with `jax.numpy`.

    Example:
        >>> def swinging(t, cycle):  # eight times per cycle of 100
        ...     return x * (1 + 0.1 * jnp.sin(2 * jnp.pi * 8 * t / 100))
        >>> swung = osc.simulate(net, osc.Moving(swinging), y, osc.Rotating(0.2, 100.0), cycles=3)
        >>> bool(osc.relative_error(swung.gradient(), run.gradient()) < 0.05)  # the mean input is x
        True
    """

    function: Callable = eqx.field(static=True, converter=functools.partial(as_function, "function"))

    def at(self, t: Real[Array, ""], cycle: Cycle, period: Period) -> Array:
        return jnp.asarray(self.function(t, cycle))


class TimeSeries(AbstractMoving):
    r"""A recorded series, sampled at equal intervals and linear between the samples.

    As inputs, `simulate(net, osc.TimeSeries(values, interval), y, ...)`: the series starts with cycle 0, and goes on
    from cycle to cycle. How gradients are read is told at `Moving`. As noise, see `RecordedNoise`.

    Attributes:
        values: (times, ...); as inputs (times, batch, ...).
        interval: the time between two samples, in units of time.
        repeat: whether the series begins anew after its end. If not, runs that are longer than it are refused.

    Raises:
        ValueError: fewer than two samples, values that are not finite, an interval that is not positive; when run, a
            series that is too short.

    Example:
        >>> frames = jnp.stack([x, 0.8 * x, 0.9 * x])
        >>> film = osc.TimeSeries(frames, interval=150.0)
        >>> print(film.duration)
        300.0
        >>> shown = osc.simulate(net, film, y, osc.Rotating(0.2, 100.0), cycles=3)
    """

    values: Real[Array, "times ..."]
    interval: Scalar
    repeat: bool = eqx.field(static=True)

    def __init__(self, values: ArrayLike, interval: ArrayLike, repeat: bool = False):
        self.values = as_finite("values", values)
        if self.values.ndim == 0 or len(self.values) < 2:
            raise BadValue(f"values has shape {self.values.shape}: give two samples in time at least, (times, ...)")
        self.interval = positive("interval")(interval)
        self.repeat = as_flag("repeat", repeat)

    @property
    def duration(self) -> float:
        """How long it lasts, in units of time."""
        return float(self.interval) * (len(self.values) - (not self.repeat))

    def at(self, t: Real[Array, ""], cycle: Cycle, period: Period) -> Array:
        per_cycle = period / self.interval
        whole = jnp.floor(per_cycle)  # counted in integers: no digits are lost to a long past
        share = cycle * (per_cycle - whole) + t / self.interval
        low = jnp.floor(share)
        return self.between(cycle * whole.astype(jnp.int32) + low.astype(jnp.int32), share - low)

    def between(self, index: Int[Array, "..."], share: Real[Array, "..."]) -> Array:
        """The value at the sample of that index, and so much on the way to the next; nan after the end."""
        times = len(self.values)
        if self.repeat:
            return self._line(index % times, (index + 1) % times, share)
        last = (index == times - 1) & (share < 1e-3)  # the end itself, as rounding has it
        line = self._line(index, index + 1, share)
        return jnp.where(last, self.values[-1], jnp.where(index < times - 1, line, jnp.nan))

    def _line(self, low: Int[Array, "..."], high: Int[Array, "..."], share: Real[Array, "..."]) -> Array:
        share = jnp.asarray(share, self.values.dtype)
        return self.values[low] + share * (self.values[high] - self.values[low])

    def samples(self, period: Period) -> int:
        if is_traced(period, self.interval):
            return SAMPLES
        return max(SAMPLES, 2 * math.ceil(float(period) / float(self.interval)))

    def check_lasts(self, first: int, cycles: int, period: float) -> None:
        needed = (first + cycles) * period
        if not self.repeat and needed > self.duration * (1 + 1e-6):
            left = int(self.duration / period) - first
            remedy = f"run {left} cycles" if left > 0 else "use a shorter period, a longer series"
            raise BadValue(
                f"cycles={cycles} of period {period:g} last to time {needed:g}, and this TimeSeries of "
                f"{len(self.values)} samples ends at {self.duration:g}: {remedy}, or give repeat=True"
            )


def check_moving(x: AbstractMoving, period: Period) -> None:
    """Refuse a function of time that cannot be called with traced numbers.

    Raises:
        TypeError: it is written for NumPy, or takes other arguments than `(t, cycle)`.
    """
    try:
        jax.eval_shape(x.at, jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32), period)
    except TypeError as error:
        raise BadType(
            "x=Moving(function): function(t, cycle) cannot be called with traced numbers; write it with jax.numpy, or "
            f"sample it as TimeSeries(values, interval) ({str(error).splitlines()[0]})"
        ) from error
