"""`Exact` and `Backpropagation`: the exact gradients that estimates are compared with."""

import functools
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from oscsim.core.arrays import all_finite
from oscsim.core.errors import RESULTS, BadType
from oscsim.equilibrium import exact_solution
from oscsim.equilibrium.exact_gradients import as_method
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.networks.base import AbstractNetwork
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Inputs
from oscsim.networks.learned import split_parameters


class Exact(AbstractEstimator):
    """The exact gradient at the free equilibrium, as `exact_gradient` computes it.

    Attributes:
        method: `"implicit"` or `"bptt"`.

    Raises:
        ValueError: an unknown method.
        NotSettledError: the free network does not settle.

    Example:
        >>> estimate = osc.Exact()(net, x, y)
        >>> print(osc.relative_error(estimate.gradient, osc.exact_gradient(net, x, y)) < 1e-6)
        True
    """

    method: Literal["implicit", "bptt"] = eqx.field(
        static=True, default="implicit", converter=functools.partial(as_method, "method")
    )

    def estimate(
        self, state: None, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[None, Estimate]:
        gradient, free, settled = exact_solution(net, inputs, self.method)
        result = RESULTS.where(settled, RESULTS.successful, RESULTS.not_settled)
        return state, estimate_at(net, inputs, gradient, free.activities, jnp.max(free.residual), result)


class Backpropagation(AbstractEstimator):
    """The gradient of a feed-forward network by ordinary backpropagation: the baseline that learns without dynamics.

    Example:
        >>> twin = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0))
        >>> [w.shape for w in osc.Backpropagation()(twin, x, y).gradient.weights]
        [(5, 6), (4, 5)]
    """

    feedforward = True

    def estimate(
        self, state: None, net: PyTree, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[None, Estimate]:
        """The gradient for one batch.

        Raises:
            TypeError: a network with dynamics, which has other estimators.
        """
        if not isinstance(net, AbstractFeedForwardNetwork):
            raise BadType(
                f"net is a {type(net).__name__}: use a feed-forward network, or Exact('bptt') for a "
                "network with dynamics"
            )
        return state, _backpropagated(net, inputs)


@eqx.filter_jit
def _backpropagated(net: AbstractFeedForwardNetwork, inputs: Inputs) -> Estimate:
    learned, fixed = split_parameters(net)

    def loss(learned):
        net = eqx.combine(learned, fixed)
        return jnp.mean(jax.vmap(lambda x, y: net.cost(net(x), y))(inputs.x, inputs.y))

    value, gradient = jax.value_and_grad(loss)(learned)
    result = RESULTS.where(all_finite((value, gradient)), RESULTS.successful, RESULTS.diverged)
    return Estimate(gradient, value, (), jnp.zeros_like(value), result)
