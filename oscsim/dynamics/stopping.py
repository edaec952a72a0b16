"""Stopping rules: when a run may end before its last cycle."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool

from oscsim.core.arrays import Count, Scalar
from oscsim.core.checks import positive
from oscsim.core.printing import AbstractSettings
from oscsim.dynamics.cycles import Averaged
from oscsim.dynamics.error_bars import gradient_and_error
from oscsim.dynamics.gradient_error import good_enough
from oscsim.dynamics.system import System
from oscsim.networks.inputs import Inputs


class AbstractStop(AbstractSettings):
    """A rule that ends a run before its last cycle.

    Example:
        >>> class Budget(osc.AbstractStop):
        ...     averages = False
        ...     cycles: int
        ...     def reached(self, system, inputs, found, discard):
        ...         return found.count >= self.cycles
        ...     def verdict(self, error, residual, cycles):
        ...         return f"stopped after {cycles} cycles"
        >>> osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=9, until=Budget(2)).cycles
        2
    """

    averages: eqx.AbstractClassVar[bool]
    """Whether it looks at the average of the cycles."""

    @abc.abstractmethod
    def reached(self, system: System, inputs: Inputs, found: Averaged, discard: Count) -> Bool[Array, ""]:
        """Whether the cycles may end here; the first `discard` of them do not count."""

    @abc.abstractmethod
    def verdict(self, error: float, residual: float, cycles: int) -> str:
        """What to say of a run that ended with these, after so many cycles."""


class Locked(AbstractStop):
    """Stop once the lock residual, the relative change of the reading from cycle to cycle, is below a threshold.

    Attributes:
        residual: the threshold.

    Raises:
        ValueError: not a positive number.

    Example:
        >>> stopped = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=20, until=osc.Locked(1e-3))
        >>> stopped.cycles < 20
        True
    """

    averages: ClassVar[bool] = False
    residual: Scalar = eqx.field(converter=positive("residual"))

    def reached(self, system: System, inputs: Inputs, found: Averaged, discard: Count) -> Bool[Array, ""]:
        return (found.residual <= self.residual) & (found.count > discard + 1)

    def verdict(self, error: float, residual: float, cycles: int) -> str:
        asked = f"asked for a lock to {float(self.residual):g}"
        return f"{asked}: " + ("reached" if residual <= self.residual else f"not reached in {cycles} cycles")


class Accuracy(AbstractStop):
    """Stop once the gradient's own error bar, `run.error().total`, is below a threshold, over two cycles at least.

    Attributes:
        error: the threshold, relative to the gradient.

    Raises:
        ValueError: not a positive number.

    Example:
        >>> stopped = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=20, until=osc.Accuracy(0.05))
        >>> stopped.cycles < 20
        True
    """

    averages: ClassVar[bool] = True
    error: Scalar = eqx.field(converter=positive("error"))

    def reached(self, system: System, inputs: Inputs, found: Averaged, discard: Count) -> Bool[Array, ""]:
        if found.average is None:
            return jnp.zeros((), bool)
        return good_enough(gradient_and_error(system, inputs, found.average, found.change)[1], self.error)

    def verdict(self, error: float, residual: float, cycles: int) -> str:
        asked = f"asked for {100 * float(self.error):g} %"
        return f"{asked}: " + ("reached" if error <= self.error else f"not reached in {cycles} cycles")
