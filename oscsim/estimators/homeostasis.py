"""`Homeostatic`: another estimator's gradient, and the pull of the two ways of a network towards each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Key, PyTree

from oscsim.core.checks import Given, as_count, instance, not_negative
from oscsim.core.errors import BadValue
from oscsim.equilibrium.asymmetry import random_products
from oscsim.equilibrium.corrected import uncorrected
from oscsim.estimators.base import AbstractEstimator, Estimate
from oscsim.networks.base import AbstractNetwork, Layers, gradient_of
from oscsim.networks.feedback import AbstractFeedback
from oscsim.networks.inputs import Inputs
from oscsim.networks.layered import LayeredNetwork
from oscsim.networks.learned import Gradient

ESTIMATOR = instance(AbstractEstimator, "use an estimator, such as LockIn(...) or Phases(...)")


class Homeostatic(AbstractEstimator):
    r"""An estimate with Jacobian homeostasis: $g + \lambda\, \nabla_\theta L_{homeo}$, which makes couplings symmetric.

    $$L_{homeo} = \frac1n E\left[|K e|^2 - e^\top K^2 e\right] = \frac{|K - K^\top|_F^2}{2n}, \quad e \sim N(0, 1)$$

    with $K = \partial F/\partial s$ at the free activities, which stay fixed, over $n$ neurons; the mean over the
    batch. For dense layers with two ways it is $\sum_l |W_l - B_l|_F^2 / n$, in closed form. In other networks it is
    drawn, at one product with $K$ and one with $K^\top$ for each vector $e$, and their derivatives. Of a corrected
    network $K$ is that of the network within. The estimate's error is that of $g$ alone.

    Attributes:
        estimator: of the gradient of the loss.
        strength: $\lambda$. Under plain gradient descent at a rate $\eta$ the ways come together at the rate $\lambda
            \eta$.
        samples: how many vectors are drawn for each sample; 0 for the closed form.

    Args:
        samples: by default 0 where there is a closed form, else 1.

    Raises:
        TypeError: not an estimator.
        ValueError: a negative strength; no vectors, and no closed form.

    Source: Laborieux & Zenke (2024).

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> own = osc.OwnFeedback(deep, angle=60.0, key=jax.random.key(1))
        >>> estimator = osc.Homeostatic(osc.Phases(0.1, points=4), strength=10.0)
        >>> pull = jax.tree.map(jnp.subtract, estimator(own, x, y).gradient, estimator.estimator(own, x, y).gradient)
        >>> gap = own.network.weights[1] - own.feedback[1]  # the two ways, over 9 neurons
        >>> np.allclose(pull.network.weights[1], 10 * 2 * gap / 9, atol=1e-5)
        True
    """

    estimator: AbstractEstimator
    strength: Float[Array, ""]
    samples: int | None = eqx.field(static=True)

    def __init__(self, estimator: AbstractEstimator, strength: ArrayLike = 1.0, *, samples: Given = None):
        self.estimator = ESTIMATOR("estimator", estimator)
        self.strength = not_negative("strength")(strength)
        self.samples = None if samples is None else as_count("samples", samples, 0)

    @property
    def streams(self) -> bool:
        """As the estimator of the loss does."""
        return self.estimator.streams

    @property
    def of_loss(self) -> AbstractEstimator:
        """The estimator of the loss alone."""
        return self.estimator

    @property
    def remedies(self) -> str:
        """Those of the estimator of the loss, and more of the pull."""
        return f"a larger strength of the homeostasis; {self.estimator.remedies}"

    def planned(self, net: PyTree) -> "Homeostatic":
        self._drawn(uncorrected(net))
        return Homeostatic(self.estimator.planned(net), self.strength, samples=self.samples)

    def warn(self, net: PyTree, inputs: Inputs) -> None:
        self.estimator.warn(net, inputs)

    def init(self, net: PyTree, inputs: Inputs, key: Key[Array, ""] | None = None) -> PyTree:
        return self.estimator.init(net, inputs, key)

    def estimate(
        self, state: PyTree, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[PyTree, Estimate]:
        state, found = self.estimator.estimate(state, net, inputs, key)
        within = uncorrected(net)
        dense, samples = dense_ways(within), self._drawn(within)
        if samples == 0 and dense is not None:
            pull = closed_form_pull(dense, inputs)
        else:
            key = jax.random.key(0) if key is None else jax.random.fold_in(key, PULLED)
            shown = Inputs(inputs.x, inputs.y, within.clamped(inputs.x))
            pull = drawn_pull(within, shown, found.activities[: len(within.shapes)], key, samples)
        pull = jax.tree.unflatten(jax.tree.structure(found.gradient), jax.tree.leaves(pull))
        gradient = jax.tree.map(lambda g, p: g + self.strength.astype(p.dtype) * p, found.gradient, pull)
        return state, eqx.tree_at(lambda e: e.gradient, found, gradient)

    def _drawn(self, net: AbstractNetwork) -> int:
        """How many vectors are drawn for each sample."""
        closed = dense_ways(net) is not None
        if self.samples == 0 and not closed:
            raise BadValue(
                f"samples=0 for {type(net).__name__}: only dense layers with two ways have a closed form; use 1 or more"
            )
        return self.samples if self.samples is not None else 0 if closed else 1


PULLED = 2**31 - 3
"""Of the key of a batch, what the vectors are drawn with."""


def dense_ways(net: AbstractNetwork) -> AbstractFeedback | None:
    """The network if its antisymmetric part is that of two weight matrices for each pair of layers; else None."""
    match net:
        case AbstractFeedback(network=LayeredNetwork()):
            return net
    return None


@eqx.filter_jit
def closed_form_pull(net: AbstractFeedback, inputs: Inputs) -> Gradient:
    r"""$\nabla_\theta \sum_l |W_l - B_l|_F^2 / n$, over the layers of neurons."""
    neurons = sum(shape[0] for shape in net.shapes)

    def gap(net: AbstractFeedback, _: PyTree) -> Array:
        ways = zip(net.network.weights[1 : len(net.shapes)], net.returning[1:], strict=False)
        gaps = [jnp.sum((w - b) ** 2) for w, b in ways if b is not None]
        return sum(gaps, jnp.zeros((), net.dtype)) / neurons

    return gradient_of(gap, net, inputs.x)


@eqx.filter_jit
def drawn_pull(net: AbstractNetwork, inputs: Inputs, s: Layers, key: Key[Array, ""], samples: int) -> Gradient:
    r"""$\nabla_\theta$ of the mean of $(|K e|^2 - e^\top K^2 e) / n$ over batch and draws, at fixed activities."""
    neurons, batch = sum(a[0].size for a in s), s[0].shape[0]

    def drawn(net: AbstractNetwork, clamped: PyTree) -> Array:
        pushed, pulled = random_products(net, clamped, inputs.y, s, key, samples)
        total = sum((jnp.sum(p * (p - q)) for p, q in zip(pushed, pulled, strict=True)), jnp.zeros((), net.dtype))
        return total / (samples * neurons * batch)

    return gradient_of(drawn, net, inputs.x)
