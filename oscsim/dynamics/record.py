"""Records: what a run keeps."""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from oscsim.core.checks import as_count, as_index, as_sequence, count, flag, optional
from oscsim.core.errors import BadValue, warn
from oscsim.core.memory import require_memory
from oscsim.core.printing import AbstractSettings
from oscsim.dynamics.cycle import Watch
from oscsim.networks.base import AbstractNetwork

All: TypeAlias = Literal["all"]
Places: TypeAlias = tuple[int, ...] | All
LARGE = 2**30
"""Samples of more bytes than this are announced."""


class AbstractRecord(AbstractSettings):
    """What a run keeps: the reading of every cycle, or their mean; and samples of some neurons.

    Attributes:
        every_reading: whether the reading of every cycle is kept, and not the mean alone.
        every_cycle: whether the samples of every cycle are kept, and not those of the last one alone.
        discard: of a mean, how many cycles at the start do not enter it; None for those before the lock.

    Example:
        >>> class FirstLayer(osc.AbstractRecord):
        ...     every_reading = True
        ...     every_cycle = True
        ...     discard = None
        ...
        ...     def watch(self, net, batch):
        ...         return osc.dynamics.Watch((np.arange(net.shapes[0][0]),), np.arange(batch))
        >>> FirstLayer().watch(net, 3).count  # numbers a tick: 3 samples of 5 neurons
        15
    """

    every_reading: eqx.AbstractClassVar[bool]
    every_cycle: eqx.AbstractVar[bool]
    discard: eqx.AbstractVar[int | None]

    @abc.abstractmethod
    def watch(self, net: AbstractNetwork, batch: int) -> Watch | None:
        """What is sampled at every tick; None for nothing.

        Raises:
            ValueError: layers, neurons or samples that are not there.
        """


def _places(name: str, places: Sequence[int] | All) -> Places:
    """Indices, checked as far as they can be without a network."""
    match places:
        case str() if places == "all":
            return "all"
    return tuple(as_index(name, i) for i in as_sequence(name, places))


def _neurons(neurons: int | All | Mapping[int, Sequence[int] | All]) -> int | All | tuple[tuple[int, Places], ...]:
    match neurons:
        case Mapping():
            return tuple(
                (as_count("neurons: layer", n), _places(f"neurons[{n}]", which)) for n, which in neurons.items()
            )
        case str() if neurons == "all":
            return "all"
        case tuple() if all(map(_is_pair, neurons)):  # as a copy of this record has it
            return neurons
    return as_count("neurons", neurons, 0, "use 0 or a positive integer, 'all', or {layer: indices}")


def _is_pair(entry: object) -> bool:
    """Whether this is a layer with places in it."""
    match entry:
        case (int(), str() | tuple()):
            return True
    return False


class PerCycle(AbstractRecord):
    r"""Keep the reading of every cycle, and samples of neurons at every tick.

    Attributes:
        neurons: how many are sampled, spread over the layers, 0 for none; or `"all"`; or for each layer, counted from
            1, the neurons' indices (in the flattened layer) or `"all"`, such as `{1: [0, 5], 3: "all"}`.
        samples: which samples of the batch, or `"all"`; by default the first one.
        potentials: whether their potentials are kept, too.
        noise: whether what noise adds to their force is kept, $g(s)\, dX/dt$, its mean over each tick. Noise on the
            teaching signal is in that signal.
        every_cycle: keep the samples of every cycle; by default only those of the last one.

    Raises:
        ValueError: a negative number of neurons; in `simulate`, what the network or the batch does not have.

    Example:
        >>> record = osc.PerCycle(neurons={1: "all"}, samples=[0, 2], potentials=True, every_cycle=True)
        >>> run = osc.simulate(net, x, y, osc.Rotating(0.1, 100.0), cycles=2, record=record)
        >>> run.watched.potentials[0].shape  # cycles, ticks, samples, neurons
        (2, 64, 2, 5)
        >>> run.to_xarray().activity_1.dims
        ('time', 'watched_sample', 'watched_neuron_1')
    """

    every_reading: ClassVar[bool] = True
    discard: ClassVar[int | None] = None
    neurons: int | All | tuple[tuple[int, Places], ...] = eqx.field(static=True, default=8, converter=_neurons)
    samples: Places = eqx.field(static=True, default=(0,), converter=lambda places: _places("samples", places))
    potentials: bool = eqx.field(static=True, default=False, converter=flag("potentials"))
    every_cycle: bool = eqx.field(static=True, default=False, converter=flag("every_cycle"))
    noise: bool = eqx.field(static=True, default=False, converter=flag("noise"))

    def watch(self, net: AbstractNetwork, batch: int) -> Watch | None:
        sizes = [math.prod(shape) for shape in net.shapes]
        match self.neurons:
            case 0:
                return None
            case "all":
                neurons = [np.arange(size) for size in sizes]
            case int(most):
                share = [len(part) for part in np.array_split(np.arange(min(most, sum(sizes))), len(sizes))]
                spread = [np.linspace(0, size - 1, min(n, size)) for size, n in zip(sizes, share, strict=True)]
                neurons = [np.unique(places.round().astype(int)) for places in spread]
            case chosen:
                wanted = dict(chosen)
                for layer in wanted.keys() - set(range(1, len(sizes) + 1)):
                    raise BadValue(f"neurons of layer {layer}: layers are counted from 1, to {len(sizes)} here")
                neurons = [
                    _within(f"neurons[{n}]", wanted.get(n, ()), size, "neurons in this layer")
                    for n, size in enumerate(sizes, start=1)
                ]
        samples = _within("samples", self.samples, batch, "samples in the batch")
        return Watch(tuple(neurons), samples, self.potentials, self.noise)


def _within(name: str, places: Places, size: int, what: str) -> np.ndarray:
    """Indices that lie within what there is."""
    if places == "all":
        return np.arange(size)
    found = np.array(places, int)
    if np.any(found >= size):
        raise BadValue(f"{name}={found.max()}: there are {size} {what}, counted from 0")
    return found


def require_room(cycles: int, reading: PyTree) -> None:
    """Refuse to keep the readings of more cycles than fit.

    Raises:
        ValueError: more than there is memory for.
    """
    size = cycles * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(reading))
    require_memory(f"record=PerCycle(): {cycles} readings", size, "use record=Mean(), or fewer cycles")


def announce(watch: Watch | None, cycles: int, ticks: int, itemsize: int) -> None:
    """Say how much memory samples will take, where it is much.

    Raises:
        ValueError: more than there is.
    """
    size = 0 if watch is None else watch.count * cycles * ticks * itemsize
    require_memory(
        f"record: samples of {cycles} cycles of {ticks} ticks",
        size,
        "watch fewer neurons or samples, or the last cycle",
    )
    if size > LARGE:
        warn(
            f"record keeps {size / 2**30:.1f} GB of samples: {cycles} cycles of {ticks} ticks; watch fewer neurons or "
            "samples, or the last cycle alone"
        )


class Mean(AbstractRecord):
    """Keep the mean reading alone: memory does not grow with the number of cycles.

    Attributes:
        discard: how many cycles at the start do not enter the mean; by default it starts anew at the first locked one.

    Raises:
        ValueError: a negative number of cycles.

    Example:
        >>> averaged = osc.simulate(net, x, y, osc.Rotating(0.2, 100.0), cycles=3, record=osc.Mean(discard=1))
        >>> averaged.phasors[1][0].shape  # one reading of all cycles
        (1, 3, 5)
    """

    every_reading: ClassVar[bool] = False
    every_cycle: ClassVar[bool] = False
    discard: int | None = eqx.field(static=True, default=None, converter=optional(count("discard", 0)))

    def watch(self, net: AbstractNetwork, batch: int) -> None:
        return None
