"""Learning: an estimator's gradients, an optax optimizer, mini-batches; a run that can be stopped and goes on.

Whatever is random derives from one key and the number of the step: a run that was stopped at any moment and resumed
from its last checkpoint ends with the same weights, bit for bit. Where several processes train together, all do the
same, and the first one writes.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key, PyTree

from oscsim.core import checkpoint, ending
from oscsim.core.arrays import describe, promoting
from oscsim.core.checks import (
    Given,
    as_builder,
    as_count,
    as_flag,
    as_function,
    as_key,
    as_path,
    as_scalar,
    as_sequence,
    asked,
    both,
    checked,
    require_instance,
    untraced,
)
from oscsim.core.errors import BadType, BadValue, DivergenceError
from oscsim.core.printing import AbstractPrinted
from oscsim.core.progress import Progress
from oscsim.datasets.source import AbstractSource, ArraySource, Samples, digest_of
from oscsim.estimators import AbstractEstimator
from oscsim.networks.base import check_parameters
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Data, Inputs, are_classes, as_targets
from oscsim.networks.learned import as_trainable, named, parameter_name, parameters, plain_name
from oscsim.signals import AbstractNoise
from oscsim.training.devices import Devices, as_mesh, unreplicate
from oscsim.training.evaluation import checked_data, variance_of
from oscsim.training.learner import Learner, Metrics, Trainable, score_name
from oscsim.training.monitor import MONITOR, Monitor, Validation, best_of, reason_to_stop, shown_of
from oscsim.training.resuming import CHECKPOINTS, Checkpoints, RunCheckpoints
from oscsim.training.session import Session
from oscsim.training.updates import Rule, check_optimizer, updates

if TYPE_CHECKING:
    import pandas
    import xarray


class Trained(AbstractPrinted):
    """What `train` returns.

    Attributes:
        network: after the last epoch.
        best: after the epoch with the lowest validation error; with real targets, the lowest validation loss; the
            lowest loss without validation data. The first of several that are equally good.
        history: one dict per epoch, as in `metrics.jsonl`.
        stopped: why the run ended before its last epoch; empty if it did not.

    Example:
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> trained = osc.train(twin, (x, y), osc.Backpropagation(), optax.sgd(0.1), epochs=2, batch_size=3, key=key)
        >>> [row["epoch"] for row in trained.history]
        [1, 2]
        >>> osc.predict(trained.network, x).shape  # a label for each
        (3,)
    """

    network: Trainable
    best: Trainable
    history: list[Metrics]
    stopped: str

    def to_pandas(self) -> "pandas.DataFrame":
        """The history as a `pandas.DataFrame`, one row per epoch."""
        import pandas

        return pandas.DataFrame(self.history).set_index("epoch")

    def to_xarray(self) -> "xarray.Dataset":
        """The history as an `xarray.Dataset` over `epoch`, one variable for each metric.

        Their names are such as every kind of file takes: `cosine/weights[0]` is `cosine_weights_0`.
        """
        import xarray

        return xarray.Dataset.from_dataframe(self.to_pandas().rename(columns=plain_name))

    def __str__(self) -> str:
        if not self.history:
            return f"Trained: no epoch was finished ({self.stopped})"
        score = score_name(self.history[-1])
        final, best = self.history[-1], self.history[best_of([row[score] for row in self.history])]
        lines = [f"Trained in {len(self.history)} epochs, {final['seconds']:.3g} s"]
        for name, row in (("final", final), ("best", best)):
            text = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown_of(row).items())
            text = text.replace(", validation ", "; held out: ", 1).replace("validation ", "")
            lines.append(f"  {name:7} epoch {int(row['epoch'])}: {text}")
        return "\n".join([*lines, *([f"  stopped: {self.stopped}"] if self.stopped else [])])


@promoting
@checked(
    net=both(as_trainable, untraced), augment=as_function, checkpoints=CHECKPOINTS, monitor=MONITOR, devices=as_sequence
)
def train(
    net: Trainable,
    data: "AbstractSource | tuple[Data, Data] | list[Data]",
    estimator: AbstractEstimator,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    key: Key[Array, ""],
    batch_size: int = 20,
    validation: "Validation | tuple[Data, Data] | None" = None,
    augment: Callable | None = None,
    checkpoints: Checkpoints | None = None,
    monitor: Monitor = Monitor(),  # noqa: B008
    devices: Devices | None = None,
) -> Trained:
    r"""Train a network with the gradients of an estimator: $\theta \leftarrow \theta + \mathrm{optimizer}(g)$.

    Each epoch shuffles the data anew and goes through them in batches; what does not fill the last batch is left out
    this time. The steps are compiled once. With `validation` the network is evaluated after each epoch, at its free
    equilibrium. Where targets are real numbers (see `evaluate`), epochs are judged by their loss.

    Args:
        net: the neurons, or a feed-forward network with `Backpropagation()`.
        data: inputs and targets, `(x, y)`, or a source of batches, such as `datasets.stream("imagenet32")`.
        estimator: `LockIn(...)`, `AlwaysOn(LockIn(...))`, `Phases(...)`, `Classic(...)`, `Exact(...)`, or your own.
        optimizer: from optax, with schedules if you like; `layerwise` gives each layer a rate of its own. One that asks
            for it is told the loss of the batch (`optax.contrib.reduce_on_plateau`, `optax.polyak_sgd`); a line search
            (`optax.lbfgs`) tries the loss at the free equilibrium, on one device.
        epochs: how often to go through the data, in all (a resumed run included).
        key: for the order of the data, augmentation and noise.
        batch_size: samples per update.
        validation: held-out data, `(x, y)`, or `Validation(x, y, patience=5)`, which ends a run that gets no better.
        augment: a function of a batch of inputs and a key that returns such a batch, as `datasets.augment`.
        checkpoints: `Checkpoints(folder)` keeps the run on disk, and goes on from there; None writes nothing.
        monitor: `Monitor(...)`: what is compared with the exact gradient, called and shown after each epoch.
        devices: to share each batch, each with the same number of samples; by default all that jax sees, of all
            processes where there are several (`AlwaysOn` takes one).

    Returns:
        The network after the last and after the best epoch, and the metrics of each epoch. They are `epoch` (from 1),
        `step`, `loss` and `error` over the epoch's batches; with `validation` `validation_loss`, `validation_error`,
        with more than five classes `validation_top5_error` (errors in percent; where targets are real `r2` and
        `validation_r2` stand in their place), and `settle_residual` of the evaluation; `residual` (the largest that the
        estimator reported), `cosine` and `cosine/<parameter>` of the
        probe; `rate_scale` (below 1 after a rollback), `seconds`, `samples_per_second` of training.

    Raises:
        DivergenceError: a loss, a gradient or a state is not finite, or the error jumped to chance ($R^2$ below -1);
            names the step, what broke, and the last good checkpoint.
        ValueError: bad data (see `Inputs.of`), counts or settings that do not fit, a folder that holds another run.
        TypeError: a network, estimator or optimizer of the wrong kind; an optimizer that needs what it is not given.
        OSError: the folder cannot be written; said before training starts.

    With `AlwaysOn`, time scales that are too close for learning give a warning (see `check_time_scales`).

    Example:
        >>> trained = osc.train(net, (x, y), osc.Exact(), optax.sgd(0.1), epochs=2, batch_size=3, key=jax.random.key(0))
        >>> trained.history[1]["loss"] < trained.history[0]["loss"]
        True
    """
    as_key("key", key)
    epochs, batch_size = as_count("epochs", epochs), as_count("batch_size", batch_size)
    _check_kinds(net, estimator, optimizer)
    planned = estimator.planned(net)
    source = _source_of(net, data)
    held_out = Validation.of(net, validation)
    if batch_size > len(source):
        raise BadValue(f"batch_size={batch_size}: the data hold {len(source)} samples, use fewer")
    sample = checked_data(net, "data", source.first(max(batch_size, monitor.probe)))
    mesh = _mesh_of(estimator, devices, batch_size)
    inputs = Inputs.of(net, *(a[:batch_size] for a in sample))
    check_optimizer(optimizer, net, inputs, mesh is None)
    state, stream = jax.tree.leaves(optimizer.init(parameters(net))), planned.init(net, inputs, key)
    identity = _identity_of(net, estimator, augment, source, held_out)
    identity |= {"batch_size": str(batch_size), "key": str(jax.random.key_data(key).tolist())}
    fresh = Learner(net, state, stream, 0, 1.0, net, math.inf, (0.0, 0.0, 0.0, 0.0), [], 0.0, identity)
    targets = _targets_of(net, source, sample)
    rule = Rule(planned, optimizer, augment, mesh, are_classes(targets))
    session = Session(rule, source, sample, held_out, batch_size, monitor, variance_of(targets), key=key)
    keeping = RunCheckpoints(checkpoints, fresh, session.steps_per_epoch, mesh)
    learner = keeping.start()
    if learner.step == 0:
        planned.warn(net, inputs)
    session.began -= learner.seconds
    total, patience = epochs * session.steps_per_epoch, None if held_out is None else held_out.patience
    stopped = reason_to_stop(learner, patience)
    save_now = ending.saving(lambda: keeping.save(replace(learner, seconds=session.seconds)))
    bar = Progress(total, "step", learner.step, monitor.shown)
    with contextlib.closing(session), save_now, bar:
        while learner.step < total and not stopped:
            ended = False
            try:
                with bar.compiling("the updates"):
                    new = session.after(learner, *updates(session.rule, *session.next(learner), key=session.key))
                    bar.update(new.step)
                ended = new.step % session.steps_per_epoch == 0
                with bar.compiling("the measurements") if ended else contextlib.nullcontext():
                    # One assignment: whatever interrupts, the learner is that of a boundary, its epoch measured.
                    learner = session.finish_epoch(new) if ended else new
                if ended or keeping.due():
                    learner = replace(learner, seconds=session.seconds)
                    keeping.save(learner)
            except DivergenceError as error:
                learner, ended = keeping.back(learner, error, ended), False
                session.begin_epoch()
                bar.update(learner.step)
            if ended:
                keeping.write_metrics(learner)
                with bar.aside():
                    told = monitor.told_to_stop(learner)
                if not monitor.callbacks:
                    bar.show(shown_of(learner.history[-1]))
                stopped = reason_to_stop(learner, patience) or told
    network, best = unreplicate(mesh, (learner.network, learner.best))
    return Trained(network, best, learner.history, stopped)


def _identity_of(
    net: Trainable,
    estimator: AbstractEstimator,
    augment: Callable | None,
    source: AbstractSource,
    held_out: Validation | None,
) -> dict[str, str]:
    """What a run is made of, in words, beside its batch size and key."""
    return {
        "estimator": describe(estimator),
        "augment": "none" if augment is None else getattr(augment, "__qualname__", type(augment).__qualname__),
        "data": source.digest,
        "validation data": "none" if held_out is None else digest_of(held_out.x, held_out.y),
        "network": str([(name, a.shape, str(a.dtype)) for name, a in named(parameters(net))]),
    }


def _source_of(net: Trainable, data: "AbstractSource | tuple[Data, Data] | list[Data]") -> AbstractSource:
    """The data as a source of batches; where they are in memory, looked at as a whole."""
    if not isinstance(data, AbstractSource):
        return ArraySource(*checked_data(net, "data", data))
    if isinstance(data, ArraySource):
        checked_data(net, "data", (data.x, data.y))
    return data


def _targets_of(net: Trainable, source: AbstractSource, sample: Samples) -> np.ndarray:
    """The targets: all where they are in memory, else the first."""
    match source:
        case ArraySource(y=y):
            return np.asarray(as_targets(net, y))
    return sample[1]


@checked(best=as_flag)
def load(path: str | Path, best: bool = False) -> PyTree:
    """The network in a folder of `train` (of its newest intact checkpoint), or in a file written by `checkpoint.save`.

    Args:
        path: the folder, one of its checkpoints, or the file.
        best: of a run, the network after its best epoch so far, instead of the newest.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there was not written by oscsim, or is damaged; `best` of a file that is not of a run.

    Example:
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> kept = osc.Checkpoints("runs/first")
        >>> trained = osc.train(
        ...     twin, (x, y), osc.Backpropagation(), optax.sgd(0.1), epochs=1, batch_size=3, key=key, checkpoints=kept
        ... )
        >>> np.array_equal(osc.load("runs/first").weights[0], trained.network.weights[0])
        True
    """
    path = as_path("path", path)
    value = checkpoint.Folder(path, write=False).newest(Learner) if path.is_dir() else checkpoint.load(path)
    if isinstance(value, Learner):
        return value.best if best else value.network
    if best:
        raise BadValue(f"best=True: {path} holds no training run; leave it out")
    return value


Rate: TypeAlias = float | Array | optax.Schedule
"""A learning rate, or one that changes with the number of the update."""


def as_rates(name: str, rates: Given) -> Sequence[Rate] | Mapping[str, Rate]:
    """A rate for each layer or parameter, or an error that names what is none."""

    def as_one(place: object, rate: Given) -> Given:
        if not callable(rate):
            as_scalar(f"{name}[{place!r}]", rate)
        return rate

    match rates:
        case Mapping():
            return {str(key): as_one(key, rate) for key, rate in rates.items()}
    return [as_one(i, rate) for i, rate in enumerate(as_sequence(name, rates))]


@checked(net=both(as_trainable, untraced), rates=as_rates, make=as_builder)
def layerwise(
    net: Trainable, rates: Sequence[Rate] | Mapping[str, Rate], make: Callable = optax.sgd
) -> optax.GradientTransformation:
    """An optimizer with a learning rate, or a schedule, for each layer.

    Args:
        net: whose parameters it is for.
        rates: one per layer of weights, from the input on (`weights[i]` and `biases[i]` share the i-th); or a dict from
            names of parameters, as in `per_layer`, to rates.
        make: from a rate to an optimizer.

    Raises:
        ValueError: a parameter without a rate, or a rate without a parameter.

    Example:
        >>> optimizer = osc.layerwise(net, rates=[0.1, 0.01])
        >>> gradient = osc.exact_gradient(net, x, y)
        >>> updates, _ = optimizer.update(gradient, optimizer.init(osc.parameters(net)))
        >>> np.allclose(updates.biases[1], -0.01 * gradient.biases[1])
        True
    """
    leaves = jax.tree_util.tree_leaves_with_path(parameters(net))
    paths = {parameter_name(path): path for path, _ in leaves}
    if isinstance(rates, Mapping):
        of_parameter = rates
    else:
        last = {name: path[-1] for name, path in paths.items()}
        layers = {name: place.idx for name, place in last.items() if isinstance(place, jax.tree_util.SequenceKey)}
        if set(layers) != set(paths) or set(layers.values()) != set(range(len(rates))):
            raise BadValue(
                f"rates has {len(rates)} entries, the parameters are {sorted(paths)}: give one per layer, or a dict "
                "from these names"
            )
        of_parameter = {name: rates[layer] for name, layer in layers.items()}
    if set(of_parameter) != set(paths):
        raise BadValue(f"rates names {sorted(of_parameter)}, the parameters are {sorted(paths)}: give each one a rate")
    labels = jax.tree_util.tree_map_with_path(lambda path, _: parameter_name(path), parameters(net))

    def made(rate: Rate) -> optax.GradientTransformation:
        optimizer = asked("make", make, rate)
        require_instance("make", optimizer, optax.GradientTransformation, "return an optimizer of optax, as optax.sgd")
        return optimizer

    # As a function: a pytree of labels is a network too, and one that can be called would be taken for the function.
    return optax.multi_transform({name: made(rate) for name, rate in of_parameter.items()}, lambda _: labels)


def _mesh_of(estimator: AbstractEstimator, devices: Devices | None, batch_size: int) -> Mesh | None:
    """The devices that share a batch; refused where several would compute something else than one."""
    if estimator.streams and jax.process_count() == 1 and devices is None:
        return None
    mesh = as_mesh(devices, batch_size)
    if mesh is None or mesh.size == 1:
        return mesh
    one = "use one device: devices=jax.devices()[:1], or on GPUs the environment variable CUDA_VISIBLE_DEVICES=0"
    if estimator.streams:
        name = type(estimator).__name__
        raise BadValue(f"{name} carries one state from input to input, on one device, not on {mesh.size}; {one}")

    def is_noise(part):
        return isinstance(part, AbstractNoise)

    for noise in filter(is_noise, jax.tree.leaves(estimator, is_leaf=is_noise)):
        if noise.shared_over_batch:
            raise BadValue(
                f"{type(noise).__name__} is shared over the batch, but each of {mesh.size} devices draws its own; {one}"
            )
    return mesh


def _check_kinds(net: Trainable, estimator: AbstractEstimator, optimizer: optax.GradientTransformation) -> None:
    if not isinstance(estimator, AbstractEstimator):
        raise BadType(f"estimator={estimator!r}: use an instance of an estimator, such as LockIn(...)")
    alive = not isinstance(net, AbstractFeedForwardNetwork)
    if alive == estimator.feedforward:
        raise BadType(
            f"a {type(net).__name__} is not trained by {type(estimator).__name__}: a feed-forward network takes "
            "Backpropagation(), a network with dynamics any other estimator"
        )
    if alive:
        check_parameters(net)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise BadType(f"optimizer={optimizer!r}: use one of optax, such as optax.sgd(0.1)")
