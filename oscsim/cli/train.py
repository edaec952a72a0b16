"""`oscsim train` and `oscsim predict`."""

import dataclasses
import functools
import json
import math
import operator
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import numpy as np
import optax
import tyro
from jaxtyping import PyTree

import oscsim as osc
from oscsim.cli.reports import FAILURES, one_line, require_writable
from oscsim.cli.settings import AnyNetwork, Images, Integration, Network, Noise, Processes, Signal, classes_of, load_npz
from oscsim.core import BadValue, as_count, checkpoint
from oscsim.datasets import AbstractSource, Samples
from oscsim.training import is_first

T = TypeVar("T")
PACKAGES = ("oscsim", "jax", "jaxlib", "diffrax", "equinox", "optax", "numpy")


@dataclass(frozen=True)
class Train:
    """Train a network on a data set, with the gradients of an estimator.

    Prints a row for each epoch, and writes checkpoints, metrics.jsonl and settings.json into a folder, from which
    `oscsim train --resume DIR` goes on bit for bit, whatever stopped it. oscsim.load(DIR) gives the newest network,
    oscsim.load(DIR, best=True) that of the best epoch.
    """

    data: Annotated[str, tyro.conf.Positional] = "digits"
    """digits (embedded), mnist, fashion_mnist, cifar10, cifar100, imagenet32 (read file by file, ahead of time), or an
    .npz file with arrays x, y, x_test, y_test."""

    out: Path | None = None
    """Folder for the run; made if it does not exist."""

    resume: Path | None = None
    """Go on with the run in this folder, with its own settings; all other options are refused, but for --epochs
    (not under --schedule cosine) and those that say which process this is."""

    estimator: Literal["lock-in", "phases", "classic", "exact", "backpropagation"] = "lock-in"
    """How gradients are obtained; backpropagation trains the feed-forward twin."""

    epochs: int | None = None
    """How often to go through the data, in all; 10 if not given."""

    seed: int = 0
    """Seed of the initial weights, the order of the data and all noise."""

    hidden: tuple[int, ...] = (32,)
    """Sizes of the layers of neurons between input and output."""

    batch_size: int = 20
    """Samples per update."""

    learning_rate: tuple[float, ...] = (0.3,)
    """One rate, or one per layer of weights from the input on."""

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

    cycles: int = 2
    """Cycles per update of the lock-in."""

    discard: int | None = None
    """How many of them, at the start, to leave out of the gradient; if not given, those before the network locked."""

    start: Literal["rest", "settled"] = "settled"
    """Where the neurons of the lock-in start at each update: at rest, or at the free equilibrium."""

    always_on: bool = False
    """Carry the neurons' state from input to input, instead of starting from rest."""

    tolerance: float = 1e-4
    """Residual that the phases are settled to."""

    steps: tuple[int, int] | None = None
    """Of phases and classic: so many plain steps free, and at each point, instead of settling."""

    readings: int = 1
    """Of classic under noise: each phase is read so often, and the readings are averaged; 5 in the authors' runs."""

    method: Literal["implicit", "bptt"] = "implicit"
    """Of the exact gradient: implicit differentiation, or backpropagation through the settling."""

    samples: int | None = None
    """Train on so many samples only, from the first."""

    standardise: bool = False
    """Bring the data to zero mean and unit variance."""

    data_dir: Path | None = None
    """Folder with the files of the data set; else that which OSCSIM_DATA names; else downloaded (imagenet32 is not)."""

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

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in."""

    images: Annotated[Images, tyro.conf.arg(name="")] = field(default_factory=Images)
    network: Annotated[Network, tyro.conf.arg(name="")] = field(default_factory=Network)
    signal: Annotated[Signal, tyro.conf.arg(name="")] = field(default_factory=lambda: Signal("adaptive", period=100.0))
    integration: Annotated[Integration, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Integration(solver="euler", steps_per_cycle=100)
    )
    noise: Annotated[Noise, tyro.conf.arg(name="")] = field(default_factory=Noise)
    together: Annotated[Processes, tyro.conf.arg(name="")] = field(default_factory=Processes)

    def run(self) -> None:
        """Run it."""
        together = self.together.join()
        try:
            dataclasses.replace(self, together=Processes())._run()
        except (Exception, SystemExit) as error:
            if not together:
                raise
            status = 2
            match error:
                case SystemExit(code=int(code)):
                    status = code
                case Exception() if isinstance(error, FAILURES):
                    print(f"oscsim: error: process {jax.process_index()}: {one_line(error)}", file=sys.stderr)
                case Exception():
                    traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # leaving in good order waits for the others, who may be lost, or wait for this one

    def _run(self) -> None:
        if self.resume is not None:
            return self._saved_settings()._train(self.resume)
        if self.out is None:
            raise BadValue("out is None: give a folder for the run with --out DIR, or --resume DIR to go on with one")
        require_writable(self.out)
        if checkpoint.paths(self.out):
            raise BadValue(f"out={self.out} holds a run already: choose another folder, or --resume {self.out}")
        dataclasses.replace(self, epochs=10 if self.epochs is None else self.epochs)._train(self.out)

    def _saved_settings(self) -> "Train":
        """The settings of the run that is resumed; of those on the command line only `epochs` counts."""
        refused = [name for name in _changed(self) if name not in ("resume", "epochs")]
        if refused:
            raise BadValue(_fixed(refused[0]))
        path = Path(self.resume or "") / "settings.json"
        try:
            saved = _restored(Train, json.loads(path.read_text("utf-8"))["settings"])
        except FileNotFoundError as error:
            raise BadValue(f"resume={self.resume}: no settings.json there; give the folder of a run") from error
        except (KeyError, TypeError, ValueError) as error:
            raise BadValue(f"{path} was not written by oscsim train, or is damaged ({error})") from error
        if self.epochs not in (None, saved.epochs) and saved.schedule != "constant":
            raise BadValue(
                f"epochs={self.epochs} cannot change where schedule={saved.schedule} ends with the last of "
                f"{saved.epochs}: start anew with --out"
            )
        return saved if self.epochs is None else dataclasses.replace(saved, epochs=self.epochs)

    def _train(self, out: Path) -> None:
        epochs, batch_size = as_count("epochs", self.epochs), as_count("batch_size", self.batch_size)
        resume = bool(checkpoint.paths(out))  # one that was killed before its first starts again
        with jax.enable_x64(self.precision == "float64"):
            data, validation = self._data()
            key_weights, key = jax.random.split(jax.random.key(self.seed))
            if isinstance(data, AbstractSource):
                shape, classes, samples = validation[0].shape[1:], 1000, len(data)
            else:
                (x, y), (_, held_out) = data, validation
                shape, classes, samples = x.shape[1:], classes_of(y, held_out), len(x)
            net = self._network(shape, classes, key_weights)
            steps = epochs * max(1, samples // batch_size)
            estimator, optimizer = self._estimator(), self._optimizer(net, steps)
            versions = {name: metadata.version(name) for name in PACKAGES}
            settings = {"settings": dataclasses.asdict(self), "versions": versions}
            if is_first():
                out.mkdir(parents=True, exist_ok=True)
                checkpoint.write(out / "settings.json", (json.dumps(settings, indent=2, default=str) + "\n").encode())
            try:
                result = osc.train(
                    net,
                    data,
                    estimator,
                    optimizer,
                    epochs=epochs,
                    key=key,
                    batch_size=batch_size,
                    validation=osc.Validation(*validation, self.patience),
                    augment=osc.datasets.augment if self.images.augment else None,
                    checkpoints=osc.Checkpoints(out, resume, self.keep, self.checkpoint_seconds, self.rollback),
                    monitor=osc.Monitor(self.probe, [_Rows()] if is_first() else []),
                )
            except KeyboardInterrupt:
                print(f"\nStopped; go on with: oscsim train --resume {out}", file=sys.stderr)
                sys.exit(130)
        if is_first():
            print(f"\n{result}\nFolder: {out}  (oscsim.load reads the network, oscsim train --resume goes on)")

    def _data(self) -> tuple[AbstractSource | Samples, Samples]:
        """Samples to train on, or a source of them, and held-out ones."""
        if self.data.endswith(".npz"):
            for name, value in {"standardise": self.standardise, "data_dir": self.data_dir}.items():
                if value:
                    raise BadValue(f"{name} belongs to the named data sets, not to {self.data}: leave it out")
            (x, y), (x_test, y_test) = load_npz(Path(self.data)), load_npz(Path(self.data), "x_test", "y_test")
            held_out = x_test, y_test
        elif self.data == "imagenet32":
            if self.samples is not None:
                raise BadValue(f"samples={self.samples}: imagenet32 is read file by file, as a whole; leave it out")
            source = osc.datasets.stream("imagenet32", "train", self.data_dir, standardise=self.standardise)
            by = source if self.standardise else False
            test = osc.datasets.stream("imagenet32", "test", self.data_dir, standardise=by)
            return source, test.first(len(test))
        else:
            x, y = osc.datasets.load(self.data, "train", self.data_dir, standardise=self.standardise)
            held_out = osc.datasets.load(self.data, "test", self.data_dir, standardise=self.standardise)
        if self.samples is not None and not 1 <= self.samples <= len(x):
            raise BadValue(f"samples={self.samples}: {self.data} holds {len(x)}; use 1 to {len(x)}")
        return (x[: self.samples], y[: self.samples]), held_out

    def _network(self, shape: tuple[int, ...], classes: int, key: jax.Array) -> AnyNetwork:
        feedforward, model = self.estimator == "backpropagation", self.images.model
        layered = model == "layered"
        kind, options = ("convolutional", self.images) if layered else ("layered", self.network)
        refused = {name: value for name, value in _changed(self).items() if name == "hidden" and not layered}
        for name, value in (refused | _changed(options)).items():
            raise BadValue(f"{name}={value} belongs to a {kind} network, not to model={model}: leave it out")
        if not layered:
            return self.images.build(classes, key, feedforward)
        if len(shape) != 1:
            raise BadValue(
                f"data={self.data}: samples of shape {shape}, a layered network takes flat ones; use --model vgg4"
            )
        build = self.network.build_feedforward if feedforward else self.network.build
        return build((*shape, *self.hidden, classes), key)

    def _estimator(self) -> osc.AbstractEstimator:
        """The estimator, where no option is left that it would ignore."""
        changed = _changed(self)
        for name, owners in OPTIONS_OF.items():
            if name in changed and self.estimator not in owners:
                raise BadValue(f"{name} belongs to {' and '.join(owners)}, not to {self.estimator}: leave it out")
        noise: Any = self.noise.build()  # an estimator refuses one that it cannot take
        amplitude = self.signal.fixed_amplitude
        if self.estimator == "lock-in":
            signal, how = self.signal.build(), self.integration.build()
            lock_in = osc.LockIn(
                signal, cycles=self.cycles, discard=self.discard, noise=noise, start=self.start, integration=how
            )
            return osc.AlwaysOn(lock_in) if self.always_on else lock_in
        if self.estimator == "phases":
            points = 10 if self.signal.points is None else self.signal.points
            if self.steps is not None and self.tolerance != Train().tolerance:
                raise BadValue(f"tolerance={self.tolerance:g} and steps={self.steps} exclude each other: give one")
            tolerance = self.tolerance if self.steps is None else None
            return osc.Phases(amplitude, points, tolerance=tolerance, steps=self.steps, noise=noise)
        if self.estimator == "classic":
            return osc.Classic(amplitude, steps=self.steps, noise=noise, readings=self.readings)
        return osc.Backpropagation() if self.estimator == "backpropagation" else osc.Exact(self.method)

    def _optimizer(self, net: PyTree, steps: int) -> optax.GradientTransformation:
        def make(rate):
            rate = optax.cosine_decay_schedule(rate, steps) if self.schedule == "cosine" else rate
            if self.optimizer == "adam":
                return optax.adamw(rate, weight_decay=self.weight_decay)
            return optax.chain(
                optax.trace(self.momentum) if self.momentum else optax.identity(),
                optax.add_decayed_weights(self.weight_decay),  # after the momentum, which would add it up
                optax.scale_by_learning_rate(rate),
            )

        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadValue(f"weight_decay={self.weight_decay:g}: use 0 or a small positive number, such as 0.001")
        if self.optimizer == "adam" and self.momentum:
            raise BadValue(f"momentum={self.momentum:g} belongs to sgd: leave it out, or use --optimizer sgd")
        bad = [rate for rate in self.learning_rate if not (math.isfinite(rate) and rate > 0)]
        if bad or not self.learning_rate:
            raise BadValue(f"learning_rate={self.learning_rate}: use positive numbers, one or one per layer")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise BadValue(f"clip={self.clip:g}: use a positive norm, such as 1, or leave it out")
        rates = self.learning_rate
        descent = make(rates[0]) if len(rates) == 1 else osc.layerwise(net, rates, make)
        return descent if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), descent)


def require_bare_resume(args: list[str]) -> None:
    """Refuse options beside `--resume`, those that repeat the default too: the run keeps its own.

    Raises:
        ValueError: another option than `--epochs` and those of several processes.
    """
    names = [arg.split("=")[0][2:].replace("-", "_") for arg in args if arg.startswith("--")]
    kept = {"resume", "epochs", "help", *(f.name for f in dataclasses.fields(Processes))}
    for name in names if "resume" in names else ():
        if name not in kept:
            raise BadValue(_fixed(name))


def _fixed(name: str) -> str:
    return (
        f"{name} cannot change in a resumed run: give --resume alone, or with --epochs and the options that say which "
        "process this is"
    )


OSCILLATION = ("cycles", "discard", "start", "always_on", "teaching", "period", "solver", "steps_per_cycle", "ticks")
OPTIONS_OF: Mapping[str, tuple[str, ...]] = dict.fromkeys(OSCILLATION, ("lock-in",)) | {
    "amplitude": ("lock-in", "phases", "classic"),
    "points": ("lock-in", "phases"),
    "noise": ("lock-in", "phases", "classic"),
    "steps": ("phases", "classic"),
    "tolerance": ("phases",),
    "readings": ("classic",),
    "method": ("exact",),
}
"""Which estimators an option belongs to; where it would be ignored, it is refused."""


@dataclass(frozen=True)
class Predict:
    """Classify the samples of a file with a trained network: one label per line on the standard output."""

    network: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run, or one of its checkpoints."""

    data: Annotated[Path, tyro.conf.Positional]
    """An .npy file with inputs, (n, inputs), or an .npz file with an array x of such; scaled as in training."""

    scores: Path | None = None
    """Write the score of each class, (n, classes), to this .npy file as well."""

    best: bool = False
    """Use the network after the best epoch of the run, instead of the newest."""

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in: those of the training run."""

    def run(self) -> None:
        """Run it."""
        x = load_npz(self.data, "x")[0] if self.data.suffix == ".npz" else _load_npy(self.data)
        with jax.enable_x64(self.precision == "float64"):
            scores = osc.scores(osc.load(self.network, self.best), x)
        if self.scores is not None:
            with self.scores.open("wb") as file:
                np.save(file, scores)
        print("\n".join(map(str, scores.argmax(axis=1))))


COLUMNS = ("epoch", "loss", "error", "validation_loss", "validation_error", "cosine", "error_bar", "amplitude")
COLUMNS += ("seconds",)


class _Rows:
    """Prints the metrics of each epoch as a row of a table."""

    def __init__(self):
        self.columns: list[str] = []

    def __call__(self, row: dict[str, float | int], net: PyTree) -> None:
        if not self.columns:
            self.columns = [name for name in COLUMNS if name in row]
            print("  ".join(f"{name.replace('_', ' '):>16}" for name in self.columns))
        print("  ".join(f"{row[name]:>16.5g}" for name in self.columns), flush=True)


def _options(part: object) -> dict[str, object]:
    """The options of `Train`, or of one of its groups, by name."""
    groups = [value for value in vars(part).values() if dataclasses.is_dataclass(value)]
    own = {name: value for name, value in vars(part).items() if value not in groups}
    return functools.reduce(operator.or_, map(_options, groups), own)


def _changed(part: object) -> dict[str, object]:
    """Those that have another value than `Train` has by default."""
    default = _options(Train())
    return {name: value for name, value in _options(part).items() if value != default[name]}


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BadValue(f"data={path}: no such file; use an .npy or .npz file with inputs") from error
    except (ValueError, EOFError) as error:
        raise BadValue(f"data={path}: {error}; use an .npy or .npz file with inputs") from error


def _restored(cls: type[T], values: dict[str, Any]) -> T:
    """A dataclass from what JSON made of it."""
    default = vars(cls())
    paths = {field.name for field in dataclasses.fields(cls) if field.type == Path | None}  # pyright: ignore
    arguments = {}
    for name, value in values.items():
        if type(value) is dict:
            value = _restored(type(default[name]), value)
        elif name in paths and value is not None:
            value = Path(value)
        arguments[name] = tuple(value) if type(value) is list else value
    return cls(**arguments)
