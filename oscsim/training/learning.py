"""Learning: an estimator's gradients, an optax optimizer, mini-batches; a run that can be stopped and goes on.

Whatever is random derives from one key and the number of the step: a run that was stopped at any moment and resumed
from its last checkpoint ends with the same weights, bit for bit. Where several processes train together, all do the
same, and the first one writes.
"""

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Key

from oscsim.core import checkpoint
from oscsim.core.arrays import describe
from oscsim.core.checks import as_count, require_key, require_positive
from oscsim.core.errors import BadType, BadValue, DivergenceError
from oscsim.core.progress import interactive, tqdm
from oscsim.datasets.source import AbstractSource, ArraySource, digest_of
from oscsim.estimators import AbstractEstimator, AlwaysOn, Backpropagation, LockIn
from oscsim.networks.base import AbstractNetwork, check_parameters, named, parameter_name, parameters, split_parameters
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Inputs
from oscsim.response.time_scales import check_time_scales
from oscsim.signals import AbstractNoise
from oscsim.signals.drive import check_drive, turning_coefficient
from oscsim.training.devices import agreed, as_mesh, is_first, replicate, unreplicate, wait_for_all
from oscsim.training.evaluation import checked_data
from oscsim.training.learner import Learner, Metrics, score_name
from oscsim.training.session import Session
from oscsim.training.updates import Rule

if TYPE_CHECKING:
    import xarray


class Trained(eqx.Module):
    """What `train` returns.

    Attributes:
        network: after the last epoch.
        best: after the epoch with the lowest validation error (lowest loss without validation data).
        history: one dict per epoch, as in `metrics.jsonl`.
        stopped: why the run ended before its last epoch; empty if it did not.
    """

    network: Any
    best: Any
    history: list[Metrics]
    stopped: str

    def to_pandas(self) -> Any:
        """The history as a `pandas.DataFrame`, one row per epoch."""
        import pandas

        return pandas.DataFrame(self.history).set_index("epoch")

    def to_xarray(self) -> "xarray.Dataset":
        """The history as an `xarray.Dataset` over `epoch`, one variable for each metric."""
        import xarray

        return xarray.Dataset.from_dataframe(self.to_pandas())

    def __str__(self) -> str:
        if not self.history:
            return f"Trained: no epoch was finished ({self.stopped})"
        score = score_name(self.history[-1])
        final, best = self.history[-1], self.history[_best([row[score] for row in self.history])]
        lines = [f"Trained in {len(self.history)} epochs, {final['seconds']:.3g} s"]
        for name, row in (("final", final), ("best", best)):
            text = ", ".join(f"{key.replace('_', ' ')} {row[key]:.4g}" for key in ("loss", *_scores(row)))
            lines.append(f"  {name:7} epoch {int(row['epoch'])}: {text}")
        return "\n".join([*lines, *([f"  stopped: {self.stopped}"] if self.stopped else [])])

    def __repr__(self) -> str:
        return str(self)


def train(
    net: AbstractNetwork | AbstractFeedForwardNetwork,
    data: Any,
    estimator: AbstractEstimator,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    key: Key[Array, ""],
    batch_size: int = 20,
    validation: Any = None,
    augment: Callable | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    keep: int = 3,
    checkpoint_seconds: float = 60.0,
    patience: int | None = None,
    rollback: float | None = None,
    probe: int = 100,
    callbacks: Sequence[Callable[[Metrics, Any], Any]] = (),
    devices: Sequence[Any] | None = None,
    progress: bool | None = None,
) -> Trained:
    r"""Train a network with the gradients of an estimator: $\theta \leftarrow \theta + \mathrm{optimizer}(g)$.

    Each epoch shuffles the data anew and goes through them in batches; what does not fill the last batch is left out
    this time. The steps are compiled once. With `validation` the network is evaluated after each epoch, at its free
    equilibrium.

    Args:
        net: the neurons, or a feed-forward network with `Backpropagation()`.
        data: inputs and targets, `(x, y)`, or a source of batches, such as `datasets.stream("imagenet32")`.
        estimator: `LockIn(...)`, `AlwaysOn(LockIn(...))`, `Phases(...)`, `Classic(...)`, `Exact(...)`, or your own.
        optimizer: from optax, with schedules if you like; `layerwise` gives each layer a rate of its own.
        epochs: how often to go through the data, in all (a resumed run included).
        key: for the order of the data, augmentation and noise.
        batch_size: samples per update.
        validation: held-out data, `(x, y)`.
        augment: a function of a batch of inputs and a key that returns such a batch, as `datasets.augment`.
        out: folder for checkpoints and `metrics.jsonl`; made if it does not exist. None writes nothing.
        resume: go on from the newest checkpoint in `out`, with the same arguments: network, training and validation
            data, estimator, batch size and key are checked, `augment` by its name; of the optimizer only the kind of
            its state.
        keep: how many checkpoints are kept, beside that of the beginning of the epoch.
        checkpoint_seconds: at most so long between checkpoints; there is one at the start and after each epoch too.
        patience: stop after so many epochs without a better validation error.
        rollback: after a divergence go back to the last checkpoint and go on with updates multiplied by this, below 1;
            at most ten times. None raises.
        probe: samples of the data on which the estimate is compared with the exact gradient after each epoch (with
            `AlwaysOn`, one batch of them, following the last input); 0 for none.
        callbacks: each is called after an epoch with its metrics and the network; one that returns True ends the run.
        devices: to share each batch, each with the same number of samples; by default all that jax sees, of all
            processes where there are several (`AlwaysOn` takes one).
        progress: show a progress bar; by default at a terminal and in notebooks.

    Returns:
        The network after the last and after the best epoch, and the metrics of each epoch. They are `epoch` (from 1),
        `step`, `loss` and `error` over the epoch's batches; with `validation` `validation_loss`, `validation_error`,
        with more than five classes `validation_top5_error` (errors in percent), and `settle_residual` of the
        evaluation; `residual` (the largest that the estimator reported), `cosine` and `cosine/<parameter>` of the
        probe; `rate_scale` (below 1 after a rollback), `seconds`, `samples_per_second` of training.

    Raises:
        DivergenceError: a loss, a gradient or a state is not finite, or the error jumped to chance; names the step,
            what broke, and the last good checkpoint.
        ValueError: bad data (see `Inputs.of`), counts or settings that do not fit, a folder that holds another run.
        OSError: the folder cannot be written; said before training starts.

    With `AlwaysOn`, time scales that are too close for learning give a warning (see `check_time_scales`).
    """
    require_key(key)
    epochs, batch_size = as_count("epochs", epochs), as_count("batch_size", batch_size)
    probe, keep = as_count("probe", probe, 0), as_count("keep", keep)
    _check_stopping(patience, validation, rollback, out)
    require_positive("checkpoint_seconds", checkpoint_seconds)
    if resume and out is None:
        raise BadValue("resume=True needs the folder of the run: give out=...")
    _check_kinds(net, estimator, optimizer)
    if isinstance(data, ArraySource):
        checked_data(net, "data", (data.x, data.y))
    source = data if isinstance(data, AbstractSource) else ArraySource(*checked_data(net, "data", data))
    held_out = None if validation is None else checked_data(net, "validation", validation)
    if batch_size > len(source):
        raise BadValue(f"batch_size={batch_size}: the data hold {len(source)} samples, use fewer")
    sample = checked_data(net, "data", source.first(max(batch_size, probe)))
    alone = isinstance(estimator, AlwaysOn) and jax.process_count() == 1 and devices is None
    mesh = None if alone else as_mesh(devices, batch_size)
    _check_devices(estimator, mesh)

    identity = {
        "estimator": describe(estimator) if isinstance(estimator, eqx.Module) else type(estimator).__qualname__,
        "augment": "none" if augment is None else getattr(augment, "__qualname__", type(augment).__qualname__),
        "batch_size": str(batch_size),
        "key": str(jax.random.key_data(key).tolist()),
        "data": source.digest,
        "validation data": "none" if held_out is None else digest_of(*held_out),
        "network": str([(name, a.shape, str(a.dtype)) for name, a in named(parameters(net))]),
    }
    if isinstance(estimator, (LockIn, AlwaysOn)) and not isinstance(net, AbstractFeedForwardNetwork):
        estimator = estimator.planned(net)
    folder = None if out is None else _folder(out, keep)
    batch = tuple(a[:batch_size] for a in sample)
    learner = replicate(mesh, _start(net, estimator, optimizer, batch, key, identity, folder, resume))
    _write_metrics(folder, learner)
    rule = Rule(estimator, optimizer, augment, mesh)
    session = Session(rule, source, sample, held_out, batch_size, probe, key=key)

    def reloaded(scale):
        return replicate(mesh, replace(_loaded(folder, net, optimizer, identity), rate_scale=scale))

    keeping = _Keeping(folder, checkpoint_seconds, session.steps_per_epoch, rollback, reloaded)
    shown = is_first() and (interactive() if progress is None else progress)
    learner, stopped = _trained(session, learner, keeping, epochs, patience, callbacks, shown)
    network, best = unreplicate(mesh, (learner.network, learner.best))
    return Trained(network, best, learner.history, stopped)


def _check_stopping(patience: int | None, validation: Any, rollback: float | None, out: Any) -> None:
    """Refuse what ends a run, or turns it back, where there is nothing to judge by or to go back to."""
    if patience is not None:
        as_count("patience", patience)
        if validation is None:
            raise BadValue(f"patience={patience} needs validation data to judge by: give validation=(x, y)")
    if rollback is not None and not 0 < rollback < 1:
        raise BadValue(f"rollback={rollback}: use a factor between 0 and 1, such as 0.5")
    if rollback is not None and out is None:
        raise BadValue(f"rollback={rollback} goes back to a checkpoint, and out=None keeps none: give a folder")


class _Keeping:
    """The checkpoints of a run: when they are written, and how a run goes back to them."""

    def __init__(self, folder, seconds, steps_per_epoch, rollback, reloaded):
        self.folder, self.seconds, self.steps_per_epoch = folder, seconds, steps_per_epoch
        self.rollback, self.reloaded, self.rollbacks = rollback, reloaded, 0
        self.saved = time.perf_counter()

    def save(self, learner: Learner) -> None:
        """Write a checkpoint, where there is a folder."""
        _save(self.folder, learner, self.steps_per_epoch)
        self.saved = time.perf_counter()

    def due(self) -> bool:
        """Whether the last checkpoint is too long ago."""
        return time.perf_counter() - self.saved > self.seconds

    def back(self, learner: Learner, error: DivergenceError, ended: bool) -> Learner:
        """The learner of the last good checkpoint, with smaller updates.

        `ended` says whether the divergence was seen at the end of an epoch.

        Raises:
            DivergenceError: there is none to go back to, or it was gone back to too often.
        """
        folder, rollback = self.folder, self.rollback
        if ended and folder is not None:  # it came about within the epoch: what was saved since is lost
            folder.rewind(_epoch_start(learner.step, self.steps_per_epoch))
        if rollback is None or folder is None or self.rollbacks == MOST_ROLLBACKS:
            where = "" if folder is None else f"; the last good checkpoint is {folder.newest_path()}"
            raise DivergenceError(f"{error}{where}") from error
        self.rollbacks += 1
        scale = learner.rate_scale * rollback
        warnings.warn(f"{error}; going back to {folder.newest_path()} with updates times {scale:g}", stacklevel=4)
        learner = self.reloaded(scale)
        _save(folder, learner, self.steps_per_epoch)  # whoever goes on from here does so with this scale
        _write_metrics(folder, learner)
        return learner


def _trained(
    session: Session,
    learner: Learner,
    keeping: _Keeping,
    epochs: int,
    patience: int | None,
    callbacks: Sequence[Callable[[Metrics, Any], Any]],
    shown: bool,
) -> tuple[Learner, str]:
    """The learner after all epochs, and why the run ended before, if it did."""
    steps_per_epoch, pace = session.steps_per_epoch, 1
    stopped, began = _reason_to_stop(learner, patience), time.perf_counter() - learner.seconds
    bar = tqdm(total=epochs * steps_per_epoch, initial=learner.step, unit="step", disable=not shown)
    try:
        while learner.step < epochs * steps_per_epoch and not stopped:
            chunk_began, ended = time.perf_counter(), False
            try:
                new, done = session.advance(learner, pace)
                ended = new.step % steps_per_epoch == 0
                # One assignment: whatever interrupts, the learner is that of a boundary, its epoch measured.
                learner = session.finish_epoch(new, time.perf_counter() - began) if ended else new
            except DivergenceError as error:
                learner = keeping.back(learner, error, ended)
                session.epoch_began, session.epoch_steps = time.perf_counter(), 0
                bar.reset()
                bar.update(learner.step)
                continue
            bar.update(done)
            now = time.perf_counter()
            pace = agreed(max(1, math.ceil(done * 0.5 / (now - chunk_began))))  # a call of half a second
            if ended or keeping.due():
                learner = replace(learner, seconds=now - began)
                keeping.save(learner)
            if ended:
                row = learner.history[-1]
                _write_metrics(keeping.folder, learner)
                bar.set_postfix({name: f"{row[name]:.4g}" for name in ("loss", *_scores(row))})
                stopped = _reason_to_stop(learner, patience)
                if agreed(any([callback(row, learner.network) for callback in callbacks])):
                    stopped = stopped or "a callback asked for it"
    except KeyboardInterrupt:
        keeping.save(replace(learner, seconds=time.perf_counter() - began))
        raise
    finally:
        bar.close()
        session.close()
    return learner, stopped


MOST_ROLLBACKS = 10
"""After so many the run is given up."""


def load(path: str | Path, best: bool = False) -> Any:
    """The network in a folder of `train` (of its newest intact checkpoint), or in a file written by `checkpoint.save`.

    Args:
        path: the folder, one of its checkpoints, or the file.
        best: of a run, the network after its best epoch so far, instead of the newest.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: what is there was not written by oscsim, or is damaged; `best` of a file that is not of a run.
    """
    path = Path(path)
    value = checkpoint.Folder(path, write=False).newest(Learner) if path.is_dir() else checkpoint.load(path)
    if isinstance(value, Learner):
        return value.best if best else value.network
    if best:
        raise BadValue(f"best=True: {path} holds no training run; leave it out")
    return value


def layerwise(
    net: AbstractNetwork | AbstractFeedForwardNetwork, rates: Sequence[Any] | dict[str, Any], make: Callable = optax.sgd
) -> optax.GradientTransformation:
    """An optimizer with a learning rate, or a schedule, for each layer.

    Args:
        net: whose parameters it is for.
        rates: one per layer of weights, from the input on (`weights[i]` and `biases[i]` share the i-th); or a dict from
            names of parameters, as in `per_layer`, to rates.
        make: from a rate to an optimizer.

    Raises:
        ValueError: a parameter without a rate, or a rate without a parameter.
    """
    leaves = jax.tree_util.tree_leaves_with_path(parameters(net))
    paths = {parameter_name(path): path for path, _ in leaves}
    if isinstance(rates, dict):
        of_parameter = rates
    else:
        layers = {name: getattr(path[-1], "idx", None) for name, path in paths.items()}
        if set(layers.values()) != set(range(len(rates))):
            raise BadValue(
                f"rates has {len(rates)} entries, the parameters are {sorted(paths)}: give one per layer, or a dict "
                "from these names"
            )
        of_parameter = {name: rates[layer] for name, layer in layers.items() if layer is not None}
    if set(of_parameter) != set(paths):
        raise BadValue(f"rates names {sorted(of_parameter)}, the parameters are {sorted(paths)}: give each one a rate")
    labels = jax.tree_util.tree_map_with_path(lambda path, _: parameter_name(path), parameters(net))
    # As a function: a pytree of labels is a network too, and one that can be called would be taken for the function.
    return optax.multi_transform({name: make(rate) for name, rate in of_parameter.items()}, lambda _: labels)


def _check_devices(estimator: AbstractEstimator, mesh: Mesh | None) -> None:
    """Refuse several devices where they would compute something else than one."""
    if mesh is None or mesh.size == 1:
        return
    one = "use one device: devices=jax.devices()[:1], or on GPUs the environment variable CUDA_VISIBLE_DEVICES=0"
    if isinstance(estimator, AlwaysOn):
        raise BadValue(f"AlwaysOn carries one state from input to input, on one device, not on {mesh.size}; {one}")
    for noise in jax.tree.leaves(estimator, is_leaf=lambda part: isinstance(part, AbstractNoise)):
        if isinstance(noise, AbstractNoise) and noise.shared_over_batch:
            raise BadValue(
                f"{type(noise).__name__} is shared over the batch, but each of {mesh.size} devices draws its own; {one}"
            )


def _check_kinds(net: Any, estimator: AbstractEstimator, optimizer: optax.GradientTransformation) -> None:
    if isinstance(net, AbstractFeedForwardNetwork) != isinstance(estimator, Backpropagation):
        raise BadType(
            f"a {type(net).__name__} is not trained by {type(estimator).__name__}: a feed-forward network takes "
            "Backpropagation(), a network with dynamics any other estimator"
        )
    if not isinstance(net, AbstractFeedForwardNetwork):
        check_parameters(net)
    if not isinstance(estimator, AbstractEstimator):
        raise BadType(f"estimator={estimator!r}: use an instance of an estimator, such as LockIn(...)")
    lock_in = estimator.lock_in if isinstance(estimator, AlwaysOn) else estimator
    if isinstance(lock_in, LockIn) and not isinstance(net, AbstractFeedForwardNetwork):
        # While steps are traced, nothing can be looked at.
        check_drive(net, lock_in.teaching)
        turning_coefficient(lock_in.teaching, net.dtype)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise BadType(f"optimizer={optimizer!r}: use one of optax, such as optax.sgd(0.1)")


def _scores(row: Metrics) -> list[str]:
    """The names of what is worth showing beside the loss."""
    return [name for name in ("error", "validation_loss", "validation_error", "validation_top5_error") if name in row]


def _best(scores: Sequence[float]) -> int:
    """Where the lowest is; one that is not a number is none."""
    return int(np.argmin(np.where(np.isnan(scores), np.inf, scores)))


def _reason_to_stop(learner: Learner, patience: int | None) -> str:
    if patience is None or not learner.history:
        return ""
    scores = [row[score_name(row)] for row in learner.history]
    since = len(scores) - 1 - _best(scores)
    return f"no better epoch in the last {since}" if since >= patience else ""


# Files.


def _folder(out: str | Path, keep: int) -> checkpoint.Folder:
    """The run's folder, which the first process makes and writes, and the others read."""
    made = checkpoint.Folder(out, keep) if is_first() else None
    wait_for_all("the folder is made")
    return made or checkpoint.Folder(out, keep, write=False)


def _start(
    net: Any,
    estimator: AbstractEstimator,
    optimizer: optax.GradientTransformation,
    sample: tuple,
    key: Key[Array, ""] | None,
    identity: dict[str, str],
    folder: Any,
    resume: bool,
) -> Learner:
    """The learner to begin with: a fresh one, already saved, or the one in the newest checkpoint."""
    if folder is not None:
        folder.clean()
    if resume:
        return _loaded(folder, net, optimizer, identity)
    if folder is not None and folder.paths():
        raise BadValue(
            f"out={folder.path} holds a run already: pass resume=True to go on with it, or choose another folder"
        )
    x, y = sample
    if isinstance(estimator, AlwaysOn):
        check_time_scales(net, x, y, estimator.lock_in.teaching, estimator.lock_in.cycles, demodulated=True)
    stream = None if isinstance(net, AbstractFeedForwardNetwork) else estimator.init(net, Inputs.of(net, x, y), key)
    wait_for_all("the folder is seen to be empty")
    state = jax.tree.leaves(optimizer.init(parameters(net)))
    learner = Learner(net, state, stream, 0, 1.0, net, math.inf, (0.0, 0.0, 0.0, 0.0), [], 0.0, identity)
    if folder is not None:
        folder.save(0, learner)
    return learner


def _loaded(folder: Any, net: Any, optimizer: optax.GradientTransformation, identity: dict[str, str]) -> Learner:
    wait_for_all("what is to be read is written")
    learner = folder.newest(Learner)
    wait_for_all("it is read")
    for name, ours in identity.items():
        if (theirs := learner.identity.get(name)) != ours:
            raise BadValue(
                f"{folder.path} holds a run with another {name}: {theirs}, not {ours}; resume with the same, or choose "
                "another folder"
            )
    # numpy's arrays come back from the first update as jax's, which are 32 bits wide where those were 64
    theirs, ours = (
        jax.tree.map(lambda a: jnp.asarray(a) if eqx.is_array(a) else a, split_parameters(of)[1])
        for of in (learner.network, net)
    )
    for name in vars(net):  # all that is not learned
        if not eqx.tree_equal(getattr(theirs, name, None), getattr(ours, name)):
            said = (describe(getattr(of, name, None)) for of in (theirs, ours))
            raise BadValue(
                f"{folder.path} holds a run with another {name}: {', not '.join(said)}; resume with the same, or "
                "choose another folder"
            )
    expected = jax.tree.leaves(jax.eval_shape(optimizer.init, parameters(net)))
    shapes = [[(np.shape(a), jnp.result_type(a)) for a in state] for state in (learner.optimizer_state, expected)]
    if shapes[0] != shapes[1]:
        raise BadValue(f"{folder.path} holds a run with another optimizer: resume with the same")
    return learner


def _epoch_start(step: int, steps_per_epoch: int) -> int:
    """The step at which the epoch began; a step between two epochs begins one."""
    return step // steps_per_epoch * steps_per_epoch


def _save(folder: Any, learner: Learner, steps_per_epoch: int) -> None:
    """A checkpoint, where there is a folder; one that cannot be written is said, and training goes on."""
    if folder is None:
        return
    try:
        folder.save(learner.step, learner, spare=_epoch_start(learner.step, steps_per_epoch))
    except OSError as error:
        warnings.warn(
            f"no checkpoint at step {learner.step}: {error}; training goes on, the checkpoints before it are intact",
            stacklevel=3,
        )


def _write_metrics(folder: Any, learner: Learner) -> None:
    """`metrics.jsonl` as of this state, whole or as it was: rows after a checkpoint that is gone back to go with it."""
    if folder is None or not folder.write:
        return
    rows = ({k: v if math.isfinite(v) else None for k, v in row.items()} for row in learner.history)
    try:
        checkpoint.write(folder.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    except OSError as error:
        warnings.warn(f"the metrics of step {learner.step} are not in metrics.jsonl: {error}", stacklevel=3)
