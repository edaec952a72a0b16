"""What a run keeps."""

import math
from typing import ClassVar

import equinox as eqx
import numpy as np

from oscsim.core.checks import count, optional_count
from oscsim.networks.base import AbstractNetwork


class AbstractRecord(eqx.Module):
    """What a run keeps: the reading of every cycle, or their mean; and samples of some neurons.

    Attributes:
        every_reading: whether the reading of every cycle is kept, and not the mean alone.
        neurons: how many neurons of the first input are sampled at every tick.
        every_cycle: whether the samples of every cycle are kept, and not those of the last one alone.
        discard: of a mean, how many cycles at the start do not enter it; None for those before the lock.
    """

    every_reading: eqx.AbstractClassVar[bool]
    neurons: eqx.AbstractVar[int]
    every_cycle: eqx.AbstractVar[bool]
    discard: eqx.AbstractVar[int | None]

    def watch(self, net: AbstractNetwork) -> tuple[np.ndarray, ...] | None:
        """Flat indices of the watched neurons in each layer, spread evenly over layers and within them."""
        if not self.neurons:
            return None
        sizes = [math.prod(shape) for shape in net.shapes]
        share = [len(part) for part in np.array_split(np.arange(min(self.neurons, sum(sizes))), len(sizes))]
        return tuple(
            np.unique(np.linspace(0, size - 1, min(n, size)).round().astype(int))
            for size, n in zip(sizes, share, strict=True)
        )


class PerCycle(AbstractRecord):
    """Keep the reading of every cycle, and samples of a few neurons for the plots.

    Attributes:
        neurons: how many neurons of the first input are sampled at every tick, spread over the layers; 0 for none.
        every_cycle: keep the samples of every cycle; by default only those of the last one.

    Raises:
        ValueError: a negative number of neurons.
    """

    every_reading: ClassVar[bool] = True
    discard: ClassVar[int | None] = None
    neurons: int = eqx.field(static=True, default=8, converter=count("neurons", 0))
    every_cycle: bool = eqx.field(static=True, default=False)


class Mean(AbstractRecord):
    """Keep the mean reading alone: memory does not grow with the number of cycles.

    Attributes:
        discard: how many cycles at the start do not enter the mean; by default it starts anew at the first locked one.

    Raises:
        ValueError: a negative number of cycles.
    """

    every_reading: ClassVar[bool] = False
    neurons: ClassVar[int] = 0
    every_cycle: ClassVar[bool] = False
    discard: int | None = eqx.field(static=True, default=None, converter=optional_count("discard", 0))
