"""What the theory expects of the present settings, computed beside the live loop and remembered.

Everything comes from `oscsim.response`: bias, spread, radius, optimal amplitude, stability map; and the noise floor of
the spectrum from the resolvent of the free equilibrium.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oscsim._arrays import norm
from oscsim.equilibrium import exact_gradient, settle
from oscsim.estimators import Classic
from oscsim.lab.engine import WATCHED, WINDOW
from oscsim.lab.programs import first_time, layout
from oscsim.lab.settings import TICKS, Settings
from oscsim.metrics import per_layer
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.inputs import Inputs
from oscsim.noise import AbstractForcing, AbstractNoise, OrnsteinUhlenbeck, ReadoutNoise, WhiteNoise
from oscsim.response import (
    OptimalAmplitude,
    convergence_radius,
    optimal_amplitude,
    predict_bias,
    predict_spread,
    stability_map,
)

HARMONICS = 8
"""How far the spectrum reaches to either side."""

LARGEST = 256
"""Neurons up to which a noise floor is predicted: it takes an inverse of their matrix at every frequency."""

AVERAGED = 10
"""Cycles that the optimal amplitude is for."""


@dataclass(frozen=True)
class Forecast:
    """What to expect. Errors are relative to the norm of the exact gradient (of the array, or of `all`).

    Attributes:
        settings: what it is for.
        radius: estimate of the convergence radius; inf where none was found.
        bias: of the gradient, by parameter array and for `all`, whatever the averaging.
        spread: standard deviation of the gradient of one cycle; empty where it is not predicted.
        variance: a, b, c of `all`: the squared spread at amplitude $A$ is $a/A^2 + b + c A^2$; or None.
        optimum: the amplitude of least error for an average of ten cycles; or None.
        floor: (watched, frequencies) predicted size of the noise in a spectrum over `WINDOW` cycles; or None.
        note: in words, what is not predicted, and why; None while the answer is not complete.
    """

    settings: Settings
    radius: float
    bias: dict[str, float]
    spread: dict[str, float]
    variance: tuple[float, float, float] | None
    optimum: OptimalAmplitude | None
    floor: np.ndarray | None
    note: str | None

    def error(self, amplitude: Any, averaged: int) -> np.ndarray | None:
        """The total relative error at an amplitude, after so many cycles; None where the spread is not predicted."""
        if self.variance is None:
            return None
        a, b, c = self.variance
        size = np.asarray(amplitude, float)
        variance = np.maximum(a / size**2 + b + c * size**2, 0) / max(averaged, 1)
        return np.asarray(np.sqrt(self.bias["all"] ** 2 + variance))

    def fits(self, settings: Settings) -> bool:
        """Whether it is for these settings, up to those that it does not depend on."""
        return _relevant(self.settings) == _relevant(settings) and not settings.learning

    @property
    def holds(self) -> bool:
        """Whether the amplitude is below the radius, where the theory is at home."""
        return self.settings.signal == "two-phase" or self.settings.amplitude < self.radius

    def band(self, name: str, averaged: int) -> tuple[float, float, float]:
        """Of one array: the bias, the root mean square error, and the error with two deviations of the noise."""
        bias, spread = self.bias.get(name, math.nan), self.spread.get(name, math.nan) / math.sqrt(max(averaged, 1))
        return bias, math.hypot(bias, spread), math.hypot(bias, 2 * spread)

    def cosine(self, name: str, averaged: int) -> float:
        """About what the cosine will be: that of a true gradient with an error at right angles to it."""
        _, error, _ = self.band(name, averaged)
        return 1 / math.sqrt(1 + error**2)


def _relevant(settings: Settings) -> Settings:
    return settings.changed(discard=0, realisations=1, seed=0, learning_rate=1.0)


def frequencies() -> np.ndarray:
    """Where the spectrum is taken, in units of the drive's frequency."""
    return np.arange(-HARMONICS * WINDOW, HARMONICS * WINDOW + 1) / WINDOW


def forecasts(net: AbstractNetwork, x: Any, y: Any, settings: Settings) -> Iterator[Forecast]:
    """What the theory expects of these settings, for the sample given: a first answer soon, the whole one last.

    Raises:
        NotSettledError: the free network has no stable state.
        NotHolomorphicError: the network declares itself non-holomorphic.
    """
    # the lab says so itself, and a warning from a thread reaches nobody
    warnings.filterwarnings("ignore", message="period=.* is below 50 tau")
    noise, notes = settings.disturbance, []
    shape = layout(net), np.shape(x)
    with first_time("radius", shape):
        radius = convergence_radius(net, x, y)
        radius = math.inf if radius >= 100 else radius
    yield Forecast(settings, radius, {}, {}, None, None, None, None)
    with first_time("floor", shape, settings.noise):
        floor = noise_floor(net, x, y, settings)
    yield Forecast(settings, radius, {}, {}, None, None, floor, None)
    with first_time("bias", shape, settings.signal):
        exact = exact_gradient(net, x, y)
        if settings.signal == "two-phase":
            estimate = Classic(settings.amplitude)(net, x, y).gradient
            difference = jax.tree.map(jnp.subtract, estimate, exact)
        else:
            difference = predict_bias(net, x, y, settings.period)
        bias = _relative(difference, exact)
    yield Forecast(settings, radius, bias, {}, None, None, floor, None)
    spread, variance, optimum = {}, None, None
    if settings.signal == "two-phase":
        notes.append("the scatter of two phases is not predicted, only their bias")
    elif noise is not None and not isinstance(noise, (WhiteNoise, OrnsteinUhlenbeck)):
        notes.append(f"the scatter under {settings.noise} noise is not predicted: it is not additive on the potentials")
    elif noise is not None and settings.intensity > 0:
        with first_time("spread", shape, settings.noise):
            spread = _relative(predict_spread(net, x, y, settings.teaching, noise, 1, ticks=TICKS), exact)
            variance = _variance(net, x, y, settings, noise, exact, min(radius, 10.0))
        with first_time("optimum", shape, settings.noise):
            optimum = optimal_amplitude(net, x, y, settings.period, noise, AVERAGED, ticks=TICKS)
        if settings.demodulator != "boxcar":
            notes.append("the band is that of the boxcar")
    else:
        spread, variance = dict.fromkeys(bias, 0.0), (0.0, 0.0, 0.0)
    if settings.amplitude > radius and settings.signal == "turning":
        notes.append("predictions hold below the convergence radius")
    yield Forecast(settings, radius, bias, spread, variance, optimum, floor, "; ".join(notes))


def forecast(net: AbstractNetwork, x: Any, y: Any, settings: Settings) -> Forecast:
    """The whole answer of `forecasts`."""
    *_, last = forecasts(net, x, y, settings)
    return last


def _relative(difference: Any, exact: Any) -> dict[str, float]:
    def ratio(a, b):
        return norm(a) / norm(b)

    found = {name: float(value) for name, value in per_layer(ratio, difference, exact).items()}
    return {**found, "all": float(ratio(difference, exact))}


def _variance(
    net: AbstractNetwork, x: Any, y: Any, settings: Settings, noise: AbstractNoise, exact: Any, radius: float
) -> tuple[float, float, float]:
    """The squared spread of one cycle as a function of the amplitude: three numbers, from three amplitudes."""
    sizes = radius * np.array([0.1, 0.5, 1.0])
    squares = []
    for size in sizes:
        found = predict_spread(net, x, y, settings.changed(amplitude=float(size)).teaching, noise, 1, ticks=TICKS)
        squares.append(float(norm(found) / norm(exact)) ** 2)
    rows = np.stack([sizes**-2, np.ones(3), sizes**2], axis=1) / np.array(squares)[:, None]  # alike in size
    a, b, c = np.linalg.solve(rows, np.ones(3))
    return float(a), float(b), float(c)


def noise_floor(net: AbstractNetwork, x: Any, y: Any, settings: Settings) -> np.ndarray | None:
    r"""The size of the noise in a spectrum over `WINDOW` cycles of each watched activity, at all `frequencies()`.

    $\sqrt{S_j(\nu) / (W T)}$ with $S_j = \sigma_j'^2 \sum_k |R_{jk}(\nu)|^2 S(\nu)$ and the resolvent
    $R(\nu) = (i\nu\tau + 1 - \partial F/\partial u)^{-1}$ of the free equilibrium.

    None where the noise is not additive on the potentials, or there are too many neurons.
    """
    noise = settings.disturbance
    count = sum(math.prod(shape) for shape in net.shapes)
    watched = np.concatenate(
        [start + np.arange(min(WATCHED, size)) for start, size in _places(net)]
    )  # as in the engine
    span = WINDOW * settings.period
    if isinstance(noise, ReadoutNoise):
        level = settings.intensity / math.sqrt(WINDOW * TICKS)
        return np.full((len(watched), len(frequencies())), level)
    if not isinstance(noise, AbstractForcing) or count > LARGEST or settings.intensity == 0:
        return None
    if not isinstance(noise, (WhiteNoise, OrnsteinUhlenbeck)):
        return None
    inputs = Inputs.of(net, x, y)
    jacobian, slope = map(np.asarray, _linearised(net, inputs, settle(net, x, y).potentials))
    tau = np.concatenate(
        [np.broadcast_to(np.asarray(t), (1, *s)).ravel() for t, s in zip(net.time_constants, net.shapes, strict=True)]
    )
    omega = 2 * np.pi / settings.period
    power = np.zeros((len(watched), len(frequencies())))
    for fold in (-1, 0, 1):  # noise around the rate of the ticks is read as if it were slow
        nu = omega * (frequencies() + fold * TICKS)
        for place, one in enumerate(nu):  # one at a time: the other threads want the processor too
            resolvent = np.linalg.inv(np.diag(1 + 1j * one * tau) - jacobian)[watched]
            power[:, place] += np.sum(np.abs(resolvent) ** 2, axis=1) * float(noise.spectrum(one))
    return np.abs(slope[watched])[:, None] * np.sqrt(power / span)


def _places(net: AbstractNetwork) -> Iterator[tuple[int, int]]:
    """Where each layer begins in the vector of all neurons, and how many it has."""
    start = 0
    for shape in net.shapes:
        yield start, math.prod(shape)
        start += math.prod(shape)


@eqx.filter_jit
def _linearised(net: AbstractNetwork, inputs: Inputs, u: Any) -> tuple[Any, Any]:
    """The Jacobian of the force on the first sample's neurons, and the slopes of their activities."""
    shapes = [a[0].shape for a in u]
    ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
    first = jax.tree.map(lambda a: a[:1], (inputs.clamped, inputs.y))
    flat = jnp.concatenate([a[0].ravel() for a in u])

    def layers(v):
        return tuple(part.reshape(1, *s) for part, s in zip(jnp.split(v, ends), shapes, strict=True))

    def activities(v):
        return jnp.concatenate([a.ravel() for a in net.activities(layers(v))])

    def force(v):
        f = net.force(first[0], net.activities(layers(v)), first[1], jnp.zeros((), net.dtype))
        return jnp.concatenate([a.ravel() for a in f])

    return jax.jacfwd(force)(flat), jax.jvp(activities, (flat,), (jnp.ones_like(flat),))[1]


@dataclass(frozen=True)
class Map:
    """The plane of the teaching signal: which points the free equilibrium continues to.

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


def maps(net: AbstractNetwork, x: Any, y: Any, radius: float) -> Iterator[Map]:
    """The stability map, row by row: a row is quick, so that nobody has to wait for a map of somebody else's."""
    reach = 1.75 * min(radius, 2.0)
    axis = np.linspace(-reach, reach, MAP_POINTS)
    settled = np.full((MAP_POINTS, MAP_POINTS), np.nan)
    middle = MAP_POINTS // 2
    for row in range(middle + 1):  # s(conj beta) = conj s(beta): the lower half mirrors the upper
        with first_time("map", layout(net), np.shape(x)):
            found = stability_map(net, x, y, axis + 1j * axis[middle + row], steps=MAP_STEPS)
        settled[middle + row] = settled[middle - row] = np.asarray(found.settled)
        yield Map(reach, settled.copy())


class Replay:
    """An iterator that remembers its last value: whoever asks again gets that first, and what is left."""

    def __init__(self, source: Iterator[Any]):
        self.source, self.last = source, []

    def __iter__(self) -> Iterator[Any]:
        """The last value seen, then the rest."""
        yield from self.last
        for value in self.source:
            self.last = [value]
            yield value


class Memory:
    """The newest results by what they are of; the oldest go first."""

    def __init__(self, size: int = 64):
        self.size = size
        self.kept: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is remembered under that key, or is made now."""
        if key not in self.kept:
            self.kept[key] = make()
        self.kept.move_to_end(key)
        while len(self.kept) > self.size:
            self.kept.popitem(last=False)
        return self.kept[key]
