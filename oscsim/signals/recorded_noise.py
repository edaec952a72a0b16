"""Noise on the potentials that somebody measured."""

from typing import NamedTuple, TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Int, Key, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_flag, require_instance
from oscsim.core.errors import BadValue
from oscsim.networks.base import Layers
from oscsim.networks.moving import TimeSeries
from oscsim.signals.noise import AbstractForcing, Draw, Increment, is_srk

SEGMENTS = 64
"""The spectrum of a trace is the mean over so many segments of it, half over each other: good to one part in eight."""


class Integral(eqx.Module):
    r"""$\int (\xi - \bar\xi)\, dt$ of a series $\xi$ from its start on, in units of its interval.

    Attributes:
        series: $\xi$, linear between its samples.
        mean: $\bar\xi$, over all of it.
        sums: the integral at each sample.
        rest: what `sums` lack in their precision, so that no digits are lost in a difference of two.
    """

    series: TimeSeries
    mean: Array
    sums: Array
    rest: Array

    @staticmethod
    def of(series: TimeSeries) -> "Integral":
        values = np.asarray(series.values, np.float64)
        if series.repeat:
            values = np.concatenate([values, values[:1]])
        pieces = (values[1:] + values[:-1]) / 2
        mean = np.mean(pieces, axis=0)
        exact = np.concatenate([np.zeros_like(values[:1]), np.cumsum(pieces - mean, axis=0)])
        sums = exact.astype(series.values.dtype)
        return Integral(series, *(jnp.asarray(a, sums.dtype) for a in (mean, sums, exact - sums)))

    def over(self, start: "Place", end: "Place", step: Array) -> Array:
        r"""$\int \xi\, dt$ between two places, a `step` apart."""
        sums = self._whole(self.sums, end) - self._whole(self.sums, start)
        rest = self._whole(self.rest, end) - self._whole(self.rest, start)
        within = self._within(end) - self._within(start)
        return (sums + rest + within) * self.series.interval.astype(sums.dtype) + self.mean * step.astype(sums.dtype)

    def _whole(self, sums: Array, place: "Place") -> Array:
        times = len(self.sums) - 1
        return sums[place.index % times if self.series.repeat else jnp.minimum(place.index, times)]

    def _within(self, place: "Place") -> Array:
        """From the sample before a place to it."""
        share = place.share
        a, b = self.series.between(place.index, jnp.zeros_like(share)), self.series.between(place.index, share)
        return share * ((a + b) / 2 - self.mean)


class Place(NamedTuple):
    """Where in a series: past the sample of that index, by so much of an interval."""

    index: Int[Array, "..."]
    share: Real[Array, ""]

    def later(self, intervals: Real[Array, ""]) -> "Place":
        """So many intervals later."""
        share = self.share + intervals.astype(self.share.dtype)
        whole = jnp.floor(share)
        return Place(self.index + whole.astype(self.index.dtype), share - whole)


Recording: TypeAlias = TimeSeries | tuple[TimeSeries, ...]


class RecordedNoise(AbstractForcing):
    r"""A measured trace on the potentials: $\tau\, du = (-u + \partial\Phi/\partial s + \xi(t))\, dt$.

    $\xi$ is linear between its samples. A step adds $\int \xi\, dt$ over itself: where the trace is sampled more finely
    than the solver steps, nothing is aliased. The mean of the trace is part of it, as a constant current.

    With `random_start`, a trace (times,) serves all neurons: each neuron of each sample plays it from a random place,
    again and again. Its spectrum is estimated from the trace by Welch's method, so that `predict_spread` and
    `optimal_amplitude` work. Without it, the trace plays as it was recorded, from cycle 0 on, and nothing is predicted.

    Attributes:
        series: `TimeSeries(trace, interval, repeat=True)`. Without `random_start` also a tuple of one series per layer,
            each (times,), (times, neurons...) or (times, batch, neurons...).
        random_start: whether each neuron of each sample starts at a place of its own.

    Raises:
        TypeError: no series.
        ValueError: with `random_start`, a series that does not repeat or has more axes than time; when run, series that
            do not fit the layers or end too early, a solver that needs Lévy areas.

    Example:
        >>> trace = 0.02 * np.random.default_rng(0).normal(size=4096)  # measured every 0.5 time constants
        >>> noise = osc.RecordedNoise(osc.TimeSeries(trace, interval=0.5, repeat=True))
        >>> noisy = osc.simulate(net, x, y, osc.Rotating(0.2, 64.0), cycles=3, noise=noise, key=jax.random.key(0))
        >>> bool(noisy.lock_residual[-1] > run.lock_residual[-1])  # noise keeps the cycles apart
        True
    """

    series: Recording
    random_start: bool = eqx.field(static=True)
    _integrals: tuple[Integral, ...] = eqx.field(repr=False)
    _density: tuple[Array, Array] | None = eqx.field(repr=False)

    def __init__(self, series: Recording, random_start: bool = True):
        random_start = as_flag("random_start", random_start)
        each = series if isinstance(series, tuple) else (series,)
        for one in each:
            require_instance("series", one, TimeSeries, "use TimeSeries(trace, interval, repeat=True)")
        if is_traced(each):
            raise BadValue("series is traced by jax: make a RecordedNoise outside of the compiled function")
        if random_start and (isinstance(series, tuple) or series.values.ndim > 1 or not series.repeat):
            raise BadValue(
                "series with random_start=True: give one TimeSeries(trace, interval, repeat=True) of shape (times,), "
                "or random_start=False to play it as it was recorded"
            )
        self.series, self.random_start = series, random_start
        self._integrals = tuple(map(Integral.of, each))
        self._density = _welch(each[0]) if random_start else None

    @property
    def shared_over_batch(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether all samples of a batch see the same."""
        return not self.random_start

    def check(self, solver: diffrax.AbstractSolver, step: float, time_constants: tuple[Array, ...]) -> None:
        """Refuse solvers that need Lévy areas, and series for another number of layers."""
        if is_srk(solver):
            raise BadValue(f"solver={solver!r} needs Lévy areas, which a recorded noise has not: use diffrax.Heun()")
        layers = len(time_constants)
        if isinstance(self.series, tuple) and len(self.series) != layers:
            raise BadValue(f"series holds {len(self.series)} series for {layers} layers: give one per layer")

    def check_lasts(self, cycles: int, period: float) -> None:
        for integral in self._integrals:
            integral.series.check_lasts(0, cycles, period)

    def init(self, key: Key[Array, ""], u: Layers) -> tuple[Place, ...]:
        share = jnp.zeros((), u[0].real.dtype)
        if not self.random_start:
            self._check_widths(u)
            return (Place(jnp.zeros((), jnp.int32), share),) * len(u)
        times = len(self._integrals[0].series.values)

        def of_sample(sample):
            keys = jax.random.split(jax.random.fold_in(key, sample), len(u))
            return tuple(jax.random.randint(k, a.shape[1:], 0, times) for k, a in zip(keys, u, strict=True))

        starts = jax.vmap(of_sample)(jnp.arange(u[0].shape[0], dtype=jnp.uint32))
        return tuple(Place(start, share) for start in starts)

    def _check_widths(self, u: Layers) -> None:
        """Refuse series with other numbers of columns than there are neurons."""
        each = self._integrals * (len(u) if len(self._integrals) == 1 else 1)
        for layer, (integral, a) in enumerate(zip(each, u, strict=True), start=1):
            columns = integral.series.values.shape[1:]
            if columns not in ((), a.shape[1:], a.shape):
                raise BadValue(
                    f"series of layer {layer} has shape (times, {', '.join(map(str, columns))}), and the layer "
                    f"{a.shape[1:]} neurons in a batch of {a.shape[0]}: give (times,), (times, neurons...) or (times, "
                    "batch, neurons...), one series for each layer in a tuple"
                )

    def random(self, key: Key[Array, ""], u: Layers, area: bool) -> None:
        """Nothing is drawn."""
        return None

    def draw(self, state: tuple[Place, ...], random: None, step: Real[Array, ""], area: bool) -> Draw:
        integrals = self._integrals * (len(state) if len(self._integrals) == 1 else 1)
        after = tuple(
            place.later(step / integral.series.interval) for place, integral in zip(state, integrals, strict=True)
        )
        moved = tuple(
            integral.over(before, now, step).astype(now.share.dtype)
            for integral, before, now in zip(integrals, state, after, strict=True)
        )
        return Draw(after, Increment(moved, None), None)

    def amplitude(self, s: Layers) -> None:
        return None

    def spectrum(self, omega: ArrayLike) -> Array:
        r"""Welch's estimate of the trace's spectrum, without its mean; nan where the trace plays as recorded."""
        if self._density is None:
            return jnp.full(jnp.shape(omega), jnp.nan)
        frequencies, density = self._density
        return jnp.interp(jnp.abs(jnp.asarray(omega)), frequencies, density, right=0.0)


def _welch(series: TimeSeries) -> tuple[Array, Array]:
    """Angular frequencies and the two-sided power spectral density of a trace, linear between its samples."""
    import scipy.signal

    values = np.asarray(series.values, np.float64)
    length = min(len(values), max(256, 2 * len(values) // SEGMENTS))
    frequencies, density = scipy.signal.welch(values, 1 / float(series.interval), nperseg=length)
    density = density / 2  # one-sided as it comes
    density[0] = density[min(1, len(density) - 1)]  # the mean is taken off, and with it the lowest frequency
    linear = np.sinc(frequencies * float(series.interval)) ** 4  # what interpolation leaves
    dtype = series.values.dtype
    return jnp.asarray(2 * np.pi * frequencies, dtype), jnp.asarray(density * linear, dtype)
