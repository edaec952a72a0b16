"""Predictions for the present settings, computed beside the live loop and remembered.

Bias, spread, radius, optimal amplitude and stability map come from `oscsim.response`; the noise floor of the spectrum
comes from the resolvent of the free equilibrium.
"""

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeAlias, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

import oscsim as osc
from oscsim.core import norm
from oscsim.equilibrium import as_layers, flat, flat_force, flat_time_constants, free_state
from oscsim.lab.engine import WATCHED, WINDOW
from oscsim.lab.programs import first_time, layout
from oscsim.lab.settings import TICKS, Settings
from oscsim.networks import Data, Gradient
from oscsim.response import (
    OptimalAmplitude,
    Spectra,
    VarianceTerms,
    convergence_radius,
    optimal_amplitude,
    predict_bias,
    predict_spread,
    stability_map,
)

HARMONICS = 8
"""Harmonics in the spectrum, to either side."""

LARGEST = 256
"""No noise floor is predicted for more neurons: it takes an inverse of their matrix at every frequency."""

AVERAGED = 10
"""Cycles in the average that the optimal amplitude is for."""

Predictable: TypeAlias = osc.WhiteNoise | osc.OrnsteinUhlenbeck
"""Noise whose scatter is predicted."""


@dataclass(frozen=True)
class Forecast:
    """A prediction. Errors are relative to the norm of the exact gradient (of the array, or of `all`).

    Attributes:
        settings: what it is for.
        radius: estimate of the convergence radius; inf where none was found.
        bias: of the gradient, by parameter array and for `all`; averaging does not change it.
        spread: standard deviation of the gradient of one cycle; empty where it is not predicted.
        variance: the squared spread of `all` as a function of the amplitude; or None.
        optimum: the amplitude of least error for an average of ten cycles; or None.
        floor: (watched, frequencies) predicted size of the noise in a spectrum over `WINDOW` cycles; or None.
        note: what is not predicted, and why; None while the answer is not complete.
    """

    settings: Settings
    radius: float
    bias: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    variance: VarianceTerms | None = None
    optimum: OptimalAmplitude | None = None
    floor: np.ndarray | None = None
    note: str | None = None

    def error(self, amplitude: ArrayLike, averaged: int) -> np.ndarray | None:
        """The total relative error at an amplitude, after so many cycles; None where the spread is not predicted."""
        if self.variance is None:
            return None
        size = np.asarray(amplitude, float)
        return np.asarray(np.sqrt(self.bias["all"] ** 2 + self.variance.at(size) / max(averaged, 1)))

    def fits(self, settings: Settings) -> bool:
        """Whether it is for these settings; those it does not depend on may differ."""
        return relevant(self.settings) == relevant(settings) and not settings.learning

    def holds(self, amplitude: float) -> bool:
        """Whether the amplitude is below the radius, where the theory holds."""
        return self.settings.signal == "two-phase" or amplitude < self.radius

    def band(self, name: str, averaged: int, amplitude: float | None = None) -> tuple[float, float, float]:
        """Bias, root mean square error, and error with two deviations of the noise, of one array or `all`.

        For `all`, `amplitude` gives the noise at another amplitude: one that tuned itself.
        """
        bias, spread = self.bias.get(name, math.nan), self.spread.get(name, math.nan)
        if amplitude is not None and name == "all" and self.variance is not None:
            spread = math.sqrt(float(self.variance.at(np.asarray(amplitude))))
        spread /= math.sqrt(max(averaged, 1))
        return bias, math.hypot(bias, spread), math.hypot(bias, 2 * spread)


def relevant(settings: Settings) -> Settings:
    """The settings, with fixed values for those that no forecast depends on."""
    return settings.changed(discard=0, realisations=1, seed=0, learning_rate=1.0)


def frequencies() -> np.ndarray:
    """Where the spectrum is taken, in units of the drive's frequency."""
    return np.arange(-HARMONICS * WINDOW, HARMONICS * WINDOW + 1) / WINDOW


def forecasts(net: osc.AbstractNetwork, x: Data, y: Data, settings: Settings) -> Iterator[Forecast]:
    """Predictions for these settings and this sample: a partial answer soon, the complete one last.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
    """
    noise, notes = settings.disturbance, []
    turning = osc.Rotating(settings.amplitude, settings.period)
    shape = layout(net), np.shape(x)
    with first_time("radius", shape):
        radius = convergence_radius(net, x, y)
        radius = math.inf if radius >= 100 else radius
    found = Forecast(settings, radius)
    yield found
    with first_time("floor", shape, settings.noise):
        found = replace(found, floor=noise_floor(net, x, y, settings))
    yield found
    with first_time("bias", shape, settings.signal):
        exact = osc.exact_gradient(net, x, y)
        if settings.signal == "two-phase":
            estimate = osc.Classic(settings.amplitude)(net, x, y).gradient
            difference = jax.tree.map(jnp.subtract, estimate, exact)
        else:
            difference = predict_bias(net, x, y, settings.period)
        found = replace(found, bias=_relative(difference, exact))
    yield found
    if settings.signal == "two-phase":
        notes.append("the scatter of two phases is not predicted, only their bias")
    elif noise is not None and not isinstance(noise, Predictable):
        notes.append(f"the scatter under {settings.noise} noise is not predicted: it is not additive on the potentials")
    elif noise is not None and settings.intensity > 0:
        with first_time("spread", shape, settings.noise):
            spread = _relative(predict_spread(net, x, y, turning, noise, 1, ticks=TICKS), exact)
            variance = _variance(net, x, y, settings, noise, exact, min(radius, 10.0))
        with first_time("optimum", shape, settings.noise):
            optimum = optimal_amplitude(net, x, y, settings.period, noise, AVERAGED, ticks=TICKS)
        found = replace(found, spread=spread, variance=variance, optimum=optimum)
        if settings.demodulator != "boxcar":
            notes.append("the band is that of the boxcar")
    else:
        found = replace(found, spread=dict.fromkeys(found.bias, 0.0), variance=VarianceTerms(0.0, 0.0, 0.0))
    if settings.amplitude > radius and settings.signal == "turning":
        notes.append("predictions hold below the convergence radius")
    yield replace(found, note="; ".join(notes))


def forecast(net: osc.AbstractNetwork, x: Data, y: Data, settings: Settings) -> Forecast:
    """The complete answer of `forecasts`."""
    *_, last = forecasts(net, x, y, settings)
    return last


def _relative(difference: Gradient, exact: Gradient) -> dict[str, float]:
    def ratio(a, b):
        return norm(a) / norm(b)

    found = {name: float(value) for name, value in osc.per_layer(ratio, difference, exact).items()}
    return {**found, "all": float(ratio(difference, exact))}


def _variance(
    net: osc.AbstractNetwork, x: Data, y: Data, settings: Settings, noise: Predictable, exact: Gradient, radius: float
) -> VarianceTerms:
    """The squared spread of one cycle as a function of the amplitude."""
    spectra = Spectra.of(net, noise, settings.period, TICKS)
    terms = VarianceTerms.of(net, *free_state(net, x, y), spectra, bool(noise.shared_over_batch), radius)
    return VarianceTerms(*(term / (settings.period * float(norm(exact)) ** 2) for term in terms))


def noise_floor(net: osc.AbstractNetwork, x: Data, y: Data, settings: Settings) -> np.ndarray | None:
    r"""The size of the noise in a spectrum over `WINDOW` cycles of each watched activity, at all `frequencies()`.

    $\sqrt{S_j(\nu) / (W T)}$ with $S_j = \sigma_j'^2 \sum_k |R_{jk}(\nu)|^2 S(\nu)$ and the resolvent
    $R(\nu) = (i\nu\tau + 1 - \partial F/\partial u)^{-1}$ of the free equilibrium.

    None where the noise is not additive on the potentials, or there are too many neurons.
    """
    noise = settings.disturbance
    sizes = [math.prod(shape) for shape in net.shapes]
    watched = np.concatenate([np.arange(n) < WATCHED for n in sizes])  # as in the engine
    if isinstance(noise, osc.ReadoutNoise):
        return np.full((watched.sum(), len(frequencies())), settings.intensity / math.sqrt(WINDOW * TICKS))
    if not isinstance(noise, Predictable) or sum(sizes) > LARGEST or settings.intensity == 0:
        return None
    inputs, free = free_state(net, x, y)
    jacobian, slope = map(np.asarray, _linearised(net, inputs, free.potentials))
    tau = np.asarray(flat_time_constants(net))
    omega = 2 * np.pi / settings.period
    power = np.zeros((watched.sum(), len(frequencies())))
    for fold in (-1, 0, 1):  # noise around the rate of the ticks is read as if it were slow
        nu = omega * (frequencies() + fold * TICKS)
        for place, one in enumerate(nu):  # one at a time: the other threads want the processor too
            resolvent = np.linalg.inv(np.diag(1 + 1j * one * tau) - jacobian)[watched]
            power[:, place] += np.sum(np.abs(resolvent) ** 2, axis=1) * float(noise.spectrum(one))
    return np.abs(slope[watched])[:, None] * np.sqrt(power / (WINDOW * settings.period))


@eqx.filter_jit
def _linearised(
    net: osc.AbstractNetwork, inputs: osc.Inputs, u: osc.Layers
) -> tuple[Float[Array, "neurons neurons"], Float[Array, " neurons"]]:
    """The Jacobian of the force on the first sample's neurons, and the slopes of their activities."""
    clamped, y, layers = jax.tree.map(lambda a: a[0], (inputs.clamped, inputs.y, u))
    force, v = flat_force(net, clamped, y), flat(layers)

    def activities(v):
        return flat(net.activities(as_layers(net, v[None])))

    jacobian = jax.jacfwd(lambda v: force(v, jnp.zeros((), net.dtype)))(v)
    return jacobian, jax.jvp(activities, (v,), (jnp.ones_like(v),))[1]


@dataclass(frozen=True)
class Map:
    """Where in the plane of the teaching signal the free equilibrium continues to.

    Attributes:
        reach: the picture spans -reach to reach in both directions.
        settled: (rows, columns), 1 where it does, 0 where not, nan where it is not computed yet.
    """

    reach: float
    settled: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether all of it is computed."""
        return not bool(np.isnan(self.settled).any())


MAP_POINTS, MAP_STEPS = 61, 40


def maps(net: osc.AbstractNetwork, x: Data, y: Data, radius: float) -> Iterator[Map]:
    """The stability map row by row: a row is quick, so other visitors need not wait for the whole map."""
    reach = 1.75 * min(radius, 2.0)
    axis = np.linspace(-reach, reach, MAP_POINTS)
    settled = np.full((MAP_POINTS, MAP_POINTS), np.nan)
    middle = MAP_POINTS // 2
    for row in range(middle + 1):  # s(conj beta) = conj s(beta): the lower half mirrors the upper
        with first_time("map", layout(net), np.shape(x)):
            found = stability_map(net, x, y, axis + 1j * axis[middle + row], steps=MAP_STEPS)
        settled[middle + row] = settled[middle - row] = np.asarray(found.settled)
        yield Map(reach, settled.copy())


T = TypeVar("T")


class Replay(Generic[T]):
    """An iterable that can be left and taken up again: it gives its last value once more, then the rest."""

    def __init__(self, source: Iterator[T]):
        self.source = source
        self.last: list[T] = []

    def __iter__(self) -> Iterator[T]:
        """The last value seen, then the rest."""
        yield from self.last
        for value in self.source:
            self.last = [value]
            yield value


class Memory(Generic[T]):
    """Keeps the results that were used last, by key."""

    def __init__(self, size: int):
        self.size = size
        self.kept: dict[Hashable, T] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of that key, made now if there is none."""
        found = self.kept.pop(key) if key in self.kept else make()
        self.kept[key] = found  # the newest is the last
        if len(self.kept) > self.size:
            del self.kept[next(iter(self.kept))]
        return found
