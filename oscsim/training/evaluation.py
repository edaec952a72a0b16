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

from oscsim.core.arrays import Count, is_traced
from oscsim.core.checks import as_count, as_flag, as_pair, both, checked, untraced
from oscsim.core.errors import BadType, BadValue, NotSettledError
from oscsim.equilibrium import PATIENCE, default_tolerance, settle_inputs
from oscsim.equilibrium.flow import GROUP
from oscsim.equilibrium.settling import Method
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.costs import AbstractCost
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Data, Inputs, are_classes, as_inputs, as_targets
from oscsim.networks.learned import as_trainable
from oscsim.training.devices import SHARDED, gather, shard, sharded
from oscsim.training.learner import Trainable

Held: TypeAlias = Array | np.ndarray
"""On the device, or on the host."""

Judged: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Losses, scores of classes or outputs, and residuals of samples."""


@checked(net=both(as_trainable, untraced), x=untraced, y=untraced)
def evaluate(net: Trainable, x: Data, y: Data, *, batch_size: int = 1000) -> dict[str, float]:
    r"""Loss, and error or $R^2$, on held-out data, at the free equilibrium.

    Targets stand for classes where they are integer labels, or rows of shares that are not negative and sum to one, as
    one-hot targets are. All others are real, and outputs are compared with them.

    Args:
        net: a trained network.
        x: inputs, (n, ...).
        y: targets, (n,) labels, or (n, outputs).
        batch_size: samples per device call.

    Returns:
        `loss` (mean) and `settle_residual` (largest). Of networks with `outputs` also, for classes, `error` in percent,
        and `top5_error` with more than five; for real targets, with `SquaredError`, `r2`: $R^2 = 1 - \sum |o - y|^2 /
        \sum |y - \bar y|^2$ over all outputs $o$.

    Raises:
        ValueError: bad data (see `Inputs.of`).

    Example:
        >>> sorted(osc.evaluate(net, x, y))
        ['error', 'loss', 'settle_residual']
    """
    x, y = checked_data(net, "data", (x, y))
    return measured(net, x, y, as_count("batch_size", batch_size))


@checked(net=both(as_trainable, untraced), x=untraced, labels=as_flag)
def predict(net: Trainable, x: Data, *, labels: bool | None = None, batch_size: int = 1000) -> np.ndarray:
    """What a network says of inputs, at its free equilibrium: a label for each, or real outputs.

    Args:
        net: a trained network.
        x: inputs, (n, ...).
        labels: True for the class with the largest score, (n,); False for the outputs, (n, outputs). By default the
            cost decides: outputs with `SquaredError`, which may stand for real numbers, labels with any other.
        batch_size: samples per device call.

    Raises:
        ValueError: bad data (see `Inputs.of`), a network without `outputs`.
        NotSettledError: an input for which the network has no free equilibrium.

    Example:
        >>> osc.predict(net, x).shape, osc.predict(net, x, labels=False).shape
        ((3,), (3, 4))
    """
    labels = not gives_numbers(net) if labels is None else labels
    found = _read_out(net, x, labels, as_count("batch_size", batch_size))
    return found.argmax(axis=1) if labels else found


@checked(net=both(as_trainable, untraced), x=untraced)
def scores(net: Trainable, x: Data, *, batch_size: int = 1000) -> Float[np.ndarray, "n classes"]:
    """The score of each class for each input: log-probabilities with `CrossEntropy`, minus the cost in general.

    Raises:
        ValueError: bad data (see `Inputs.of`), a network without `outputs`.
        NotSettledError: an input for which the network has no free equilibrium.

    Example:
        >>> scores = osc.scores(net, x)
        >>> scores.shape, np.allclose(np.exp(scores).sum(axis=1), 1)
        ((3, 4), True)
    """
    return _read_out(net, x, True, as_count("batch_size", batch_size))


def _read_out(net: Trainable, x: Data, classes: bool, batch_size: int) -> np.ndarray:
    """Scores of classes, or outputs."""
    if net.outputs is None:
        raise BadValue("outputs is None: a network needs its number of classes or outputs to be read out")
    x = np.asarray(as_inputs(net, x))
    y = np.zeros(len(x), np.int32) if classes else np.zeros((len(x), net.outputs), x.dtype)
    _, found, residuals = _judged(net, x, y, batch_size, classes=classes)
    lost = np.flatnonzero(~(residuals <= 10 * judged_tolerance(net.dtype)))
    if lost.size:
        raise NotSettledError(
            f"input {lost[0]} does not settle ({lost.size} of {len(x)} do not): train with smaller rates, or lower the "
            "scale of the weights"
        )
    return found


def gives_numbers(net: Trainable) -> bool:
    """Whether the outputs of a network can be compared with real targets, one by one."""
    match net:
        case object(outputs=int(), cost=AbstractCost(real=real)):
            return real
    return False


def variance_of(y: Held) -> float:
    """The mean squared distance of targets from their mean, over all outputs; nan where they are all the same."""
    y = np.asarray(y, float)
    variance = float(np.mean(np.sum(((y - y.mean(axis=0)) ** 2).reshape(len(y), -1), axis=1)))
    return variance if variance > 0 else math.nan


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
    net: Trainable,
    x: Held,
    y: Held,
    sweeps: Count | int,
    mesh: Mesh | None = None,
    method: Method = "sweeps",
    classes: bool = True,
) -> tuple[Array, Array, Array]:
    """Loss of each sample, its scores or outputs, and residual of the free equilibrium, for one batch."""

    def judge(net, sweeps, x, y):
        inputs, activities, residual = Inputs.of(net, x, y), (), jnp.zeros(len(x))
        if not isinstance(net, AbstractFeedForwardNetwork):
            free = settle_inputs(net, inputs, jnp.zeros(()), judged_tolerance(net.dtype), sweeps, method=method)
            activities, residual = free.activities, free.residual
        read = jnp.zeros((len(x), 0))
        if net.outputs is not None:
            read = (net.readout if classes else net.read_output)(inputs.clamped, activities)
        return net.loss(inputs.clamped, activities, inputs.y), read, residual

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


def _judged(
    net: Trainable, x: np.ndarray, y: np.ndarray, batch_size: int, mesh: Mesh | None = None, classes: bool = True
) -> Judged:
    """Losses, scores or outputs, and residuals, batch by batch; samples that settle late are settled together."""
    whole = 1 if mesh is None else mesh.size

    def settled(rows: np.ndarray, size: int, sweeps: int, method: Method = "sweeps") -> Judged:
        found, size = [], whole * math.ceil(size / whole)
        for first in range(0, len(rows), size):
            chosen = np.resize(rows[first:][:size], size)  # filled up: one compilation serves the last batch too
            batch = shard(mesh, x[chosen], 0), shard(mesh, y[chosen], 0)
            judged = _judge(net, *batch, np.int32(sweeps), mesh, method, classes)
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
    classes = are_classes(y)
    losses, found, residuals = _judged(net, x, y, batch_size, mesh, classes)
    row = {"loss": float(np.mean(losses, dtype=float))}
    if net.outputs is not None and classes:
        order = np.argsort(-found, axis=1, kind="stable")
        right = (order == labels_of(y)[:, None]) & np.isfinite(found).all(axis=1, keepdims=True)
        row["error"] = float(100 * np.mean(~right[:, 0]))
        if net.outputs > 5:
            row["top5_error"] = float(100 * np.mean(~right[:, :5].any(axis=1)))
    elif gives_numbers(net):
        row["r2"] = 1 - float(np.mean(np.sum((found - y) ** 2, axis=1, dtype=float))) / variance_of(y)
    return row | {"settle_residual": float(np.max(residuals))}


def labels_of(y: Held) -> Held:
    """Labels, of labels or of one-hot targets."""
    return y if y.ndim == 1 else y.argmax(axis=1)


def checked_data(net: Trainable, name: str, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets as arrays of the network's precision on the host, or an error that says what is wrong."""
    x, y = as_pair(name, data)
    y, x = as_targets(net, y), as_inputs(net, x)
    if is_traced(x, y):
        raise BadType(f"{name} is traced by jax: train and evaluate outside of the compiled function")
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y):
        raise BadValue(f"{name}: x holds {len(x)} samples and y holds {len(y)}: give one target per input")
    return x, y
