"""`CoupledLearning`: the outputs are held nearer to their targets; contrastive Hebbian learning is its limit."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact, Key, PyTree, Real

from oscsim.core.arrays import is_traced
from oscsim.core.checks import as_scalar, shown
from oscsim.core.errors import RESULTS, BadType, BadValue
from oscsim.equilibrium import (
    Equilibrium,
    default_tolerance,
    free_equilibrium,
    is_settled,
    require_settled,
    settle_inputs,
)
from oscsim.equilibrium.corrected import require_uncorrected
from oscsim.estimators.base import AbstractEstimator, Estimate, estimate_at
from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant
from oscsim.networks.costs import AbstractCost, one_hot
from oscsim.networks.inputs import Inputs
from oscsim.networks.wrapped import AbstractWrappedNetwork


class CoupledLearning(AbstractEstimator):
    r"""Coupled learning: outputs held a little nearer to their targets, $o = o_0 + \eta\,(y - o_0)$.

    $g = -\left(\frac{\partial\Phi}{\partial\theta}(s_\eta) - \frac{\partial\Phi}{\partial\theta}(s_0)\right) / \eta$
    between the free equilibrium and that of the other neurons with the outputs held. At $\eta = 1$, where the outputs
    are the targets, it is contrastive Hebbian learning. It is not the gradient of the cost, at any $\eta$: holding the
    outputs weighs their errors by how stiff they are. It is here to compare with, and has no error bar.

    Attributes:
        step: $\eta$, above 0 and at most 1.

    Raises:
        ValueError: a step outside that range.
        TypeError: when called, a network whose outputs are no neurons, or that has no other neurons.
        NotSettledError: one of the two states does not settle.

    Source: Stern et al. (2021); Movellan (1991) for contrastive Hebbian learning.

    Example:
        >>> deep = osc.LayeredNetwork((6, 5, 4), cost=osc.SquaredError(), key=jax.random.key(0))
        >>> estimate = osc.CoupledLearning(0.1)(deep, x, y)
        >>> print(f"{osc.cosine(estimate.gradient, osc.exact_gradient(deep, x, y)):.2f}")
        0.55
    """

    step: Float[Array, ""]

    def __init__(self, step: ArrayLike):
        self.step = as_scalar("step", step)
        if not is_traced(self.step) and not 0 < float(self.step) <= 1:
            raise BadValue(
                f"step={shown(step)}: use a number above 0 and at most 1, which holds the targets themselves"
            )

    def estimate(
        self, state: None, net: AbstractNetwork, inputs: Inputs, key: Key[Array, ""] | None = None
    ) -> tuple[None, Estimate]:
        held = Held(require_uncorrected("net", net))
        free = free_equilibrium(net, inputs)
        output = free.activities[-1]
        outputs = output + self.step.astype(net.dtype) * (_targets(inputs.y, output) - output)
        level = default_tolerance(net.dtype)
        coupled = Inputs(inputs.x, inputs.y, (inputs.clamped, outputs))
        moved = settle_inputs(held, coupled, jnp.zeros(()), np.asarray(level), start=free.potentials[:-1])
        if not is_traced(moved):
            require_settled(held, coupled, moved, 0.0, level)
        return state, _read(net, inputs, self.step, free, moved, outputs)


class Held(AbstractWrappedNetwork[AbstractNetwork]):
    """A network whose last layer is held: what is held stands beside what the input contributes.

    Raises:
        TypeError: the cost does not see a layer of neurons, or there is no other layer.
    """

    network: AbstractNetwork

    def __init__(self, network: AbstractNetwork):
        self.network = network
        match network:
            case object(cost=AbstractCost(readout=False), shapes=(_, _, *_)):
                return
        raise BadType(
            f"net is a {type(network).__name__} without two layers of neurons, of which the last is the output: "
            "use a cost such as SquaredError(), which sees the last layer itself"
        )

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers that move."""
        return self.network.shapes[:-1]

    @property
    def time_constant(self) -> TimeConstant:
        """Of the layers that move."""
        return tuple(tau[0] if tau.ndim else tau for tau in self.network.time_constants[:-1])

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        inner, outputs = clamped
        return self.network.phi(inner, (*s, outputs.astype(s[0].dtype)), y, beta)

    @property
    def directed(self) -> Callable | None:
        """What the network has without a potential; None if it has nothing."""
        given = self.network.directed
        if given is None:
            return None

        def directed(clamped, s, r, y, beta):
            inner, outputs = clamped[0], clamped[1].astype(s[0].dtype)
            return given(inner, (*s, outputs), (*r, outputs), y, beta)

        return directed


def _targets(y: Array, output: Array) -> Array:
    return jax.vmap(lambda y: one_hot(y, output.shape[-1], output.dtype))(y)


@eqx.filter_jit
def _read(
    net: AbstractNetwork, inputs: Inputs, step: Array, free: Equilibrium, moved: Equilibrium, outputs: Array
) -> Estimate:
    zero = jnp.zeros((), net.dtype)

    def plasticity(s: Layers) -> PyTree:
        return net.plasticity(inputs.x, s, inputs.y, zero, heard=free.activities)

    before, after = plasticity(free.activities), plasticity((*moved.activities, outputs))
    gradient = jax.tree.map(lambda a, b: (a - b) / step.astype(a.dtype), before, after)
    level = default_tolerance(net.dtype)
    settled = jnp.all(is_settled(free, level)) & jnp.all(is_settled(moved, level))
    result = RESULTS.where(settled, RESULTS.successful, RESULTS.not_settled)
    residual = jnp.maximum(jnp.max(free.residual), jnp.max(moved.residual))
    return estimate_at(net, inputs, gradient, free.activities, residual, result)
