"""The checkpoints of a training run: where they are, when they are written, and how a run resumes from one."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from oscsim.core import checkpoint
from oscsim.core.arrays import describe
from oscsim.core.checks import as_count, as_flag, as_path, as_positive, as_share, instance
from oscsim.core.errors import BadValue, DivergenceError, warn
from oscsim.core.files import write
from oscsim.networks.learned import split_parameters
from oscsim.training.devices import is_first, replicate, wait_for_all
from oscsim.training.learner import Learner

METRICS = "metrics.jsonl"
MOST_ROLLBACKS = 10
"""After so many the run is given up."""


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training run is saved, and whether it goes back to a checkpoint after a divergence.

    A checkpoint holds the whole run, a `Learner`: the network, the best one so far and its score; the optimizer's state
    and what the estimator carries from batch to batch; the number of updates, the sums over the epoch so far, and the
    metrics of all epochs; and what the run is made of, by which it is known again. It is written whole or not at all.

    Attributes:
        folder: for checkpoints and `metrics.jsonl`; made if it does not exist.
        resume: go on from the newest checkpoint in the folder, with the same arguments: network, training and
            validation data, estimator, batch size and key are checked, `augment` by its name; of the optimizer only the
            kind of its state.
        keep: how many checkpoints are kept, beside that of the beginning of the epoch.
        seconds: at most so long between checkpoints; there is one at the start and after each epoch too.
        rollback: after a divergence go back to the last checkpoint and go on with updates multiplied by this, below 1;
            at most ten times. None raises.

    Raises:
        ValueError: counts or seconds that are not positive, a rollback that is not between 0 and 1.

    Example:
        >>> twin = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0))
        >>> def learned(epochs, checkpoints):
        ...     kept = {"key": jax.random.key(0), "batch_size": 3, "checkpoints": checkpoints}
        ...     return osc.train(twin, (x, y), osc.Backpropagation(), optax.sgd(0.1), epochs=epochs, **kept)
        >>> first = learned(1, osc.Checkpoints("runs/first"))
        >>> longer = learned(2, osc.Checkpoints("runs/first", resume=True))  # goes on after the first epoch
        >>> [row["epoch"] for row in longer.history]
        [1, 2]
    """

    folder: str | Path
    resume: bool = False
    keep: int = 3
    seconds: float = 60.0
    rollback: float | None = None

    def __post_init__(self):
        as_path("folder", self.folder)
        as_flag("resume", self.resume)
        as_count("keep", self.keep)
        as_positive("seconds", self.seconds)
        if self.rollback is not None:
            as_share("rollback", self.rollback)


CHECKPOINTS = instance(Checkpoints, "use Checkpoints(folder)")
"""The kind of arguments that say how a run is kept."""


class RunCheckpoints:
    """The checkpoints of one run; without settings none are written.

    `fresh` is the learner of a run that begins; what is loaded has to be of the same kind.
    """

    def __init__(self, settings: Checkpoints | None, fresh: Learner, steps_per_epoch: int, mesh: Mesh | None):
        self.settings, self.fresh, self.steps_per_epoch, self.mesh = settings, fresh, steps_per_epoch, mesh
        self.folder, self.rollbacks, self.saved = None, 0, time.perf_counter()
        if settings is not None:  # the first process makes and writes the folder, the others read it
            checkpoint.require_savable(fresh.network)
            made = checkpoint.Folder(settings.folder, settings.keep) if is_first() else None
            wait_for_all("the folder is made")
            self.folder = made or checkpoint.Folder(settings.folder, settings.keep, write=False)

    def start(self) -> Learner:
        """The learner to begin with: the fresh one, already saved, or the one in the newest checkpoint.

        Raises:
            ValueError: the folder holds a run that is not to be resumed, or another one.
        """
        learner, folder = self.fresh, self.folder
        if folder is not None and self.settings is not None and self.settings.resume:
            learner = self._newest(folder)
        elif folder is not None and folder.paths():
            raise BadValue(
                f"folder={folder.path} holds a run already: pass resume=True to go on with it, or choose another folder"
            )
        else:
            if folder is not None and (folder.path / METRICS).exists():
                raise BadValue(f"folder={folder.path} holds a {METRICS} of something else: choose another folder")
            wait_for_all("the folder is seen to be empty")
            if folder is not None:
                folder.save(0, learner)
        self.write_metrics(learner)
        return replicate(self.mesh, learner)

    def save(self, learner: Learner) -> None:
        """Write a checkpoint; where that fails a warning says so, and training goes on."""
        try:
            if self.folder is not None:
                self.folder.save(learner.step, learner, spare=self._epoch_start(learner.step))
        except OSError as error:
            warn(
                f"no checkpoint at step {learner.step}: {error}; training goes on, the checkpoints before it are intact"
            )
        self.saved = time.perf_counter()

    def due(self) -> bool:
        """Whether the last checkpoint is too long ago."""
        return self.settings is not None and time.perf_counter() - self.saved > self.settings.seconds

    def back(self, learner: Learner, error: DivergenceError, ended: bool) -> Learner:
        """The learner of the last good checkpoint, with smaller updates.

        `ended` says whether the divergence was seen at the end of an epoch.

        Raises:
            DivergenceError: there is none to go back to, or it was gone back to too often.
        """
        folder, rollback = self.folder, None if self.settings is None else self.settings.rollback
        if ended and folder is not None:  # it came about within the epoch: what was saved since is lost
            folder.rewind(self._epoch_start(learner.step))
        if rollback is None or folder is None or self.rollbacks == MOST_ROLLBACKS:
            where = "" if folder is None else f"; the last good checkpoint is {folder.newest_path()}"
            raise DivergenceError(f"{error}{where}") from error
        self.rollbacks += 1
        scale = learner.rate_scale * rollback
        warn(f"{error}; going back to {folder.newest_path()} with updates times {scale:g}")
        learner = replicate(self.mesh, replace(self._newest(folder), rate_scale=scale))
        self.save(learner)  # whoever goes on from here does so with this scale
        self.write_metrics(learner)
        return learner

    def write_metrics(self, learner: Learner) -> None:
        """Rewrite `metrics.jsonl` from the history, in whole. After a rollback, later rows than the checkpoint's go."""
        if self.folder is None or not self.folder.write:
            return
        rows = ({k: v if math.isfinite(v) else None for k, v in row.items()} for row in learner.history)
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        try:
            write(self.folder.path / METRICS, content)
        except OSError as error:
            warn(f"the metrics of step {learner.step} are not in {METRICS}: {error}")

    def _epoch_start(self, step: int) -> int:
        """The step at which the epoch began; a step between two epochs begins one."""
        return step // self.steps_per_epoch * self.steps_per_epoch

    def _newest(self, folder: checkpoint.Folder) -> Learner:
        """What the newest checkpoint holds, if it is of the same run."""
        wait_for_all("what is to be read is written")
        learner = folder.newest(Learner)
        wait_for_all("it is read")

        def refuse_others(say: Callable[[object], str], theirs: Mapping[str, object], ours: Mapping[str, object]):
            for name, mine in ours.items():
                if not eqx.tree_equal(theirs.get(name), mine):
                    raise BadValue(
                        f"{folder.path} holds a run with another {name}: {say(theirs.get(name))}, not {say(mine)}; "
                        "resume with the same, or choose another folder"
                    )

        refuse_others(str, learner.identity, self.fresh.identity)
        # numpy's arrays come back from the first update as jax's, which are 32 bits wide where those were 64
        fixed = (split_parameters(of.network)[1] for of in (learner, self.fresh))
        refuse_others(
            describe, *(vars(jax.tree.map(lambda a: jnp.asarray(a) if eqx.is_array(a) else a, f)) for f in fixed)
        )
        states = learner.optimizer_state, self.fresh.optimizer_state
        shapes = [[(np.shape(a), jnp.result_type(a)) for a in state] for state in states]
        if shapes[0] != shapes[1]:
            raise BadValue(f"{folder.path} holds a run with another optimizer: resume with the same")
        return learner
