"""Updates: from the gradients of an estimator to new parameters, many steps in one compiled call."""

import re
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from oscsim.core.arrays import Count, all_finite
from oscsim.core.errors import BadType
from oscsim.estimators import AbstractEstimator, Backpropagation, Estimate, Exact
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import split_parameters
from oscsim.training.devices import REPLICATED, largest_over, mean_over, own_key, sharded
from oscsim.training.evaluation import gives_numbers, labels_of
from oscsim.training.learner import Trainable


class Tally(eqx.Module):
    """What some steps measured, in buffers of fixed length; the first `count` entries are filled.

    `error` is in percent for classes, and the mean squared distance of outputs and targets where these are real.
    """

    loss: Array
    error: Array
    residual: Array
    bar: Array
    count: Array
    failed: Array


AUGMENTED = np.uint32(2**32 - 2)
"""Folded into the key of a step for its augmentation; no cycle, device or point has this number."""


class Rule(NamedTuple):
    """How parameters are updated: the same in every step.

    Attributes:
        estimator: where gradients come from.
        optimizer: from optax.
        augment: of a batch of inputs and a key, or None.
        mesh: the devices that share a batch, or None.
        classes: whether targets stand for classes; else outputs are compared with real ones.
    """

    estimator: AbstractEstimator
    optimizer: optax.GradientTransformation
    augment: Callable | None
    mesh: Mesh | None
    classes: bool = True


class TrainingState(NamedTuple):
    """What updates move.

    Attributes:
        network: with the parameters as they are.
        optimizer_state: the arrays of the optimizer's state.
        stream: what the estimator carries from batch to batch.
    """

    network: PyTree
    optimizer_state: PyTree
    stream: PyTree


@eqx.filter_jit
def updates(
    rule: Rule,
    moving: TrainingState,
    x: Array | np.ndarray,
    y: Array | np.ndarray,
    first: Count,
    count: Count,
    rate_scale: Float[Array, ""] | np.float32,
    *,
    key: Key[Array, ""],
) -> tuple[TrainingState, Tally]:
    """Up to `count` updates; fewer if one fails, and then the state before it.

    The devices of a mesh share each batch: each has its own neurons, and all make the same update.
    """
    estimator, optimizer, augment, mesh, classes = rule
    network, optimizer_state, stream = moving
    learned, fixed = split_parameters(network)
    optimizer = optax.with_extra_args_support(optimizer)
    structure = jax.tree.structure(jax.eval_shape(optimizer.init, learned))
    zeros = jnp.zeros(len(x), network.dtype)
    tally = Tally(zeros, zeros, zeros, zeros, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

    def reading(net, key, stream, x, y):
        inputs = Inputs.of(net, x, y)
        stream, estimate = estimator.estimate(stream, net, inputs, own_key(mesh, key))
        bar = jnp.asarray(jnp.nan, net.dtype) if estimate.error is None else estimate.error.total
        measured = estimate.gradient, estimate.loss, _error(net, inputs, estimate, classes), bar
        gradient, loss, error, bar = mean_over(mesh, measured)
        if mesh is not None:  # what is carried on is the same on all devices
            stream = jax.tree.map(lambda a: mean_over(mesh, a) if jnp.issubdtype(a.dtype, jnp.inexact) else a, stream)
        return gradient, loss, error, bar, largest_over(mesh, estimate.residual), stream

    def one(carry):
        learned, optimizer_state, stream, tally = carry
        net = eqx.combine(learned, fixed)
        i = tally.count
        step_key = jax.random.fold_in(key, first + i)
        x_i = x[i] if augment is None else augment(x[i], jax.random.fold_in(step_key, AUGMENTED))
        gradient, loss, error, bar, residual, new_stream = sharded(reading, mesh, (REPLICATED,) * 6, 3)(
            net, step_key, stream, x_i, y[i]
        )
        state = jax.tree.unflatten(structure, optimizer_state)
        seen = {"value": loss, "grad": gradient}
        if mesh is None:
            seen["value_fn"] = loss_of(fixed, x_i, y[i])
        updates, state = optimizer.update(gradient, state, learned, **seen)
        new = eqx.apply_updates(learned, jax.tree.map(lambda u: rate_scale.astype(u.dtype) * u, updates))
        good = all_finite((loss, new))  # one that has not quite settled is still a gradient: see `residual`

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(good, a, b).astype(b.dtype), new, old)

        buffers = zip((tally.loss, tally.error, tally.residual, tally.bar), (loss, error, residual, bar), strict=True)
        loss, error, residual, bar = (buffer.at[i].set(value.astype(buffer.dtype)) for buffer, value in buffers)
        told = Tally(loss, error, residual, bar, jnp.where(good, i + 1, i), ~good)
        return keep(new, learned), keep(jax.tree.leaves(state), optimizer_state), keep(new_stream, stream), told

    def running(carry):
        return (carry[-1].count < count) & ~carry[-1].failed

    learned, optimizer_state, stream, tally = lax.while_loop(running, one, (learned, optimizer_state, stream, tally))
    return TrainingState(eqx.combine(learned, fixed), optimizer_state, stream), tally


def loss_of(fixed: PyTree, x: Array | np.ndarray, y: Array | np.ndarray) -> Callable[[PyTree], Array]:
    """The mean loss of a batch as a function of the parameters, at the free equilibrium; its gradient is the exact one.

    What line searches try their steps on.
    """

    def estimate(learned):
        net = eqx.combine(learned, fixed)
        inputs = Inputs.of(net, x, y)
        if isinstance(net, AbstractFeedForwardNetwork):
            return Backpropagation().estimate(None, net, inputs)[1]
        return Exact().estimate(None, net, inputs)[1]

    @jax.custom_vjp
    def loss(learned):
        return estimate(learned).loss

    def forward(learned):
        found = estimate(learned)
        return found.loss, found.gradient

    loss.defvjp(forward, lambda gradient, change: (jax.tree.map(lambda g: change * g, gradient),))
    return loss


def check_optimizer(optimizer: optax.GradientTransformation, net: Trainable, inputs: Inputs, alone: bool) -> None:
    """Refuse an optimizer that asks for more than its update can be given.

    Raises:
        TypeError: it wants to try the loss (`value_fn`) where several devices share a batch, or something unknown.
    """
    learned, fixed = split_parameters(net)
    seen = {"value": jnp.zeros((), net.dtype), "grad": learned}
    if alone:
        seen["value_fn"] = loss_of(fixed, inputs.x, inputs.y)
    update = optax.with_extra_args_support(optimizer).update
    try:
        jax.eval_shape(lambda learned: update(learned, optimizer.init(learned), learned, **seen), learned)
    except TypeError as error:
        missing = re.search(r"missing .* required .*argument.*: (.*)", str(error))
        if missing is None:
            raise
        given = "the gradient, the parameters, value (the loss of the batch), grad" + ", value_fn" * alone
        where = "" if alone else "; value_fn is given on one device only: devices=jax.devices()[:1]"
        raise BadType(f"optimizer needs {missing[1]}; an update is given {given}{where}") from error


def _error(net: Trainable, inputs: Inputs, estimate: Estimate, classes: bool) -> Array:
    """The `error` of a tally for a batch, at the estimator's own free equilibrium."""
    if not classes and gives_numbers(net):
        output = net.read_output(inputs.clamped, estimate.activities)
        return jnp.mean(jnp.sum((output - inputs.y) ** 2, axis=1)).astype(net.dtype)
    if net.outputs is None or not classes:
        return jnp.zeros((), net.dtype)
    scores = net.readout(inputs.clamped, estimate.activities)
    return 100 * jnp.mean(jnp.argmax(scores, axis=1) != labels_of(inputs.y)).astype(net.dtype)
