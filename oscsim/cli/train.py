"""`oscsim train` and `oscsim predict`."""

import dataclasses
import functools
import io
import json
import math
import operator
import os
import shlex
import sys
import traceback
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import numpy as np
import tyro
from jaxtyping import PyTree

import oscsim as osc
from oscsim.cli.learning import Data, Descent, Estimation, Keeping, owners_of
from oscsim.cli.reports import FAILURES, one_line, require_writable, require_writable_file, save_figure
from oscsim.cli.settings import (
    AnyNetwork,
    Images,
    Integration,
    Network,
    Noise,
    Processes,
    Signal,
    classes_of,
    shaped,
)
from oscsim.core import BadValue, as_count, checkpoint, ending, reading, write
from oscsim.datasets import AbstractSource, OwnData
from oscsim.networks import are_classes
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
    """digits (embedded), mnist, fashion_mnist, cifar10, cifar100, imagenet32 (read file by file, ahead of time), or
    data of your own: a table (.csv), an .npz file with arrays x, y, x_test, y_test, such arrays in .npy files, or a
    folder of IDX files. Labels may be names; images are flattened for a layered network."""

    out: Path | None = None
    """Folder for the run; made if it does not exist."""

    resume: Path | None = None
    """Go on with the run in this folder, with its own settings; all other options are refused, but for --epochs
    (not under --schedule cosine) and those that say which process this is."""

    estimator: Literal["lock-in", "orbit", "phases", "classic", "exact", "backpropagation"] = "lock-in"
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

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in."""

    dataset: tyro.conf.OmitArgPrefixes[Data] = field(default_factory=Data)
    descent: tyro.conf.OmitArgPrefixes[Descent] = field(default_factory=Descent)
    keeping: tyro.conf.OmitArgPrefixes[Keeping] = field(default_factory=Keeping)
    estimation: tyro.conf.OmitArgPrefixes[Estimation] = field(default_factory=Estimation)
    images: tyro.conf.OmitArgPrefixes[Images] = field(default_factory=Images)
    network: tyro.conf.OmitArgPrefixes[Network] = field(default_factory=Network)
    signal: tyro.conf.OmitArgPrefixes[Signal] = field(default_factory=lambda: Signal("adaptive", period=100.0))
    integration: tyro.conf.OmitArgPrefixes[Integration] = field(
        default_factory=lambda: Integration(solver="euler", steps_per_cycle=100)
    )
    noise: tyro.conf.OmitArgPrefixes[Noise] = field(default_factory=Noise)
    together: tyro.conf.OmitArgPrefixes[Processes] = field(default_factory=Processes)

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
            ending.go_on_by(_resumed_by(self.resume))
            return self._saved_settings()._train(self.resume)
        if self.out is None:
            raise BadValue("out is None: give a folder for the run with --out DIR, or --resume DIR to go on with one")
        require_writable(self.out)
        if checkpoint.paths(self.out):
            raise BadValue(f"out={self.out} holds a run already: choose another folder, or --resume {self.out}")
        if (self.out / "settings.json").exists() and "versions" not in _about_run(self.out):
            raise BadValue(f"out={self.out} holds a settings.json of something else: choose another folder")
        dataclasses.replace(self, epochs=10 if self.epochs is None else self.epochs)._train(self.out)

    def _saved_settings(self) -> "Train":
        """The settings of the run that is resumed; of those on the command line only `epochs` counts."""
        refused = [name for name in _changed(self) if name not in ("resume", "epochs")]
        if refused:
            raise BadValue(_fixed(refused[0]))
        path = Path(self.resume or "") / "settings.json"
        if not path.is_file():
            raise BadValue(f"resume={self.resume}: no settings.json there; give the folder of a run")
        with reading(f"{path} was not written by oscsim train, or is damaged"):
            saved = _restored(Train, json.loads(path.read_bytes())["settings"])
        if self.epochs not in (None, saved.epochs) and saved.descent.schedule != "constant":
            raise BadValue(
                f"epochs={self.epochs} cannot change where schedule={saved.descent.schedule} ends with the last of "
                f"{saved.epochs}: start anew with --out"
            )
        return saved if self.epochs is None else dataclasses.replace(saved, epochs=self.epochs)

    def _train(self, out: Path) -> None:
        epochs, batch_size = as_count("epochs", self.epochs), as_count("batch_size", self.batch_size)
        resume = bool(checkpoint.paths(out))  # one that was killed before its first starts again
        with jax.enable_x64(self.precision == "float64"):
            own = self.dataset.own(self.data, self.keeping.patience) if self.data not in osc.datasets.NAMES else None
            data, validation = self.dataset.build(self.data, own, self.images.model == "layered")
            key_weights, key = jax.random.split(jax.random.key(self.seed))
            if isinstance(data, AbstractSource):
                shape, classes, samples = (32, 32, 3), 1000, len(data)  # imagenet32
            else:
                (x, y), held_out = data, [] if validation is None else [validation[1]]
                shape, classes, samples = x.shape[1:], classes_of(y, *held_out), len(x)
            net = self._network(shape, classes, key_weights)
            steps = epochs * max(1, samples // batch_size)
            estimator, optimizer = self._estimator(), self.descent.build(net, self.learning_rate, steps)
            versions = {name: metadata.version(name) for name in PACKAGES}
            settings = {"settings": dataclasses.asdict(self), "versions": versions} | _about(own)
            if is_first():
                out.mkdir(parents=True, exist_ok=True)
                write(out / "settings.json", (json.dumps(settings, indent=2, default=str) + "\n").encode())
            ending.go_on_by(_resumed_by(out))
            result = osc.train(
                net,
                data,
                estimator,
                optimizer,
                epochs=epochs,
                key=key,
                batch_size=batch_size,
                validation=None if validation is None else osc.Validation(*validation, self.keeping.patience),
                augment=osc.datasets.augment if self.images.augment else None,
                checkpoints=osc.Checkpoints(
                    out, resume, self.keeping.keep, self.keeping.checkpoint_seconds, self.keeping.rollback
                ),
                monitor=osc.Monitor(self.keeping.probe, [_Rows()] if is_first() else []),
            )
        if is_first():
            print(f"\n{result}\nFolder: {out}  (oscsim.load reads the network, oscsim train --resume goes on)")
            if result.history:
                save_figure(osc.plot.training(result), out / "learning.png")
                print(f"Figure: {out / 'learning.png'}")

    def _network(self, shape: tuple[int, ...], classes: int, key: jax.Array) -> AnyNetwork:
        feedforward, model = self.estimator == "backpropagation", self.images.model
        layered = model == "layered"
        kind, options = ("convolutional", self.images) if layered else ("layered", self.network)
        refused = {name: value for name, value in _changed(self).items() if name == "hidden" and not layered}
        for name, value in (refused | _changed(options)).items():
            raise BadValue(f"{name}={value} belongs to a {kind} network, not to model={model}: leave it out")
        if not layered:
            net = self.images.build(classes, key, feedforward)
            if net.input_shape not in (None, shape):
                raise BadValue(
                    f"data={self.data}: samples of shape {shape}, model={model} takes {net.input_shape}; bring them to "
                    "that shape, or use --model layered, which flattens images"
                )
            return net
        if len(shape) != 1:
            raise BadValue(
                f"data={self.data}: samples of shape {shape}, a layered network takes flat ones; use --model vgg4"
            )
        build = self.network.build_feedforward if feedforward else self.network.build
        return build((*shape, *self.hidden, classes), key)

    def _estimator(self) -> osc.AbstractEstimator:
        """The estimator, where no option is left that it would ignore."""
        changed = _changed(self)
        for name, owners in owners_of(self).items():
            if name in changed and self.estimator not in owners:
                raise BadValue(f"{name} belongs to {' and '.join(owners)}, not to {self.estimator}: leave it out")
        return self.estimation.build(self.estimator, self.signal, self.integration, self.noise)


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


def with_adaptive_steps(args: list[str]) -> list[str]:
    """The arguments, where tolerances are among them, without the equal steps of Euler that are the default."""
    given = {arg.split("=")[0].replace("_", "-") for arg in args}
    if not given & {"--rtol", "--atol"}:
        return args
    left_out = [name for name in ("--solver", "--steps-per-cycle") if name not in given]
    return [*args, *(word for name in left_out for word in (name, "None"))]


def _resumed_by(folder: Path) -> str:
    return f"go on with: oscsim train --resume {shlex.quote(str(folder))}"


def _fixed(name: str) -> str:
    return (
        f"{name} cannot change in a resumed run: give --resume alone, or with --epochs and the options that say which "
        "process this is"
    )


@dataclass(frozen=True)
class Predict:
    """Apply a trained network to the samples of a file: a label, or the outputs of a regression, on each line."""

    network: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run, or one of its checkpoints."""

    data: Annotated[Path, tyro.conf.Positional]
    """A table (.csv), an .npy file with inputs, (n, inputs), or an .npz file with an array x of such. Inputs are scaled
    as in training, but for those of a named data set that was standardised."""

    scores: Path | None = None
    """Write the score of each class, (n, classes), or the outputs of a regression to this .npy file as well."""

    best: bool = False
    """Use the network after the best epoch of the run, instead of the newest."""

    precision: Literal["float32", "float64"] = "float32"
    """Floating-point numbers to compute in: those of the training run."""

    def run(self) -> None:
        """Run it."""
        require_writable_file("scores", self.scores, (".npy",))
        about = _about_run(self.network)
        with jax.enable_x64(self.precision == "float64"):
            net = osc.load(self.network, self.best)
            count = math.prod(net.input_shape) if net.input_shape else None
            x = osc.datasets.read_inputs(self.data, count, about.get("target"), about["columns"])
            if about["scaling"] is not None:
                mean, deviation = about["scaling"]
                if not {mean.shape, deviation.shape} <= {(1,), x.shape[1:], x.shape[-1:]}:
                    raise BadValue(
                        f"network={self.network} was scaled for samples of shape {mean.shape}, not {x.shape[1:]}"
                    )
                x = (x - mean) / deviation
            x = shaped(net, x)
            scores = osc.predict(net, x, labels=False) if about["real"] else osc.scores(net, x)
        if self.scores is not None:
            buffer = io.BytesIO()
            np.save(buffer, scores)
            self.scores.parent.mkdir(parents=True, exist_ok=True)
            write(self.scores, buffer.getbuffer())
        if about["real"]:
            print("\n".join(" ".join(f"{value:.7g}" for value in row) for row in scores))
        else:
            names = about["classes"] or range(scores.shape[1])
            if len(names) != scores.shape[1]:
                raise BadValue(f"network={self.network} has {scores.shape[1]} outputs, and the names of {len(names)}")
            print("\n".join(str(names[i]) for i in scores.argmax(axis=1)))


def _about(own: OwnData | None) -> dict[str, Any]:
    """What `predict` has to know of the data of a run."""
    if own is None:
        return {}
    scaling = own.scaling and [np.ravel(a).tolist() for a in own.scaling]
    real = not are_classes(own.train[1])
    return {"classes": own.classes, "scaling": scaling, "real": real, "columns": own.columns}


def _about_run(network: Path) -> dict[str, Any]:
    """The same, from the folder of a run or of its checkpoint, with the settings."""
    if not network.exists():
        raise BadValue(f"network={network}: there is no such file or folder")
    path = (network if network.is_dir() else network.parent) / "settings.json"
    about = {"settings": {}, "classes": (), "scaling": None, "real": False, "columns": ()}
    if path.is_file():
        with reading(f"{path} was not written by oscsim train, or is damaged"):
            about |= json.loads(path.read_bytes())
            if about["scaling"] is not None:
                mean, deviation = (np.array(part, float) for part in about["scaling"])
                about["scaling"] = mean, deviation
            about["classes"], about["columns"] = ([str(n) for n in about[k]] for k in ("classes", "columns"))
            about["target"] = about["settings"].get("dataset", {}).get("target")
    return about


COLUMNS = {
    "epoch": ("epoch", 5, ".0f"),
    "loss": ("loss", 10, ".4g"),
    "error": ("error\n(%)", 6, ".2f"),
    "r2": ("R²", 8, ".4f"),
    "validation_loss": ("validation\nloss", 11, ".4g"),
    "validation_error": ("validation\nerror (%)", 11, ".2f"),
    "validation_r2": ("validation\nR²", 11, ".4f"),
    "cosine": ("cosine to\nexact", 10, ".6f"),
    "error_bar": ("its own\nerror", 8, ".2g"),
    "amplitude": ("amplitude", 10, ".3g"),
    "seconds": ("time\n(s)", 7, ".1f"),
}
"""Of the table of epochs: head, width and form of each metric; together 80 columns at most."""


class _Rows:
    """Prints the metrics of each epoch as a row of a table."""

    def __init__(self):
        self.columns: list[str] = []

    def __call__(self, row: dict[str, float | int], net: PyTree) -> None:
        if not self.columns:
            self.columns = [name for name in COLUMNS if name in row]
            heads = [(*COLUMNS[name][0].split("\n"), "")[:2] for name in self.columns]
            for line in zip(*heads, strict=True):
                print(
                    "".join(
                        text.rjust(COLUMNS[name][1]) for name, text in zip(self.columns, line, strict=True)
                    ).rstrip()
                )
            print(
                "".join(("-" * (COLUMNS[name][1] - (name != "epoch"))).rjust(COLUMNS[name][1]) for name in self.columns)
            )
        print("".join(format(row[name], COLUMNS[name][2]).rjust(COLUMNS[name][1]) for name in self.columns), flush=True)


def _options(part: object) -> dict[str, object]:
    """The options of `Train`, or of one of its groups, by name."""
    groups = [value for value in vars(part).values() if dataclasses.is_dataclass(value)]
    own = {name: value for name, value in vars(part).items() if value not in groups}
    return functools.reduce(operator.or_, map(_options, groups), own)


def _changed(part: object) -> dict[str, object]:
    """Those that have another value than `Train` has by default."""
    default = _options(Train())
    return {name: value for name, value in _options(part).items() if value != default[name]}


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
