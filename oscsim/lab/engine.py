"""The live computation behind the page: a network runs cycle after cycle while settings change.

Numbers are arguments of compiled functions: a changed number compiles nothing. A new kind of network, noise, signal or
demodulator compiles once in a process.
"""

import time
from collections import Counter, deque
from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

import oscsim as osc
from oscsim.core import Count, norm
from oscsim.dynamics import Averaged, Watch, Watched, failure, gradient_and_error, read_anew, response_lag
from oscsim.equilibrium import is_dense
from oscsim.lab.classic import two_phase_error
from oscsim.lab.programs import first_time, layout
from oscsim.lab.settings import MOST_REALISATIONS, Example, Settings, Value, examples
from oscsim.networks import Data, Gradient
from oscsim.training import labels_of

COMPILED: Counter[str] = Counter()
"""How often each program of the lab was compiled in this process."""

BATCH = 20
"""Samples per update of the weights."""

WINDOW = 8
"""Cycles in a spectrum."""

WATCHED = 32
"""Watched neurons of each layer, at most."""

PATIENCE = 4
"""A batch whose amplitudes are still being lowered is shown so many times longer, at most."""


Weights: TypeAlias = tuple[str, int, int]
"""Name of a network, sample, version of the weights."""


@dataclass(frozen=True)
class Frame:
    """What the lab shows of one cycle. Arrays are numpy's; the leading axis of errors counts realisations.

    Attributes:
        settings: of this cycle.
        number: of the cycle, from 1 after a reset.
        counted: cycles since the average began, discarded ones included.
        averaged: how many cycles the running gradient averages; 0 while cycles are discarded. With amplitudes that tune
            themselves: of the sample with the fewest, in the median realisation.
        names: of the watched neurons; `1.2` is the second of the first layer.
        samples: complex (watched, ticks), the activities over the last two cycles.
        teaching: complex (ticks,), the signal at the same ticks.
        window: complex (cycles, watched, ticks), up to `WINDOW` cycles for the spectrum.
        cosines, errors: of the running gradient against the exact one, by parameter array and for `all`.
        bars: `GradientError.total` of each realisation.
        error: the error that the realisation with the median bar measures on itself; None while cycles are discarded.
        amplitudes: of the teaching signal in this cycle, (realisations, samples).
        norm: of the exact gradient.
        loss: at the mean activities of the cycle.
        accuracy: of the batch, in percent; nan while the network does not learn.
        updates: how often the weights changed.
        era: counts the networks and restarts of the weights: what was computed in another is of other weights.
        weights: what predictions hold for: network, sample, and how its weights have changed.
        diverged: what ran away, and what to change; empty if nothing did.
        seconds: wall time of the computation.

    Example:
        >>> frame = osc.lab.Engine(osc.lab.Settings(realisations=2)).advance()  # doctest: +SKIP
        >>> frame.errors["all"].shape  # doctest: +SKIP
    """

    settings: Settings
    number: int
    counted: int
    averaged: int
    names: tuple[str, ...]
    samples: np.ndarray
    teaching: np.ndarray
    window: np.ndarray
    cosines: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    bars: np.ndarray
    error: osc.GradientError | None
    amplitudes: np.ndarray
    norm: float
    loss: float
    accuracy: float
    updates: int
    era: int
    weights: Weights
    diverged: str
    seconds: float

    @property
    def amplitude(self) -> float:
        """The median amplitude of the teaching signal."""
        return float(np.median(self.amplitudes))


class Engine:
    """A network that runs cycle after cycle. Use it from one thread only.

    Args:
        settings: what to start with.
        own: networks of the user's own, by name.

    Attributes:
        settings: the present ones.
        net: the network, as far as it has learned.
        example: the network at the start, with its data.

    Raises:
        ValueError: a network that is not known, a sample that it does not have.

    Example:
        >>> engine = osc.lab.Engine(osc.lab.Settings(amplitude=0.2, noise="none"))
        >>> engine.change(amplitude=0.4)
        >>> engine.settings.amplitude
        0.4
    """

    def __init__(self, settings: Settings | None = None, own: dict[str, Example] | None = None):
        self.own = own or {}
        self.settings = settings or Settings()
        self.example = self._find(self.settings)
        self.net = self.example.network
        self.updates = self._version = self.number = self.era = 0
        self.diverged = ""
        self._loaded = False  # compiles, so it is left to the thread that runs the cycles

    def change(self, **changes: Value) -> None:
        """Change settings. The neurons run on; the average starts anew.

        Raises:
            ValueError: a value out of its range, a network that is not known, a sample that it does not have.
        """
        before, after = self.settings, self.settings.changed(**changes)
        found = self._find(after)
        self.settings = after
        if after.network != before.network:
            self.example, self.net, self.updates = found, found.network, 0
            self.era += 1
        if not self._loaded:
            return
        if after.network != before.network or after.learning != before.learning or self.diverged:
            self._load()
            return
        if (after.noise, after.signal, after.demodulator) != (before.noise, before.signal, before.demodulator):
            self._restart(self._found.state)
        if after.seed != before.seed:
            self._keys = _keys(after)
        if after.sample != before.sample and not after.learning:
            self._show(slice(after.sample, after.sample + 1), self._potentials())
        elif after.period != before.period:
            self._lag = self._lag_now()
        self._average_anew()

    def reset(self) -> None:
        """Neurons at rest, weights as they were at the start."""
        self.net, self.updates = self.example.network, 0
        self.era += 1
        self._load()

    def _program(self) -> Hashable:
        """What the compiled programs depend on."""
        settings = self.settings
        return settings.signal, settings.noise, settings.demodulator, layout(self.net, self._inputs)

    @property
    def weights(self) -> Weights:
        """What predictions hold for; the version is 0 at the start, and counts changes of the weights."""
        return self.settings.network, self.settings.sample, self._version if self.updates else 0

    def predicted_from(self) -> tuple[osc.AbstractNetwork, Data, Data]:
        """Network, input and target that predictions are for: the first sample shown."""
        if not self._loaded:
            self._load()
        return self.net, self._x[:1], self._y[:1]

    def advance(self) -> Frame:
        """Run one cycle, and read it."""
        began = time.perf_counter()
        if not self._loaded:
            self._load()
        settings, shown = self.settings, 1 if self.settings.learning else self.settings.realisations
        if self.diverged:
            return self._frame(began)
        with first_time("cycle", self._program(), self._lag is None):
            fixed = settings.system(self.net), self._inputs, self._exact, self._lag, self._watch
            self._found, watched, self._gradient, result = _cycle(
                *fixed, self._found, np.int32(settings.discarded), keys=self._keys
            )
        self.number += 1
        self._result = Result(*jax.tree.map(lambda a: np.asarray(a)[:shown], result))
        self._window.append(np.concatenate([np.asarray(a[0, :, 0]).T for a in watched.activities]))
        self._signals.append(np.asarray(watched.teaching[0, :, 0]))
        lost = np.asarray(self._found.state.diverged)[:shown]
        if lost.any():
            state = jax.tree.map(lambda a: a[int(np.argmax(lost))], self._found.state)
            self.diverged = str(failure(settings.system(self.net), state))
        frame = self._frame(began)
        if settings.learning and frame.averaged > 0 and not self.diverged and not self._waiting():
            self._update()
        return frame

    def _waiting(self) -> bool:
        """Whether an amplitude was lowered, and no reading at the new one is in the mean yet."""
        tuning, discarded = self._found.state.tuning, self.settings.discarded
        if tuning is None or int(self._found.count[0]) >= PATIENCE * (discarded + 1):
            return False
        return bool(np.any(np.asarray(tuning.lowered) & (np.asarray(tuning.age) <= discarded)))

    def _find(self, settings: Settings) -> Example:
        found = self.own[settings.network] if settings.network in self.own else examples(settings.network)
        if settings.sample >= len(found.x):
            raise osc.BadValue(
                f"sample={settings.sample}: {settings.network} has {len(found.x)}; use 0 to {len(found.x) - 1}"
            )
        return found

    def _load(self) -> None:
        """Start with neurons at rest, with data for the present network."""
        self._batch, self._loaded = 0, True
        watched = tuple(np.arange(min(WATCHED, int(np.prod(shape)))) for shape in self.net.shapes)
        self._watch = Watch(watched, np.array([0]))
        self._names = tuple(f"{n}.{i + 1}" for n, places in enumerate(watched, 1) for i in places)
        if self.settings.learning:
            self._next_batch(None)
        else:
            self._show(slice(self.settings.sample, self.settings.sample + 1), None)
        self.number, self.diverged = 0, ""
        with first_time("keys", self.settings.learning):
            self._keys = _keys(self.settings)
        self._window: deque[np.ndarray] = deque(maxlen=WINDOW)
        self._signals: deque[np.ndarray] = deque(maxlen=2)
        self._restart(None)
        self._average_anew()

    def _restart(self, before: osc.State | None) -> None:
        """New states of noise and demodulator; the potentials stay as in `before`, or are at rest."""
        start = None if before is None else (before.potentials, before.cycle)
        with first_time("begin", self._program(), before is None):
            self._found = _begin(self.settings.system(self.net), self._inputs, start, keys=self._keys)
            _real_parts(self._found.state.potentials)  # compiled now, not when the sample changes

    def _average_anew(self, carried: bool = False) -> None:
        """Start the average anew. Amplitudes that tuned themselves start anew too, unless `carried`."""
        with first_time("anew", self._program(), carried):
            self._found = _anew(self.settings.system(self.net), self._found.state, carried)

    def _show(self, where: slice | np.ndarray, start: osc.Layers | None) -> None:
        """Show other inputs. The exact gradient is that of the state which neurons reach from `start`, or from rest."""
        self._x, self._y = self.example.x[where], self.example.y[where]
        start = self.net.rest(len(self._x)) if start is None else start
        with first_time("exact", layout(self.net), np.shape(self._x)):
            self._inputs = osc.Inputs.of(self.net, self._x, self._y)
            try:
                self._rest = osc.settle(self.net, self._x, self._y, start=start)
                self._exact = osc.exact_gradient(self.net, self._x, self._y, at=self._rest)
            except osc.NotSettledError:  # nothing to compare with: the curves have a gap
                self._rest = None
                self._exact = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), osc.parameters(self.net))
            self._norm = float(norm(self._exact))
            self._lag = self._lag_now()

    def _potentials(self) -> osc.Layers:
        """Of the first realisation."""
        return _real_parts(self._found.state.potentials)

    def _lag_now(self) -> Gradient | None:
        """What the finite period does to the gradient; None where the quadrature is to tell, as in a `Run`."""
        if self._rest is None or not is_dense(self.net):
            return None
        omega = jnp.asarray(2 * np.pi / self.settings.period, self.net.dtype)
        try:
            return response_lag(self.net, self._inputs, self._rest.potentials, omega)
        except osc.NotHolomorphicError:
            return None

    def _next_batch(self, start: osc.Layers | None) -> None:
        count = len(self.example.x)
        size = min(BATCH, count)
        epoch, place = divmod(self._batch, count // size)
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(count)
        self._batch += 1
        self._show(order[place * size : (place + 1) * size], start)

    def _update(self) -> None:
        """Change the weights and show the next batch; the neurons run on."""
        rate = np.asarray(self.settings.learning_rate, self.net.dtype)
        with first_time("learn", self._program()):
            self.net = _learned(self.net, self._gradient, rate)
        self.updates += 1
        self._version += 1
        self._next_batch(self._potentials())
        self._average_anew(carried=True)

    def _frame(self, began: float) -> Frame:
        settings, result, window = self.settings, self._result, np.stack(self._window)
        averaged = int(np.median(np.min(result.error.kept, axis=1)))
        missing, read = np.full(len(result.bars), np.nan), averaged > 0 and not self.diverged
        middle = np.argsort(result.bars)[(len(result.bars) - 1) // 2]  # nan comes last
        names = [name for name in result.cosines if name == "all" or "weight" in name] or list(result.cosines)
        return Frame(
            settings=settings,
            number=self.number,
            counted=int(self._found.count[0]),
            averaged=averaged,
            names=self._names,
            samples=np.concatenate(window[-2:], axis=1),
            teaching=np.concatenate(self._signals),
            window=window,
            cosines={name: result.cosines[name] if read else missing for name in names},
            errors={name: result.errors[name] if read else missing for name in names},
            bars=result.bars if read else missing,
            error=jax.tree.map(lambda a: a[middle], result.error) if read else None,
            amplitudes=result.amplitudes,
            norm=self._norm,
            loss=float(np.mean(result.loss)),
            accuracy=100 * float(np.mean(result.accuracy)) if settings.learning else np.nan,
            updates=self.updates,
            era=self.era,
            weights=self.weights,
            diverged=self.diverged,
            seconds=time.perf_counter() - began,
        )


class Result(NamedTuple):
    """What a cycle gave, with a leading axis over realisations: see `Frame`."""

    cosines: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    bars: np.ndarray
    error: osc.GradientError
    amplitudes: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray


@jax.jit
def _real_parts(potentials: osc.Layers) -> osc.Layers:
    """Of the potentials of the first realisation."""
    return tuple(a[0].real for a in potentials)


def _keys(settings: Settings) -> Key[Array, " realisations"]:
    """A key for each realisation, as `oscsim.ensemble` has them; in learning, one stream."""
    numbers = np.arange(1 if settings.learning else MOST_REALISATIONS, dtype=np.uint32)
    return _fold_in(jax.random.key(settings.seed), numbers)


_fold_in = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))


@eqx.filter_jit
def _begin(
    system: osc.System,
    inputs: osc.Inputs,
    before: tuple[osc.Layers, Array] | None,
    *,
    keys: Key[Array, " realisations"],
) -> Averaged:
    """A state and an empty average for each realisation: from rest, or from the potentials and the cycle of another."""
    COMPILED["begin"] += 1  # runs while tracing, not while computing

    def one(key, before):
        potentials, number = (None, None) if before is None else before
        state = osc.begin(system, inputs, key=key, start=potentials)
        state = state if number is None else eqx.tree_at(lambda s: s.cycle, state, number)
        return Averaged.begin(system, state)

    return jax.vmap(one)(keys, before)


@eqx.filter_jit
def _anew(system: osc.System, states: osc.State, carried: bool) -> Averaged:
    """The same neurons with fresh demodulators and empty averages.

    Amplitudes that tune themselves start anew; with `carried`, where most of the present ones ended.
    """
    COMPILED["anew"] += 1
    teaching, dtype = system.teaching, system.network.dtype

    def one(state):
        if state.tuning is not None and isinstance(teaching, osc.Adaptive):
            fresh = teaching.anew(state.tuning) if carried else teaching.begin(len(state.tuning.age), dtype)
            state = eqx.tree_at(lambda s: s.tuning, state, fresh)
        return Averaged.begin(system, read_anew(system, state))

    return jax.vmap(one)(states)


@eqx.filter_jit
def _cycle(
    system: osc.System,
    inputs: osc.Inputs,
    exact: Gradient,
    lag: Gradient | None,
    watch: Watch,
    found: Averaged,
    discard: Count,
    *,
    keys: Key[Array, " realisations"],
) -> tuple[Averaged, Watched, Gradient, PyTree]:
    """One cycle of all realisations: where they stand, samples and gradient of the first, and a `Result` as a tuple."""
    COMPILED["cycle"] += 1

    def one(found, key):
        amplitude = jnp.broadcast_to(found.state.drive(system.teaching).amplitude, len(inputs.x))
        found, cycle = found.advance(system, inputs, key, discard, watch=watch)
        two_phases = isinstance(found.averages.mean, osc.Points)
        estimated = two_phase_error if two_phases else partial(gradient_and_error, lag=lag)
        gradient, error = estimated(system, inputs, found.averages, found.change)
        cosines, errors = (osc.per_layer(metric, gradient, exact) for metric in (osc.cosine, osc.relative_error))
        cosines["all"], errors["all"] = osc.cosine(gradient, exact), osc.relative_error(gradient, exact)
        s = tuple(layer.real for layer in cycle.reading.mean)
        loss = jnp.mean(system.network.loss(inputs.clamped, s, inputs.y))
        accuracy = _accuracy(system.network, inputs, s)
        return found, cycle.watched, gradient, (cosines, errors, error.total, error, amplitude, loss, accuracy)

    found, *first, result = jax.vmap(one)(found, keys)
    watched, gradient = jax.tree.map(lambda a: a[:1], first)
    return found, watched, gradient, result


def known_mean(values: np.ndarray | None) -> float:
    """The mean of what is known of some values; nan where nothing is."""
    return float("nan") if values is None or not np.isfinite(values).any() else float(np.nanmean(values))


def _accuracy(net: osc.AbstractNetwork, inputs: osc.Inputs, s: osc.Layers) -> Float[Array, ""]:
    """The fraction of samples whose class scores highest; nan for a network without classes."""
    if net.outputs is None:
        return jnp.asarray(jnp.nan)
    right = jnp.argmax(net.readout(inputs.clamped, s), axis=1) == labels_of(inputs.y)
    return jnp.mean(right.astype(s[0].dtype))


@eqx.filter_jit
def _learned(net: osc.AbstractNetwork, gradient: Gradient, rate: Array | np.ndarray) -> osc.AbstractNetwork:
    """The network after one step down the gradient of the first realisation."""
    COMPILED["learn"] += 1
    return eqx.apply_updates(net, jax.tree.map(lambda g: -rate * g[0], gradient))
