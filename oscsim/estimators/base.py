"""The interface of estimators: from a network, inputs and targets to the gradient of the mean loss."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from oscsim.core.arrays import is_traced, norm, promoting, ratio
from oscsim.core.checks import as_flag, as_key, checked
from oscsim.core.errors import RESULTS
from oscsim.core.printing import AbstractPrinted, AbstractSettings, as_text
from oscsim.dynamics.gradient_error import TOLERANCE, GradientError, as_tolerance, report
from oscsim.networks.base import AbstractNetwork, Layers, check_parameters
from oscsim.networks.feedforward import AbstractFeedForwardNetwork
from oscsim.networks.inputs import Data, Inputs
from oscsim.networks.learned import Gradient, as_trainable, gradient_summary


class Estimate(AbstractPrinted):
    """What an estimator returns.

    Attributes:
        gradient: of the mean loss, a pytree like `parameters(net)`.
        loss: the mean loss at the activities that the estimator takes for the free equilibrium.
        activities: those activities, one (batch, neurons) array per layer.
        residual: how far from settled: the largest residual of its states, or the lock residual of the last cycle.
        result: `RESULTS.successful` where the neurons settled, or did not diverge, and the known error is within 10 %;
            else what went wrong. Under jit nothing can be raised: look here.
        error: how right the gradient is, by its own measure; None where the estimator has none.

    Example:
        >>> estimate = osc.Phases(0.2, points=6)(net, x, y)
        >>> print(f"{estimate.loss:.2f}", estimate.valid, estimate.gradient.weights[0].shape)
        1.29 True (5, 6)
    """

    gradient: Gradient
    loss: Float[Array, ""]
    activities: Layers
    residual: Float[Array, ""]
    result: RESULTS
    error: GradientError | None = None

    def __str__(self) -> str:
        if is_traced(self):
            return eqx.tree_pformat(self)
        told = "" if bool(self.valid) else f", {RESULTS[self.result]}"
        own = "" if self.error is None else f", off by {100 * float(self.error.total):.2g} % by its own measure"
        title = f"Estimate at loss {float(self.loss):.4g}, residual {float(self.residual):.2g}{own}{told}"
        return f"{title}\n{as_text(gradient_summary(self.gradient))}"

    @property
    def valid(self) -> Bool[Array, ""]:
        """Whether the result is `RESULTS.successful`."""
        return self.result == RESULTS.successful


class AbstractEstimator(AbstractSettings):
    """A method that estimates the gradient of the mean loss of a batch.

    A subclass gives `estimate`, and `init` where it carries a state from batch to batch.

    Attributes:
        feedforward: whether it is for feed-forward networks, which have no dynamics.
        streams: whether the neurons of a batch go on from those of the batch before: one device, batches of one size.
        remedies: what makes its gradients better, said by `train` where they are far off.

    Example:
        >>> class Symmetric(osc.AbstractEstimator):  # the mean of a nudge up and a nudge down
        ...     amplitude: float
        ...     def estimate(self, state, net, inputs, key=None):
        ...         nudges = self.amplitude, -self.amplitude
        ...         up, down = (osc.Classic(a).estimate(None, net, inputs)[1] for a in nudges)
        ...         mean = jax.tree.map(lambda a, b: (a + b) / 2, up.gradient, down.gradient)
        ...         result = osc.RESULTS.where(up.valid, down.result, up.result)
        ...         return state, osc.Estimate(mean, up.loss, up.activities, up.residual, result)
        >>> estimate = Symmetric(0.1)(net, x, y)
        >>> print(osc.relative_error(estimate.gradient, osc.exact_gradient(net, x, y)) < 0.01)
        True
    """

    feedforward: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    remedies: ClassVar[str] = "the error of a single estimate says why"

    @property
    def of_loss(self) -> "AbstractEstimator":
        """What estimates the gradient of the loss alone, which is compared with the exact one: itself."""
        return self

    def planned(self, net: PyTree) -> "AbstractEstimator":
        """The same, with what cannot be found or refused any more once a training step is traced."""
        return self

    def warn(self, net: PyTree, inputs: Inputs) -> None:
        """Warn of settings with which this network would learn badly, in `train`."""

    def init(self, net: PyTree, inputs: Inputs, key: Key[Array, ""] | None = None) -> PyTree:
        """What is carried from batch to batch, before the first one: None for most."""
        return None

    @abc.abstractmethod
    def estimate(
        self, state: PyTree, net: PyTree, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[PyTree, Estimate]:
        """The state after a batch, and the estimate for it; works under jit, where nothing is raised."""

    @promoting
    @checked(net=as_trainable, key=as_key, tolerance=as_tolerance, throw=as_flag)
    def __call__(
        self,
        net: AbstractNetwork | AbstractFeedForwardNetwork,
        x: Data,
        y: Data,
        key: Key[Array, ""] | None = None,
        *,
        tolerance: float = TOLERANCE,
        throw: bool = False,
    ) -> Estimate:
        """The estimate for one batch, without a past; works under jit, where nothing is raised.

        Args:
            net: the neurons.
            x: inputs, (batch, ...).
            y: targets, (batch,) labels or (batch, classes).
            key: for noise.
            tolerance: a larger error than this gives a warning that says why, and what to do.
            throw: raise an error instead.

        Raises:
            InexactGradientError: with `throw`, the error is above the tolerance.
        """
        if not isinstance(net, AbstractFeedForwardNetwork):
            check_parameters(net)
        inputs = Inputs.of(net, x, y)
        estimate = self.estimate(self.init(net, inputs, key), net, inputs, key)[1]
        if not is_traced(estimate):
            report(estimate.error, tolerance, throw)
        return estimate


def richardson(long: Gradient, half: Gradient) -> tuple[Gradient, Float[Array, ""]]:
    r"""$(4\, g(T) - g(T/2)) / 3$, and $|g(T) - g(T/2)| / 3$ relative to it: the bias of $g(T)$."""
    gradient = jax.tree.map(lambda a, b: (4 * a - b) / 3, long, half)
    return gradient, ratio(norm(jax.tree.map(jnp.subtract, long, half)), 3 * norm(gradient))


@eqx.filter_jit
def estimate_at(
    net: AbstractNetwork,
    inputs: Inputs,
    gradient: Gradient,
    activities: Layers,
    residual: Array,
    result: RESULTS,
    error: GradientError | None = None,
) -> Estimate:
    """The estimate with the loss at the activities taken for the free equilibrium (their real parts)."""
    real = tuple(layer.real for layer in activities)
    if error is not None:
        result = RESULTS.where(result == RESULTS.successful, error.result, result)
    return Estimate(gradient, jnp.mean(net.loss(inputs.clamped, real, inputs.y)), real, residual, result, error)
