"""Monitoring of training: what is measured, what is shown, and when the run ends early."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from oscsim.core.checks import as_count, as_flag, as_function, as_sequence, instance
from oscsim.core.progress import interactive
from oscsim.networks.inputs import Data
from oscsim.training.devices import agreed, is_first
from oscsim.training.evaluation import checked_data
from oscsim.training.learner import Learner, Metrics, Trainable, score_name


class Validation(NamedTuple):
    """Held-out data, on which a network is evaluated after each epoch, at its free equilibrium.

    Attributes:
        x: inputs, (n, ...).
        y: targets, (n,) labels or (n, outputs).
        patience: end the run after so many epochs without a better validation error (loss, with real targets); None
            never does.

    Example:
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> held_out = osc.Validation(x, y, patience=5)
        >>> trained = osc.train(
        ...     twin, (x, y), osc.Backpropagation(), optax.sgd(0.1),
        ...     epochs=2, batch_size=3, key=key, validation=held_out,
        ... )
        >>> "validation_error" in trained.history[0]
        True
    """

    x: Data
    y: Data
    patience: int | None = None

    @staticmethod
    def of(net: Trainable, given: "tuple[Data, ...] | list[Data] | None") -> "Validation | None":
        """Checked; None where there is none.

        Raises:
            ValueError: bad data, a patience that is not positive.
        """
        match given:
            case None:
                return None
            case Validation(x, y, patience):
                data = x, y
            case _:
                data, patience = given, None
        x, y = checked_data(net, "validation", data)
        return Validation(x, y, None if patience is None else as_count("patience", patience))


@dataclass(frozen=True)
class Monitor:
    """What is measured and shown while a network learns.

    Attributes:
        probe: samples of the data on which the estimate is compared with the exact gradient after each epoch (with
            `AlwaysOn`, one batch of them, following the last input); 0 for none.
        callbacks: each is called after an epoch with its metrics and the network; one that returns True ends the run.
        progress: show a progress bar; by default at a terminal and in notebooks.

    Raises:
        ValueError: a negative probe.

    Example:
        >>> def stop(metrics, network):
        ...     return metrics["epoch"] == 2  # True ends the run
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> monitor = osc.Monitor(callbacks=[stop])
        >>> trained = osc.train(
        ...     twin, (x, y), osc.Backpropagation(), optax.sgd(0.1), epochs=9, batch_size=3, key=key, monitor=monitor
        ... )
        >>> len(trained.history)
        2
    """

    probe: int = 100
    callbacks: Sequence[Callable[[Metrics, Trainable], object]] = ()
    progress: bool | None = None

    def __post_init__(self):
        as_count("probe", self.probe, 0)
        for i, callback in enumerate(as_sequence("callbacks", self.callbacks)):
            as_function(f"callbacks[{i}]", callback)
        if self.progress is not None:
            as_flag("progress", self.progress)

    @property
    def shown(self) -> bool:
        """Whether this process shows a progress bar."""
        return is_first() and (interactive() if self.progress is None else self.progress)

    def told_to_stop(self, learner: Learner) -> str:
        """Call what is to be called after an epoch; why the run is to end, or nothing."""
        called = [callback(learner.history[-1], learner.network) for callback in self.callbacks]
        return "a callback asked for it" if agreed(any(called)) else ""


MONITOR = instance(Monitor, "use Monitor(...)")
"""The kind of arguments that say what is measured and shown."""


def reason_to_stop(learner: Learner, patience: int | None) -> str:
    """Why the run is to end after what it measured so far, or nothing."""
    if patience is None or not learner.history:
        return ""
    scores = [row[score_name(row)] for row in learner.history]
    since = len(scores) - 1 - best_of(scores)
    return f"no better epoch in the last {since}" if since >= patience else ""


def best_of(scores: Sequence[float]) -> int:
    """Where the lowest is; one that is not a number is none."""
    return int(np.argmin(np.where(np.isnan(scores), np.inf, scores)))


def shown_of(row: Metrics) -> dict[str, str]:
    """What is worth showing of an epoch."""
    names = ("loss", "error", "r2", "validation_loss", "validation_error", "validation_r2")
    return {name: f"{row[name]:.3g}" for name in names if name in row}
