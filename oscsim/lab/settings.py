"""Settings of the lab, its example networks, and presets that each show one point of the paper."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import NamedTuple, TypeAlias
from urllib.parse import urlencode

import diffrax
import jax
import numpy as np

import oscsim as osc
from oscsim.datasets import load as load_data
from oscsim.dynamics import Plan
from oscsim.lab.classic import PhaseMeans, TwoPhase
from oscsim.networks import Data, fastest_neuron

STEPS, TICKS = 640, 320
"""Steps and ticks of every cycle. They do not follow the period, so that a change of it compiles nothing."""

SHORTEST, LONGEST = 10.0, 320.0
"""Limits of the period: at the longest a step is half a time constant."""

MOST_REALISATIONS = 16
"""So many are always computed, which costs little; the setting says how many are shown. Learning takes one."""

SIGNALS = {
    "turning (holomorphic EP)": "turning",
    "turning, tunes itself": "adaptive",
    "two phases (classic EP)": "two-phase",
}
NOISES = {
    "none": "none",
    "white, on the potentials": "white",
    "Ornstein–Uhlenbeck": "ornstein-uhlenbeck",
    "multiplicative": "multiplicative",
    "on the teaching signal": "teaching",
    "in the readout": "readout",
}
DEMODULATORS = {
    "boxcar, one cycle": "boxcar",
    "exponential, 5 cycles": "exponential",
    "Hann window, 4 cycles": "hann",
}
"""Choices, by what the page calls them."""

Value: TypeAlias = str | bool | int | float
"""Of a setting."""


@dataclass(frozen=True)
class Settings:
    """All settings of the lab, as plain values. Times are in units of the neurons' time constant.

    Attributes:
        network: which of the lab's networks: an example's name, or that of the user's own.
        sample: index of the input that is shown.
        signal: `"turning"` (holomorphic equilibrium propagation), `"adaptive"` (the same, with an amplitude for each
            sample that tunes itself) or `"two-phase"` (the classic one).
        amplitude: of the teaching signal, dimensionless; what it starts with where it tunes itself.
        period: of the teaching signal, in time constants; 10 to 320.
        noise: what kind of noise there is.
        intensity: its strength: $q$ of noise on the potentials, the relative amplitude and the phase in radians of
            noise on the teaching signal, the standard deviation of one reading of noise in the readout.
        correlation_time: of Ornstein-Uhlenbeck and teaching noise, in time constants.
        demodulator: how the turning signal is read; two phases are always read as means over their second halves.
        discard: cycles left out after each change, until the network has locked again.
        realisations: how many independent realisations of the noise are shown, 1 to 16.
        seed: of the noise, and of the order of samples in learning.
        learning: whether the weights learn.
        learning_rate: of gradient descent, in batches of 20.

    Raises:
        ValueError: a value out of its range; names it and says what to use.

    Example:
        >>> settings = osc.lab.Settings(amplitude=0.2, noise="none")
        >>> settings.changed(period=50.0).period
        50.0
    """

    network: str = "6-4-4-4"
    sample: int = 0
    signal: str = "turning"
    amplitude: float = 0.39
    period: float = 100.0
    noise: str = "white"
    intensity: float = 0.05
    correlation_time: float = 5.0
    demodulator: str = "boxcar"
    discard: int = 1
    realisations: int = 4
    seed: int = 0
    learning: bool = False
    learning_rate: float = 0.3

    def __post_init__(self):
        values = vars(self)
        for name, choices in (("signal", SIGNALS), ("noise", NOISES), ("demodulator", DEMODULATORS)):
            if values[name] not in choices.values():
                raise osc.BadValue(f"{name}={values[name]!r}: use one of {', '.join(map(repr, choices.values()))}")
        periods = f"{SHORTEST:g} to {LONGEST:g} time constants; osc.simulate takes any"
        most = f"an integer from 1 to {MOST_REALISATIONS}"
        shortest = f"{LONGEST / STEPS:g} or more, the longest step; below that use white noise"
        for names, kind, holds, remedy in (
            (("amplitude", "correlation_time", "learning_rate"), Real, lambda v: v > 0, "a positive, finite number"),
            (("intensity",), Real, lambda v: v >= 0, "a finite number that is not negative"),
            (("period",), Real, lambda v: SHORTEST <= v <= LONGEST, periods),
            (("correlation_time",), Real, lambda v: v >= LONGEST / STEPS, shortest),
            (("sample", "discard", "seed"), Integral, lambda v: v >= 0, "an integer from 0 on"),
            (("realisations",), Integral, lambda v: 1 <= v <= MOST_REALISATIONS, most),
        ):
            for name in names:
                value = values[name]
                if isinstance(value, bool) or not (isinstance(value, kind) and math.isfinite(value) and holds(value)):
                    raise osc.BadValue(f"{name}={value!r}: use {remedy}")

    def changed(self, **changes: Value) -> "Settings":
        """These settings with some values changed.

        Raises:
            ValueError: a value out of its range, or a name that is none of the settings.
        """
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise osc.BadValue(f"{unknown[0]}={changes[unknown[0]]!r}: there is no such setting in the lab")
        return replace(self, **changes)

    @property
    def link(self) -> str:
        """The query of an address that restores these settings: those that are not the default."""
        changed = {name: value for name, value in vars(self).items() if value != vars(_DEFAULT)[name]}
        return "?" + urlencode(changed) if changed else ""

    def restored(self, words: Mapping[str, str]) -> "Settings":
        """These settings with what an address says; names that are none of theirs are left out.

        Raises:
            ValueError: a word that is no value of its setting.
        """
        changes: dict[str, Value] = {}
        for name in vars(self).keys() & words.keys():
            word, kind = words[name], type(vars(_DEFAULT)[name])
            try:
                changes[name] = {"True": True, "False": False}[word] if kind is bool else kind(word)
            except (ValueError, KeyError):
                raise osc.BadValue(f"{name}={word[:40]!r} in the address is not of type {kind.__name__}") from None
        return self.changed(**changes)

    @property
    def discarded(self) -> int:
        """Cycles that are left out: `discard`, or more where the demodulator needs them."""
        return max(self.discard, self.reader.warm_up)

    @property
    def teaching(self) -> osc.AbstractTeaching:
        """The teaching signal."""
        if self.signal == "adaptive":
            return osc.Adaptive(self.period, self.amplitude, min(1e-3, self.amplitude), max(1.0, self.amplitude))
        if self.signal == "turning":
            return osc.Rotating(self.amplitude, self.period)
        return TwoPhase(self.amplitude, self.period)

    @property
    def disturbance(self) -> osc.AbstractNoise | None:
        """The noise."""
        q, time = self.intensity, self.correlation_time
        kinds: Mapping[str, Callable[[], osc.AbstractNoise | None]] = {
            "none": lambda: None,
            "white": lambda: osc.WhiteNoise(q),
            "ornstein-uhlenbeck": lambda: osc.OrnsteinUhlenbeck(q, time),
            "multiplicative": lambda: osc.Multiplicative(q),
            "teaching": lambda: osc.TeachingNoise(amplitude=q, phase=q, correlation_time=time),
            "readout": lambda: osc.ReadoutNoise(q),
        }
        return kinds[self.noise]()

    @property
    def reader(self) -> osc.AbstractDemodulator:
        """The demodulator."""
        if self.signal == "two-phase":
            return PhaseMeans()
        return {"boxcar": osc.Boxcar, "exponential": osc.Exponential, "hann": osc.Hann}[self.demodulator]()

    def system(self, net: osc.AbstractNetwork) -> osc.System:
        """This network under signal and noise, in equal steps of Heun, so that noise can be switched on any time."""
        plan = Plan.of(
            osc.Integration(diffrax.Heun(), None, steps_for(net), TICKS), self.reader, net, self.teaching, ()
        )
        noise = self.disturbance
        return osc.System(net, self.teaching, () if noise is None else (noise,), plan)


_DEFAULT = Settings()


def steps_for(net: osc.AbstractNetwork) -> int:
    """Steps of every cycle: `STEPS`, or a multiple for neurons faster than one time constant."""
    return STEPS * max(1, math.ceil(1 / fastest_neuron(net.time_constants)))


class Example(NamedTuple):
    """A network of the lab, with data to show it.

    Example:
        >>> own = {"mine": osc.lab.Example(net, x, y, x, y)}
        >>> engine = osc.lab.Engine(osc.lab.Settings(network="mine"), own)
        >>> engine.net.sizes
        (6, 5, 4)
    """

    network: osc.AbstractNetwork
    x: Data
    y: Data
    x_test: Data
    y_test: Data


EXAMPLES = ("6-4-4-4", "6-4-4-4 cosine", "digits")
"""What `example` knows."""


def example(name: str) -> tuple[osc.AbstractNetwork, Data, Data]:
    """A network of the lab and its training data, (network, x, y).

    `"6-4-4-4"` has two layers of four neurons and data of four clusters in six dimensions; `"6-4-4-4 cosine"` has
    the raised cosine as its activation, which grows exponentially off the real axis, so that it runs away past the
    convergence radius; `"digits"` has 32 neurons and the handwritten digits of scikit-learn.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> network, inputs, labels = osc.lab.example("6-4-4-4")
        >>> network.sizes, inputs.shape
        ((6, 4, 4, 4), (160, 6))
    """
    return examples(name)[:3]


@functools.cache
def examples(name: str) -> Example:
    """The example of that name, with held-out data."""
    if name == "digits":
        (x, y), (x_test, y_test) = (load_data("digits", split) for split in ("train", "test"))
        return Example(osc.LayeredNetwork((64, 32, 10), key=jax.random.key(0)), x, y, x_test, y_test)
    if name in EXAMPLES:
        rng = np.random.default_rng(0)
        centres = rng.uniform(size=(4, 6))
        y = (np.arange(240) % 4).astype(np.int32)
        x = np.clip(centres[y] + 0.15 * rng.normal(size=(240, 6)), 0, 1).astype(np.float32)
        net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(1))
        if name == "6-4-4-4 cosine":
            net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(4), scale=0.3, activation=osc.RaisedCosine())
        return Example(net, x[:160], y[:160], x[160:], y[160:])
    raise osc.BadValue(f"network={name!r}: use one of {', '.join(map(repr, EXAMPLES))}, or give a network and its data")


class Preset(NamedTuple):
    """Settings that show one point, and the words that go with them.

    The explanation is true for relative errors in the range `error`: past it the page does not say it.
    """

    title: str
    explanation: str
    changes: dict[str, Value]
    error: tuple[float, float] = (0.0, math.inf)


_KEPT = ("seed", "correlation_time", "learning_rate")  # whatever the preset
TOY: dict[str, Value] = {name: value for name, value in vars(Settings(realisations=8)).items() if name not in _KEPT}
"""Where presets and the tour start from."""

PRESETS: dict[str, Preset] = {
    "classic": Preset(
        "Classic EP drowns in noise",
        "Classic equilibrium propagation needs a small nudge, A = 0.01, since its bias grows with it. The answer of "
        "the neurons is then lost in the noise, and the direction of the gradient scatters between realisations.",
        {**TOY, "signal": "two-phase", "amplitude": 0.01},
        error=(0.2, math.inf),
    ),
    "finite": Preset(
        "Finite amplitude survives",
        "The same noise, but a signal that turns, 39 times as large. The gradient is exact at any amplitude below the "
        "convergence radius, so the signal may be large, and noise counts the less the larger it is.",
        TOY,
        error=(0.0, 0.1),
    ),
    "too-large": Preset(
        "Too large: past the radius",
        "Past the convergence radius (dashed circle) the response leaves the sheet of the free equilibrium: negative "
        "harmonics rise out of the noise, and an error remains that no averaging removes.",
        {**TOY, "amplitude": 3.0, "intensity": 0.02},
        error=(0.1, math.inf),
    ),
    "lag": Preset(
        "Period too short: lag",
        "The neurons lag behind a signal of 12 time constants: a bias of O((τ/T)²), the same at every amplitude, that "
        "no averaging removes and that the linear response predicts (dotted).",
        {**TOY, "period": 12.0, "intensity": 0.02},
        error=(0.1, math.inf),
    ),
    "learns": Preset(
        "It learns",
        "Weights move down the gradient while the signal never stops; each of 20 digits has an amplitude of its own, "
        "which is lowered where the radius is passed and raised where noise dominates.",
        {**TOY, "network": "digits", "signal": "adaptive", "amplitude": 0.051, "intensity": 0.01}
        | {"learning": True, "learning_rate": 0.3},
        error=(0.0, 0.3),
    ),
    "diverges": Preset(
        "It runs away",
        "Neurons with a raised cosine as activation have nothing to hold them past the convergence radius.",
        {**TOY, "network": "6-4-4-4 cosine", "amplitude": 2.4, "intensity": 0.02},
    ),
}
"""What the buttons of the page show."""
