"""The state of a training run: what a checkpoint holds."""

from typing import TypeAlias

import equinox as eqx
from jaxtyping import PyTree

from oscsim.networks.base import AbstractNetwork
from oscsim.networks.feedforward import AbstractFeedForwardNetwork

Trainable: TypeAlias = AbstractNetwork | AbstractFeedForwardNetwork
"""What can be trained: neurons with dynamics, or a feed-forward network."""

Metrics: TypeAlias = dict[str, float | int]
"""What was measured after an epoch, by name."""


class Learner(eqx.Module):
    """Where a training run stands between two steps; what a checkpoint holds, which `training.resuming` writes.

    Attributes:
        network: with the parameters as they are now.
        optimizer_state: the arrays of the optimizer's state.
        stream: what the estimator carries from batch to batch: the neurons' state of `AlwaysOn`, the starting amplitude
            of an `Adaptive` signal; None for others.
        step: how many updates were made.
        rate_scale: what updates are multiplied by; below 1 after a rollback.
        best: the network after its best epoch so far, as `score_name` judges it.
        best_score: its score.
        totals: over the steps of the epoch so far: sums of loss and error (see `Tally`), the largest residual, and
            the sum of the squared error bars.
        history: what was measured after each epoch.
        seconds: wall time spent so far.
        identity: what the run is made of; a run is only resumed with the same.
    """

    network: PyTree
    optimizer_state: PyTree
    stream: PyTree
    step: int
    rate_scale: float
    best: PyTree
    best_score: float
    totals: tuple[float, float, float, float]
    history: list[Metrics]
    seconds: float
    identity: dict[str, str]


def score_name(row: Metrics) -> str:
    """What epochs are judged by: the first of these that was measured."""
    return next(name for name in ("validation_error", "validation_loss", "loss") if name in row)
