"""Options of learning, in groups: the data, the descent, what is kept, and how gradients are obtained."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import optax
from jaxtyping import PyTree

import oscsim as osc
from oscsim.cli.settings import Integration, Noise, Of, Signal, flat
from oscsim.core import BadValue
from oscsim.datasets import AbstractSource, OwnData, Samples
from oscsim.training import is_first


@dataclass(frozen=True)
class Data:
    """The data: which of them, and how they are brought into shape."""

    samples: int | None = None
    """Train on so many samples only, from the first."""

    standardise: bool = False
    """Bring the data to zero mean and unit variance; each column of a table on its own."""

    data_dir: Path | None = None
    """Folder with the files of the data set; else that which OSCSIM_DATA names; else downloaded (imagenet32 is not)."""

    target: str | None = None
    """Of a table of your own, the column with the labels: its name, or without a header its number, from 0; if not
    given, the one called label, target, y or class, else the last."""

    validation: float | None = None
    """Of your own data without a part to test, keep this share for it, such as 0.2; 0 trains without one."""

    def own(self, data: str, patience: int | None) -> OwnData:
        """Data of the user's own, as their file holds them."""
        if self.data_dir is not None:
            raise BadValue(f"data_dir={self.data_dir} belongs to the named data sets, not to {data}: leave it out")
        if patience is not None and self.validation == 0:
            raise BadValue(f"patience={patience} needs samples to test on: give a share with --validation 0.2")
        own = osc.datasets.read(
            data,
            target=self.target,
            validation=self.validation,
            standardise=self.standardise,
        )
        if own.classes and is_first():
            print("Classes:", ", ".join(f"{i} {name}" for i, name in enumerate(own.classes)))
        return own

    def build(self, data: str, own: OwnData | None, rows: bool) -> tuple[AbstractSource | Samples, Samples | None]:
        """Samples to train on, or a source of them, and held-out ones; as rows for a layered network."""
        if own is None and (self.target, self.validation) != (None, None):
            raise BadValue(f"target and validation belong to data of your own, not to {data}: leave them out")
        if data == "imagenet32":
            if self.samples is not None:
                raise BadValue(f"samples={self.samples}: imagenet32 is read file by file, as a whole; leave it out")
            source = osc.datasets.stream("imagenet32", "train", self.data_dir, standardise=self.standardise)
            by = source if self.standardise else False
            test = osc.datasets.stream("imagenet32", "test", self.data_dir, standardise=by)
            return source, test.first(len(test))
        if own is not None:
            x, y = own.train
            held_out = None if self.validation == 0 else own.held_out()
        else:
            x, y = osc.datasets.load(data, "train", self.data_dir, standardise=self.standardise)
            held_out = osc.datasets.load(data, "test", self.data_dir, standardise=self.standardise)
        if self.samples is not None and not 1 <= self.samples <= len(x):
            raise BadValue(f"samples={self.samples}: {data} holds {len(x)}; use 1 to {len(x)}")
        if rows:
            x, held_out = flat(x), held_out and (flat(held_out[0]), held_out[1])
        return (x[: self.samples], y[: self.samples]), held_out


@dataclass(frozen=True)
class Keeping:
    """What is kept and looked at, and when a run ends early."""

    patience: int | None = None
    """Stop after so many epochs without a better validation error."""

    rollback: float | None = None
    """After a divergence go back to the last checkpoint, with updates multiplied by this; stop if not given."""

    keep: int = 3
    """How many checkpoints to keep."""

    checkpoint_seconds: float = 60.0
    """At most so long between checkpoints."""

    probe: int = 100
    """Samples on which the gradient is compared with the exact one after each epoch; 0 for none."""


@dataclass(frozen=True)
class Descent:
    """From gradients to updates."""

    schedule: Literal["constant", "cosine"] = "constant"
    """How the rate changes: not at all, or falling to zero over all epochs as a half cosine."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    """What turns gradients into updates."""

    momentum: float = 0.0
    """Momentum of sgd."""

    weight_decay: float = 0.0
    """Take so much of each parameter, times the rate, off at every update, beside the momentum (as in AdamW)."""

    clip: float | None = None
    """Scale gradients whose norm, over all parameters, is larger than this down to it; not if not given."""

    def build(self, net: PyTree, rates: tuple[float, ...], steps: int) -> optax.GradientTransformation:
        """The optimizer of a network, with one rate or one for each layer of weights, over so many steps."""
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadValue(f"weight_decay={self.weight_decay:g}: use 0 or a small positive number, such as 0.001")
        if self.optimizer == "adam" and self.momentum:
            raise BadValue(f"momentum={self.momentum:g} belongs to sgd: leave it out, or use --optimizer sgd")
        if not rates or any(not (math.isfinite(rate) and rate > 0) for rate in rates):
            raise BadValue(f"learning_rate={rates}: use positive numbers, one or one per layer")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise BadValue(f"clip={self.clip:g}: use a positive norm, such as 1, or leave it out")

        def make(rate):
            rate = optax.cosine_decay_schedule(rate, steps) if self.schedule == "cosine" else rate
            if self.optimizer == "adam":
                return optax.adamw(rate, weight_decay=self.weight_decay)
            return optax.chain(
                optax.trace(self.momentum) if self.momentum else optax.identity(),
                optax.add_decayed_weights(self.weight_decay),  # after the momentum, which would add it up
                optax.scale_by_learning_rate(rate),
            )

        descent = make(rates[0]) if len(rates) == 1 else osc.layerwise(net, rates, make)
        return descent if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), descent)


@dataclass(frozen=True)
class Estimation:
    """How an estimator obtains the gradient of a batch."""

    cycles: Annotated[int, Of("lock-in")] = 2
    """Cycles per update of the lock-in."""

    discard: Annotated[int | None, Of("lock-in")] = None
    """How many of them, at the start, to leave out of the gradient; if not given, those before the network locked."""

    start: Annotated[Literal["rest", "settled", "locked"], Of("lock-in")] = "settled"
    """Where the neurons of the lock-in start at each update: at rest, at the free equilibrium, or on the orbit."""

    always_on: Annotated[bool, Of("lock-in")] = False
    """Carry the neurons' state from input to input, instead of starting from rest."""

    extrapolate: Annotated[bool, Of("orbit")] = False
    """Of the orbit: also solve at half the period, and remove the leading part of the lag."""

    tolerance: Annotated[float, Of("phases", "orbit")] = 1e-4
    """Residual that phases, or the state of the orbit, are settled to."""

    steps: Annotated[tuple[int, int] | None, Of("phases", "classic")] = None
    """Of phases and classic: so many plain steps free, and at each point, instead of settling."""

    readings: Annotated[int, Of("classic")] = 1
    """Of classic under noise: each phase is read so often, and the readings are averaged; 5 in the authors' runs."""

    method: Annotated[Literal["implicit", "bptt"], Of("exact")] = "implicit"
    """Of the exact gradient: implicit differentiation, or backpropagation through the settling."""

    def build(self, name: str, signal: Signal, integration: Integration, noise: Noise) -> osc.AbstractEstimator:
        """The estimator of that name."""
        disturbing: Any = noise.build()  # an estimator refuses one that it cannot take
        match name:
            case "lock-in":
                lock_in = osc.LockIn(
                    signal.build(),
                    cycles=self.cycles,
                    discard=self.discard,
                    noise=disturbing,
                    start=self.start,
                    integration=integration.build(disturbing),
                )
                return osc.AlwaysOn(lock_in) if self.always_on else lock_in
            case "phases":
                points = 10 if signal.points is None else signal.points
                if self.steps is not None and self.tolerance != Estimation.tolerance:
                    raise BadValue(f"tolerance={self.tolerance:g} and steps={self.steps} exclude each other: give one")
                tolerance = self.tolerance if self.steps is None else None
                amplitude = signal.fixed_amplitude
                return osc.Phases(amplitude, points, tolerance=tolerance, steps=self.steps, noise=disturbing)
            case "orbit":
                return osc.Orbit(signal.period, extrapolate=self.extrapolate, tolerance=self.tolerance)
            case "classic":
                amplitude = signal.fixed_amplitude
                return osc.Classic(amplitude, steps=self.steps, noise=disturbing, readings=self.readings)
            case "backpropagation":
                return osc.Backpropagation()
        return osc.Exact(self.method)


def owners_of(part: object) -> dict[str, tuple[str, ...]]:
    """Which estimators the options of a command, or of a group, belong to; those that belong to all are left out."""
    hints = typing.get_type_hints(type(part), include_extras=True)
    found: dict[str, tuple[str, ...]] = {}
    for name, value in vars(part).items():
        if dataclasses.is_dataclass(value):
            found |= owners_of(value)
        else:
            found.update((name, mark.owners) for mark in typing.get_args(hints[name]) if isinstance(mark, Of))
    return found
