"""Records: what a run keeps."""

import abc
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, TypeAlias

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from oscsim.core.checks import as_count, as_index, as_path, as_sequence, count, flag, optional
from oscsim.core.ending import WRITING
from oscsim.core.errors import BadValue, warn
from oscsim.core.memory import require_disk, require_memory
from oscsim.core.printing import AbstractSettings
from oscsim.dynamics.cycle import Watch, Watched
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
        folder: where the samples of every cycle are written as they come; None keeps them in memory.

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
    folder = None

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
        folder: where they are written as they come, instead of being kept in memory: `activity_1.npy`, ..., (cycles,
            ticks, samples, neurons), likewise `potential_1.npy`, `noise_1.npy`, and `signal.npy`, (cycles, ticks,
            samples). The run reads them from there, so they have to stay, and cannot be written to.

    Raises:
        ValueError: a negative number of neurons; in `simulate`, what the network or the batch does not have, a folder
            without `every_cycle`, one that holds samples already, or is on a disk that they do not fit on.

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
    folder: Path | None = eqx.field(static=True, default=None, converter=optional(lambda p: as_path("folder", p)))

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


def announce(watch: Watch | None, cycles: int, ticks: int, itemsize: int, folder: Path | None = None) -> None:
    """Say how much memory samples will take, where it is much.

    Raises:
        ValueError: more than there is, in memory or on the disk of the folder.
    """
    size = 0 if watch is None else watch.count * cycles * ticks * itemsize
    what, remedy = f"record: samples of {cycles} cycles of {ticks} ticks", "watch fewer neurons or samples"
    if folder is not None:
        require_disk(what, size, folder, remedy)
        return require_memory("record: samples of one cycle", 3 * size / cycles, remedy)
    joined = cycles > 1  # in the end
    remedy = f"{remedy}, or the last cycle; or write them to a folder" if joined else remedy
    require_memory(what, (1 + joined) * size, remedy)
    if size > LARGE:
        warn(
            f"record keeps {size / 2**30:.1f} GB of samples: {cycles} cycles of {ticks} ticks; watch fewer neurons or "
            "samples, or the last cycle alone; or write them to a folder, PerCycle(folder=...)"
        )


class Samples:
    """Samples that are kept in memory: of every cycle, or of the last one."""

    def __init__(self, every_cycle: bool):
        self.every_cycle, self.kept = every_cycle, []

    def add(self, watched: Watched | None) -> None:
        """The samples of some more cycles."""
        self.kept = [*self.kept, watched] if self.every_cycle else [watched]

    def read(self) -> Watched | None:
        """All samples."""
        return jax.tree.map(lambda *a: np.concatenate(a), *self.kept)


class SampleFiles:
    """Samples that are written to `.npy` files as they come, which grow along their first axis, the cycles.

    Raises:
        ValueError: the folder holds such files already.
    """

    def __init__(self, folder: Path):
        self.folder, self.cycles, self.last = folder, 0, None
        if folder.exists() and not folder.is_dir():
            raise BadValue(f"folder={folder} is a file: give the name of a folder")
        kinds = ("activity_*", "signal", "potential_*", "noise_*")
        if found := [path.name for kind in kinds for path in folder.glob(f"{kind}.npy")]:
            raise BadValue(f"folder={folder} holds {found[0]} already: give another one, or remove what it holds")
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, watched: Watched | None) -> None:
        """The samples of some more cycles. Where writing is cut short, the files hold those before."""
        if watched is None:
            return
        after, named = (
            self.cycles + len(watched.teaching),
            list(zip(watched.names, jax.tree.leaves(watched), strict=True)),
        )
        with WRITING:
            for name, a in named:
                with self._path(name).open("r+b" if self.cycles else "x+b") as file:
                    if not self.cycles:
                        _write_head(file, a, 0)
                    file.seek(0, os.SEEK_END)
                    file.write(a.tobytes())
            for name, a in named:
                with self._path(name).open("r+b") as file:
                    _write_head(file, a, after)
        self.cycles, self.last = after, watched

    def read(self) -> Watched | None:
        """All samples; they are read from the files where they are looked at."""
        if self.last is None:
            return None

        def array(name, a):
            return np.load(self._path(name), mmap_mode="r" if a.size else None)  # there is no map of nothing

        leaves, structure = jax.tree.flatten(self.last)
        return jax.tree.unflatten(structure, list(map(array, self.last.names, leaves)))

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def _write_head(file: BinaryIO, like: np.ndarray, count: int) -> None:
    """The head of a `.npy` file with so many of these; numpy leaves room in it for a count that grows."""
    descr = np.lib.format.dtype_to_descr(like.dtype)
    shape = (count, *like.shape[1:])
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})


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
