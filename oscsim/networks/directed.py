"""A network that is a vector field: what drives each neuron, without a potential."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PyTree, Real

from oscsim.core.errors import BadValue
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.costs import AbstractCost


class AbstractDirectedNetwork(AbstractNetwork):
    r"""Neurons under any holomorphic vector field, $\tau \dot u = -u + F(\theta; x, s) - \beta\,\partial C/\partial s$.

    $\Psi(s, r) = s \cdot F(\theta; x, r) - \beta\, C(\mathrm{output}(s), y)$: see `AbstractNetwork`, of which this is a
    case. A network of your own gives `activation`, `shapes` and `clamp`, as there, and in place of `phi`

    - `drive(clamped, s)`: $F$ of one sample, one array per layer;
    - `cost`: what the output is compared with the target by;
    - `output(s)`: what the cost sees; by default the last layer.

    What a lock-in reads of such a network is not the exact gradient, unless the Jacobian of $F$ is symmetric. In a
    `CorrectedNetwork` it is.

    Example:
        >>> class Recurrent(osc.AbstractDirectedNetwork):  # neuron i hears neuron j by coupling[i, j]
        ...     weights: jax.Array
        ...     coupling: jax.Array
        ...     cost = osc.SquaredError()
        ...     activation = osc.Tanh()
        ...     shapes = ((4,),)
        ...     def clamp(self, x):
        ...         return osc.linear(self.weights, x)
        ...     def drive(self, clamped, s):
        ...         return (clamped + osc.linear(self.coupling, s[0]),)
        >>> k1, k2 = jax.random.split(jax.random.key(0))
        >>> recurrent = Recurrent(0.1 * jax.random.normal(k1, (4, 6)), 0.1 * jax.random.normal(k2, (4, 4)))
        >>> osc.exact_gradient(recurrent, x, y).coupling.shape
        (4, 4)

    Source: Laborieux & Zenke (2024); Scellier et al. (2018).
    """

    cost: eqx.AbstractVar[AbstractCost]

    @abc.abstractmethod
    def drive(self, clamped: PyTree[Array], s: Layers) -> Layers:
        """$F$ of one sample: what drives each neuron, one array per layer, holomorphic in `s`."""

    def output(self, s: Layers) -> Inexact[Array, " out"]:
        """What the cost compares with the target; of one sample."""
        return s[-1]

    def phi(self, clamped: PyTree[Array], s: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]) -> Array:
        r"""The cost alone, $-\beta C$: the field has no potential."""
        return -beta * self.cost(self.output(s), y)

    def directed(
        self, clamped: PyTree[Array], s: Layers, r: Layers, y: Real[Array, "..."], beta: Inexact[Array, ""]
    ) -> Array:
        r"""$s \cdot F(r)$."""
        drive = self.drive(clamped, r)
        shapes = [jnp.shape(f) for f in drive] if type(drive) in (tuple, list) else type(drive).__name__
        if shapes != [a.shape for a in s]:
            raise BadValue(
                f"drive of {type(self).__name__} returns {shapes} for neurons of {[a.shape for a in s]}: return one "
                "array for each layer, in a tuple"
            )
        return sum((jnp.sum(a * f) for a, f in zip(s, drive, strict=True)), jnp.zeros((), s[0].dtype))
