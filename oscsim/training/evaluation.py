"""Evaluation: loss, error and scores of a network at its free equilibrium."""

import math
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from oscsim.core.arrays import Count
from oscsim.core.checks import as_count
from oscsim.core.errors import BadValue, NotSettledError
from oscsim.equilibrium import PATIENCE, default_tolerance, settle_inputs
from oscsim.equilibrium.flow import GROUP
from oscsim.equilibrium.settling import Method
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Data, Inputs, as_inputs, as_targets
from oscsim.training.devices import SHARDED, gather, shard, sharded
from oscsim.training.learner import Trainable

Held: TypeAlias = Array | np.ndarray
"""On the device, or on the host."""

Judged: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Losses, scores and residuals of samples."""


def evaluate(net: Trainable, x: Data, y: Data, *, batch_size: int = 1000) -> dict[str, float]:
    """Loss and error on held-out data, at the free equilibrium.

    Args:
        net: a trained network.
        x: inputs, (n, ...).
        y: targets, (n,) labels or (n, classes).
        batch_size: samples per device call.

    Returns:
        `loss` (mean), `settle_residual` (largest), and, for networks with `outputs`: `error` in percent, and
        `top5_error` with more than five classes.

    Raises:
        ValueError: bad data (see `Inputs.of`).

    Example:
        >>> sorted(osc.evaluate(net, x, y))
        ['error', 'loss', 'settle_residual']
    """
    x, y = checked_data(net, "data", (x, y))
    return measured(net, x, y, as_count("batch_size", batch_size))


def predict(net: Trainable, x: Data, *, batch_size: int = 1000) -> Float[np.ndarray, "n classes"]:
    """The score of each class for each input: log-probabilities with `CrossEntropy`.

    Raises:
        ValueError: bad data (see `Inputs.of`), a network without `outputs`.
        NotSettledError: an input for which the network has no free equilibrium.

    Example:
        >>> scores = osc.predict(net, x)
        >>> scores.shape, np.allclose(np.exp(scores).sum(axis=1), 1)
        ((3, 4), True)
    """
    if net.outputs is None:
        raise BadValue("outputs is None: a network needs its number of classes to be read out")
    x = np.asarray(as_inputs(net, x))
    _, scores, residuals = _judged(net, x, np.zeros(len(x), np.int32), as_count("batch_size", batch_size))
    lost = np.flatnonzero(~(residuals <= 10 * judged_tolerance(net.dtype)))
    if lost.size:
        raise NotSettledError(
            f"input {lost[0]} does not settle ({lost.size} of {len(x)} do not): train with smaller rates, or lower the "
            "scale of the weights"
        )
    return scores


FIRST_SWEEPS, JUDGED_SWEEPS = 30, 2 * PATIENCE
"""Sweeps for all samples, and for those that have not settled by then, which would hold up their whole batch. Those
that these do not settle either are followed in time, and judged where they stand if they have no stable state."""

FOLLOWED = 0.1
"""Of the samples: where more are left, the network as a whole does not settle, and none is followed in time."""


def judged_tolerance(dtype: DTypeLike) -> float:
    """The residual at which a network is read out: far below what tells classes apart."""
    return 100 * default_tolerance(dtype)


@eqx.filter_jit
def _judge(
    net: Trainable, x: Held, y: Held, sweeps: Count | int, mesh: Mesh | None = None, method: Method = "sweeps"
) -> tuple[Array, Array, Array]:
    """Loss of each sample, score of each class, and residual of the free equilibrium, for one batch."""

    def judge(net, sweeps, x, y):
        inputs, activities, residual = Inputs.of(net, x, y), (), jnp.zeros(len(x))
        if not isinstance(net, AbstractFeedForwardNetwork):
            free = settle_inputs(net, inputs, jnp.zeros(()), judged_tolerance(net.dtype), sweeps, method=method)
            activities, residual = free.activities, free.residual
        scores = jnp.zeros((len(x), 0)) if net.outputs is None else net.readout(inputs.clamped, activities)
        return net.loss(inputs.clamped, activities, inputs.y), scores, residual

    return gather(mesh, sharded(judge, mesh, SHARDED, 2)(net, sweeps, x, y))


EVALUATED = 100
"""Samples that are settled at a time while a network is trained."""


def mean_loss_and_error(net: AbstractNetwork, x: Array, y: Array) -> tuple[Array, Array]:
    """Mean loss and error in percent at the free equilibrium, as `evaluate`, but traceable: nothing is copied to host.

    Samples are settled in batches; what fills the last one up is not counted.
    """
    size = min(EVALUATED, len(x))
    filled = np.resize(np.arange(len(x)), (math.ceil(len(x) / size), size))
    losses, scores, _ = lax.map(lambda rows: _judge(net, x[rows], y[rows], JUDGED_SWEEPS), jnp.asarray(filled))
    losses, scores = losses.reshape(-1)[: len(x)], scores.reshape(-1, scores.shape[-1])[: len(x)]
    wrong = jnp.argmax(scores, axis=1) != labels_of(y)
    return jnp.mean(losses), 100 * jnp.mean(wrong).astype(losses.dtype)


def _judged(net: Trainable, x: np.ndarray, y: np.ndarray, batch_size: int, mesh: Mesh | None = None) -> Judged:
    """Losses, scores and residuals of all samples, batch by batch; those that settle late are settled together."""
    whole = 1 if mesh is None else mesh.size

    def settled(rows: np.ndarray, size: int, sweeps: int, method: Method = "sweeps") -> Judged:
        found, size = [], whole * math.ceil(size / whole)
        for first in range(0, len(rows), size):
            chosen = np.resize(rows[first:][:size], size)  # filled up: one compilation serves the last batch too
            batch = shard(mesh, x[chosen], 0), shard(mesh, y[chosen], 0)
            judged = _judge(net, *batch, np.int32(sweeps), mesh, method)
            found.append([np.asarray(a)[: len(rows) - first] for a in judged])
        losses, scores, residuals = map(np.concatenate, zip(*found, strict=True))
        return losses, scores, residuals

    batch_size, tolerance = min(batch_size, len(x)), judged_tolerance(net.dtype)
    found = settled(np.arange(len(x)), batch_size, FIRST_SWEEPS)
    late = np.flatnonzero(~(found[2] <= tolerance))
    if late.size:
        for a, b in zip(found, settled(late, batch_size, JUDGED_SWEEPS), strict=True):
            a[late] = b
    lost = np.flatnonzero(~(found[2] <= tolerance))
    if 0 < lost.size <= max(GROUP, FOLLOWED * len(x)):
        followed = settled(lost, GROUP, 1, "flow")
        arrived = followed[2] <= tolerance  # the others are judged where the sweeps left them
        for a, b in zip(found, followed, strict=True):
            a[lost[arrived]] = b[arrived]
    return found


def measured(
    net: Trainable, x: np.ndarray, y: np.ndarray, batch_size: int, mesh: Mesh | None = None
) -> dict[str, float]:
    """`evaluate` on checked data, each batch shared by the devices of a mesh; `net` is on all of them."""
    losses, scores, residuals = _judged(net, x, y, batch_size, mesh)
    row = {"loss": float(np.mean(losses, dtype=float))}
    if net.outputs is not None:
        order = np.argsort(-scores, axis=1, kind="stable")
        right = (order == labels_of(y)[:, None]) & np.isfinite(scores).all(axis=1, keepdims=True)
        row["error"] = float(100 * np.mean(~right[:, 0]))
        if net.outputs > 5:
            row["top5_error"] = float(100 * np.mean(~right[:, :5].any(axis=1)))
    return row | {"settle_residual": float(np.max(residuals))}


def labels_of(y: Held) -> Held:
    """Labels, of labels or of one-hot targets."""
    return y if y.ndim == 1 else y.argmax(axis=1)


def checked_data(net: Trainable, name: str, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets as arrays of the network's precision on the host, or an error that says what is wrong."""
    match data:
        case (x, y):
            y = np.asarray(as_targets(net, y))
            x = np.asarray(as_inputs(net, x))
        case _:
            raise BadValue(f"{name} is a {type(data).__name__}: give a pair (x, y) of inputs and targets")
    if len(x) != len(y):
        raise BadValue(f"{name}: x holds {len(x)} samples and y holds {len(y)}: give one target per input")
    return x, y
