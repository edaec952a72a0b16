"""What every estimator is: from a network, inputs and targets to the gradient of the mean loss."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs


class Estimate(eqx.Module):
    """What an estimator returns.

    Attributes:
        gradient: of the mean loss, a pytree like `parameters(net)`.
        loss: the mean loss at the activities that the estimator takes for the free equilibrium.
        activities: those activities, one (batch, neurons) array per layer.
        residual: how far from settled: the largest residual of its states, or the lock residual of the last cycle.
        valid: whether the neurons settled, or did not diverge. Under jit nothing can be raised: look here.
    """

    gradient: Any
    loss: Float[Array, ""]
    activities: Layers
    residual: Float[Array, ""]
    valid: Bool[Array, ""]


class AbstractEstimator(eqx.Module):
    """A way to obtain the gradient of the mean loss of a batch."""

    @abc.abstractmethod
    def __call__(self, net: AbstractNetwork, x: Any, y: Any, key: Key[Array, ""] | None = None) -> Estimate:
        """The estimate for one batch; works under jit, where nothing is raised."""


@eqx.filter_jit
def estimate_at(
    net: AbstractNetwork, inputs: Inputs, gradient: Any, activities: Layers, residual: Array, valid: Array
) -> Estimate:
    """The estimate with the loss at the activities taken for the free equilibrium (their real parts)."""
    real = tuple(layer.real for layer in activities)
    return Estimate(gradient, jnp.mean(net.loss(inputs.clamped, real, inputs.y)), real, residual, valid)
