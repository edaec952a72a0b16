"""Networks around another network, of which they change some."""

from collections.abc import Callable
from typing import Generic, TypeVar

import equinox as eqx
from jaxtyping import Array, PyTree, Real

from oscsim.networks.base import AbstractNetwork, Layers, TimeConstant
from oscsim.networks.costs import AbstractCost

Wrapped = TypeVar("Wrapped", bound=AbstractNetwork)


class AbstractWrappedNetwork(AbstractNetwork, Generic[Wrapped]):
    """A network around another one, of which it has everything but what its class changes.

    Attributes:
        network: the other one. Gradients are pytrees like `parameters(self)`, with those of its parameters in
            `gradient.network`.
    """

    network: eqx.AbstractVar[Wrapped]

    @property
    def activation(self) -> Callable:
        """That of the network within, as all that follows."""
        return self.network.activation

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The layers of neurons."""
        return self.network.shapes

    @property
    def time_constant(self) -> TimeConstant:
        """Of each layer or neuron."""
        return self.network.time_constant

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one input."""
        return self.network.input_shape

    @property
    def outputs(self) -> int | None:
        """The number of classes, or of real outputs."""
        return self.network.outputs

    @property
    def cost(self) -> AbstractCost | None:
        """What outputs are compared with targets by; None where the network within has none by that name."""
        match self.network:
            case object(cost=AbstractCost() as cost):
                return cost
        return None

    @property
    def following(self) -> tuple[Array, ...]:
        """The time constants of the layers that have to follow the signal."""
        return self.network.following

    def activities(self, u: Layers) -> Layers:
        return self.network.activities(u)

    def clamp(self, x: Real[Array, "..."]) -> PyTree[Array]:
        return self.network.clamp(x)
