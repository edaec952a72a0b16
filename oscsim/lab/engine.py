"""The live computation without any picture: a network that oscillates, cycle after cycle, while knobs are turned.

All numbers are arguments of compiled functions, so that none of them compiles anew when it changes. What is part of a
program (network, kinds of noise, signal and demodulator, learning or not) compiles once in a process.
"""

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oscsim.cycle import State, Watched, advance_watching, begin, divergence
from oscsim.equilibrium import exact_gradient
from oscsim.errors import NotSettledError
from oscsim.estimators.classic import one_sided
from oscsim.lab.programs import first_time, layout
from oscsim.lab.settings import MOST_REALISATIONS, Example, Settings, examples
from oscsim.metrics import cosine, per_layer, relative_error
from oscsim.networks.base import AbstractNetwork, parameters
from oscsim.networks.inputs import Inputs
from oscsim.readings import Points, running_mean

COMPILED: Counter[str] = Counter()
"""How often each program of the lab was compiled in this process."""

BATCH = 20
"""Samples per update of the weights."""

WINDOW = 8
"""Cycles that the spectrum is taken over."""

WATCHED = 32
"""Neurons that are watched, of each layer at most."""


@dataclass(frozen=True)
class Frame:
    """What the lab shows of one cycle. Arrays are numpy's; the leading axis of errors counts realisations.

    Attributes:
        settings: what was set during the cycle.
        number: of the cycle, counted from 1 since the last reset.
        averaged: how many cycles the running gradient averages; 0 while cycles are discarded.
        names: of the watched neurons, such as `1.2` for the second of the first layer.
        samples: complex (watched, ticks), the activities over the last two cycles.
        teaching: complex (ticks,), the signal at the same ticks.
        window: complex (cycles, watched, ticks), up to `WINDOW` cycles for the spectrum.
        cosines, errors: by parameter array and for `all`: of the running gradient to the exact one.
        norm: of the exact gradient.
        loss: at the mean activities of the cycle.
        accuracy: of the batch, in percent, while the network learns; else nan.
        updates: how often the weights were changed.
        diverged: in words, what ran away and what to turn back; empty while all is well.
        seconds: the computation took.
    """

    settings: Settings
    number: int
    averaged: int
    names: tuple[str, ...]
    samples: np.ndarray
    teaching: np.ndarray
    window: np.ndarray
    cosines: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    norm: float
    loss: float
    accuracy: float
    updates: int
    diverged: str
    seconds: float


class Engine:
    """A network that runs, cycle after cycle; not safe to use from several threads.

    Args:
        settings: what to start with.
        own: networks of the user's own, by name.

    Raises:
        ValueError: a network that is not known, a sample that it does not have.
    """

    def __init__(self, settings: Settings | None = None, own: dict[str, Example] | None = None):
        self.own = own or {}
        self.settings = settings or Settings()
        self._example = self._find(self.settings)
        self.net = self._example.network
        self.updates = self._version = self.number = 0
        self.diverged = ""
        self._loaded = False  # compiles, so it is left to the thread that runs the cycles

    def change(self, **changes: Any) -> None:
        """Turn knobs. The neurons run on; the average starts anew.

        Raises:
            ValueError: a value out of its range, a network that is not known, a sample that it does not have.
        """
        before, after = self.settings, self.settings.changed(**changes)
        found = self._find(after)
        self.settings = after
        if after.network != before.network:
            self._example, self.net, self.updates = found, found.network, 0
        if not self._loaded:
            return
        if after.network != before.network or after.learning != before.learning or self.diverged:
            self._load()
            return
        if (after.noise, after.signal, after.demodulator) != (before.noise, before.signal, before.demodulator):
            self._restart(self._states)
        if after.seed != before.seed:
            self._keys = _keys(after)
        if after.sample != before.sample and not after.learning:
            self._show(slice(after.sample, after.sample + 1))
        self._average_anew()

    def reset(self) -> None:
        """Neurons at rest, weights as they were at the start."""
        self.net, self.updates = self._example.network, 0
        self._load()

    def _program(self) -> Any:
        """What tells apart the programs that it needs."""
        settings = self.settings
        return settings.signal, settings.noise, settings.demodulator, layout(self.net, self._inputs)

    @property
    def version(self) -> int:
        """A number that is the same for the same weights of the same network: 0 for those at the start."""
        return self._version if self.updates else 0

    @property
    def samples(self) -> int:
        """How many inputs there are to choose from."""
        return len(self._example.x)

    def predicted_from(self) -> tuple[AbstractNetwork, Any, Any]:
        """Network, input and target of the first sample that is shown."""
        if not self._loaded:
            self._load()
        return self.net, self._x[:1], self._y[:1]

    def held_out(self) -> tuple[Any, Any]:
        """Data that the network does not learn from."""
        return self._example.x_test, self._example.y_test

    def advance(self) -> Frame:
        """Run one cycle, and read it."""
        began = time.perf_counter()
        if not self._loaded:
            self._load()
        settings, shown = self.settings, self.settings.realisations if not self.settings.learning else 1
        if self.diverged:
            return self._frame(shown, began)
        with first_time("cycle", self._program()):
            self._states, self._means, watched, result = _cycle(
                self._states, self._means, self.net, self._inputs, settings.teaching, settings.disturbance, self._keys,
                settings.plan, self._watch, np.int32(self._counted), np.int32(settings.discarded), self._exact,
            )  # fmt: skip
        self._counted += 1
        self.number += 1
        self._result = jax.tree.map(np.asarray, result)
        self._record(watched)
        lost = np.asarray(self._states.diverged)[:shown]
        if lost.any():
            state = jax.tree.map(lambda a: a[int(np.argmax(lost))], self._states)
            self.diverged = divergence(self.net, settings.teaching, state)
        frame = self._frame(shown, began)
        if settings.learning and self.averaged > 0 and not self.diverged:
            self._update()
        return frame

    @property
    def averaged(self) -> int:
        """How many cycles are in the running mean."""
        return max(0, self._counted - self.settings.discarded)

    def _find(self, settings: Settings) -> Example:
        found = self.own[settings.network] if settings.network in self.own else examples(settings.network)
        if settings.sample >= len(found.x):
            raise ValueError(
                f"sample={settings.sample}: {settings.network} has {len(found.x)}; use 0 to {len(found.x) - 1}"
            )
        return found

    def _load(self) -> None:
        """Data for the network as it is now, and neurons at rest."""
        self._batch, self._loaded = 0, True
        self._watch = tuple(np.arange(min(WATCHED, int(np.prod(shape)))) for shape in self.net.shapes)
        self._names = tuple(f"{n}.{i + 1}" for n, watched in enumerate(self._watch, 1) for i in watched)
        if self.settings.learning:
            self._next_batch()
        else:
            self._show(slice(self.settings.sample, self.settings.sample + 1))
        self.number, self.diverged = 0, ""
        with first_time("keys", self.settings.learning):
            self._keys = _keys(self.settings)
        self._window: deque[np.ndarray] = deque(maxlen=WINDOW)
        self._signals: deque[np.ndarray] = deque(maxlen=2)
        self._restart(None)
        self._average_anew()

    def _restart(self, before: State | None) -> None:
        """States for the noise and the demodulator of now; the potentials are those of before, if any."""
        settings = self.settings
        with first_time("begin", self._program(), before is None):
            self._states = _begin(
                self.net, self._inputs, settings.teaching, settings.disturbance, self._keys, settings.plan,
                None if before is None else (before.potentials, before.cycle),
            )  # fmt: skip
            self._means = jax.tree.map(jnp.zeros_like, self._states.reading)

    def _average_anew(self) -> None:
        self._counted = 0
        self._result = None

    def _show(self, where: Any) -> None:
        self._x, self._y = self._example.x[where], self._example.y[where]
        with first_time("exact", layout(self.net), np.shape(self._x)):
            self._inputs = Inputs.of(self.net, self._x, self._y)
            try:
                self._exact = exact_gradient(self.net, self._x, self._y)
            except NotSettledError:  # nothing to compare with: the curves have a gap
                self._exact = jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), parameters(self.net))

    def _next_batch(self) -> None:
        count = len(self._example.x)
        size = min(BATCH, count)
        per_epoch = count // size
        epoch, place = divmod(self._batch, per_epoch)
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(count)
        self._batch += 1
        self._show(order[place * size : (place + 1) * size])

    def _update(self) -> None:
        """Weights move, the next batch arrives; the neurons run on."""
        rate = np.asarray(self.settings.learning_rate, self.net.dtype)
        with first_time("learn", self._program()):
            self.net = _learned(self.net, self._means, self._inputs, rate)
        self.updates += 1
        self._version += 1
        self._next_batch()
        self._counted = 0

    def _record(self, watched: Watched) -> None:
        self._window.append(np.concatenate([np.asarray(a[0]).T for a in watched.activities]))
        self._signals.append(np.asarray(watched.teaching[0]))

    def _frame(self, shown: int, began: float) -> Frame:
        cosines, errors, norm, loss, accuracy = self._result if self._result is not None else _NOTHING
        missing = np.full(shown, np.nan)
        read = self.averaged > 0 and not self.diverged
        names = [name for name in cosines if name == "all" or "weight" in name] or list(cosines)
        window = list(self._window)
        empty = np.zeros((len(self._names), 0), complex)
        return Frame(
            settings=self.settings,
            number=self.number,
            averaged=self.averaged,
            names=self._names,
            samples=np.concatenate(window[-2:], axis=1) if window else empty,
            teaching=np.concatenate(list(self._signals)) if window else empty[0],
            window=np.stack(window) if window else empty[None],
            cosines={name: cosines[name][:shown] if read else missing for name in names},
            errors={name: errors[name][:shown] if read else missing for name in names},
            norm=float(norm),
            loss=float(np.mean(loss[:shown])),
            accuracy=100 * float(np.mean(accuracy[:shown])) if self.settings.learning else np.nan,
            updates=self.updates,
            diverged=self.diverged,
            seconds=time.perf_counter() - began,
        )


_NOTHING = ({}, {}, np.nan, np.full(1, np.nan), np.full(1, np.nan))


def _keys(settings: Settings) -> Any:
    """A key for each realisation, as `oscsim.ensemble` has them; in learning, one stream."""
    key = jax.random.key(settings.seed)
    count = 1 if settings.learning else MOST_REALISATIONS
    return _split(key, np.arange(count, dtype=np.uint32))


@jax.jit
def _split(key: Any, numbers: Any) -> Any:
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)


@eqx.filter_jit
def _begin(net: Any, inputs: Any, teaching: Any, noise: Any, keys: Any, plan: Any, before: Any) -> State:
    """A state for each realisation: from rest, or from the potentials and the cycle of another one."""
    COMPILED["begin"] += 1  # runs while tracing, not while computing

    def one(key, before):
        potentials, number = (None, None) if before is None else before
        state = begin(net, inputs, teaching, cycle=plan, potentials=potentials, noise=noise, key=key)
        return state if number is None else eqx.tree_at(lambda s: s.cycle, state, number)

    return jax.vmap(one)(keys, before)


def _gradient(reading: Any, net: Any, inputs: Any) -> Any:
    return one_sided(reading, net, inputs) if isinstance(reading, Points) else reading.gradient(net, inputs)


@eqx.filter_jit
def _cycle(
    states: Any, means: Any, net: Any, inputs: Any, teaching: Any, noise: Any, keys: Any, plan: Any, watch: Any,
    counted: Any, discard: Any, exact: Any,
) -> Any:  # fmt: skip
    """One cycle of all realisations: states, running means, samples, and how far the running gradients are off."""
    COMPILED["cycle"] += 1

    def one(state, mean, key):
        state, reading, watched, _ = advance_watching(state, net, inputs, teaching, key, plan, watch, noise)
        first = jax.tree.map(lambda m: jnp.where(counted <= discard, jnp.zeros_like(m), m), mean)
        mean = running_mean(first, reading, counted - discard)
        gradient = _gradient(mean, net, inputs)
        cosines, errors = (per_layer(metric, gradient, exact) for metric in (cosine, relative_error))
        cosines["all"], errors["all"] = cosine(gradient, exact), relative_error(gradient, exact)
        s = tuple(layer.real for layer in reading.mean)
        loss = jnp.mean(net.loss(inputs.clamped, s, inputs.y))
        return state, mean, watched, (cosines, errors, loss, _accuracy(net, inputs, s))

    states, means, watched, (cosines, errors, loss, accuracy) = jax.vmap(one)(states, means, keys)
    squares = [jnp.sum(a**2) for a in jax.tree.leaves(exact)]
    norm = jnp.sqrt(jnp.sum(jnp.stack(squares)))
    return states, means, jax.tree.map(lambda a: a[:1], watched), (cosines, errors, norm, loss, accuracy)


def _accuracy(net: Any, inputs: Any, s: Any) -> Any:
    """The fraction of samples whose class scores highest; nan for a network without classes."""
    if net.outputs is None:
        return jnp.asarray(jnp.nan)
    target = inputs.y if inputs.y.ndim == 1 else jnp.argmax(inputs.y, axis=1)
    return jnp.mean((jnp.argmax(net.readout(inputs.clamped, s), axis=1) == target).astype(s[0].dtype))


@eqx.filter_jit
def _learned(net: Any, means: Any, inputs: Any, rate: Any) -> Any:
    """The network after one step down the gradient of the first realisation."""
    COMPILED["learn"] += 1
    gradient = _gradient(jax.tree.map(lambda a: a[0], means), net, inputs)
    return eqx.apply_updates(net, jax.tree.map(lambda g: -rate * g, gradient))
