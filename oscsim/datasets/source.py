"""Sources of batches for `train`: arrays in memory, or files of which one is in memory at a time."""

import abc
import hashlib
import math
import os
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float64, Int, Key, UInt8

from oscsim.core.checks import (
    as_count,
    as_flag,
    as_function,
    as_key,
    as_path,
    as_sequence,
    asked,
    require_instance,
    untraced,
)
from oscsim.core.errors import BadValue, warn
from oscsim.datasets.batches import Batch, to_images
from oscsim.networks.inputs import as_data

Samples = tuple[np.ndarray, np.ndarray]
"""Inputs, (n, ...), and their labels or targets, (n, ...)."""


class AbstractSource(abc.ABC):
    """A source of batches for `train`.

    Attributes:
        digest: a fingerprint of all inputs and labels: a run goes on only with the data that it began with.

    Example:
        >>> class Blobs(osc.datasets.AbstractSource):  # drawn anew in every epoch
        ...     digest = "blobs"
        ...     def __len__(self):
        ...         return 12
        ...     def first(self, count):
        ...         return next(self.batches(jax.random.key(0), 0, min(count, len(self))))
        ...     def batches(self, key, epoch, batch_size, start=0):
        ...         rng = np.random.default_rng(epoch)
        ...         for i in range(len(self) // batch_size):
        ...             labels = rng.integers(0, 4, batch_size).astype(np.int32)
        ...             if i >= start:
        ...                 yield np.eye(6, dtype=np.float32)[labels], labels
        >>> twin, key = osc.FeedForwardNetwork((6, 5, 4), key=jax.random.key(0)), jax.random.key(1)
        >>> trained = osc.train(twin, Blobs(), osc.Backpropagation(), optax.sgd(0.1), epochs=1, batch_size=3, key=key)
        >>> trained.history[0]["step"]
        4
    """

    digest: str

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many samples there are."""

    @abc.abstractmethod
    def first(self, count: int) -> Samples:
        """The first `count` samples, unshuffled; all, where there are fewer."""

    @abc.abstractmethod
    def batches(self, key: Key[Array, ""], epoch: int, batch_size: int, start: int = 0) -> Iterator[Samples]:
        """The batches of an epoch from one of them on.

        An epoch has `len(self) // batch_size` batches; what does not fill another is left out. The same key and epoch
        give the same batches, whatever the start, so that a run can go on in the middle of an epoch.

        Args:
            key: a random key of jax, the same for all epochs.
            epoch: which one, from 0; each has an order of its own.
            batch_size: samples per batch.
            start: the batch to begin with, from 0.

        Raises:
            ValueError: a negative number, or a start after the last batch.
            TypeError: key is no random key, or a number no integer.
        """


class ArraySource(AbstractSource):
    """Samples in memory. An epoch goes through them in the order `permutation(fold_in(key, epoch), n)` of `jax.random`.

    Args:
        x: inputs, (n, ...).
        y: labels or targets, (n, ...).

    Warns:
        UserWarning: all labels are the same one.

    Raises:
        ValueError: not one label for each input.
        TypeError: inputs or labels that are no real numbers.

    Example:
        >>> source = osc.datasets.ArraySource(x, y)
        >>> [labels.shape for _, labels in source.batches(jax.random.key(0), epoch=0, batch_size=1)]
        [(1,), (1,), (1,)]
    """

    def __init__(self, x: ArrayLike | Sequence, y: ArrayLike | Sequence):
        self.x, self.y = (np.asarray(as_data(name, untraced(name, a))) for name, a in (("x", x), ("y", y)))
        if not self.x.ndim or self.x.shape[:1] != self.y.shape[:1]:
            raise BadValue(f"x has shape {self.x.shape} and y {self.y.shape}: give one label for each input")
        self.digest = digest_of(self.x, self.y)
        if self.y.ndim == 1 and self.y.dtype.kind in "iu" and len(self.y) > 1 and np.all(self.y == self.y[0]):
            warn(f"all {len(self.y)} labels are {self.y[0]}: there is nothing to tell apart")

    def __len__(self) -> int:
        return len(self.x)

    def first(self, count: int) -> Samples:
        count = as_count("count", count)
        return self.x[:count], self.y[:count]

    def batches(self, key: Key[Array, ""], epoch: int, batch_size: int, start: int = 0) -> Iterator[Samples]:
        begin, end = _require_span(len(self), key, epoch, batch_size, start)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), len(self)))
        return ((self.x[chosen], self.y[chosen]) for chosen in order[begin:end].reshape(-1, batch_size))


class FileSource(AbstractSource):
    r"""Images in files, of which at most one is in memory, as bytes, beside a few batches.

    All files are read once at the start, one by one, to check and to count what is in them. Each epoch shuffles the
    files, and the samples within each file; a batch may take its samples from two files or more. Inputs, (n, 32, 32, 3)
    float32, are $(p / 255 - m_c) / s_c$ with pixels $p$; where they are standardised, $m_c$ and $s_c$ are mean and
    standard deviation of channel $c$, else 0 and 1. Labels are (n,) int32.

    `batches` returns a generator with its own thread, which reads and converts ahead. Closing or dropping the generator
    ends the thread once it has finished the file that it is reading.

    Args:
        paths: the files, in order, such as `imagenet32_files`.
        read: from a path to what is in the file, checked: pixels, (n, 3072) uint8, in a row all red, all green, all
            blue ones of an image; and labels, (n,) int32, from 0.
        standardise: shift and scale to mean 0 and variance 1 over these files; or, given the source of the training
            split, over the files of that one.

    Attributes:
        mean: of each channel over all pixels of these files, in [0, 1], float64.
        deviation: the standard deviation, likewise.

    Raises:
        ValueError: no files, a file that `read` refuses, or, from `batches` and `first`, one that has changed since the
            start; to be standardised by a channel whose pixels are all the same.
        FileNotFoundError: a file is missing, at the start or later.

    Example:
        >>> from oscsim.datasets.batches import Batch
        >>> np.save("first.npy", np.zeros((4, 3072), np.uint8))
        >>> def read(path):
        ...     return Batch(np.load(path), np.zeros(4, np.int32))
        >>> source = osc.datasets.FileSource(["first.npy"], read)
        >>> len(source), source.first(2)[0].shape
        (4, (2, 32, 32, 3))
    """

    mean: Float64[np.ndarray, " channels"]
    deviation: Float64[np.ndarray, " channels"]

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        read: Callable[[Path], Batch],
        standardise: "bool | FileSource" = False,
    ):
        if not as_sequence("paths", paths):
            raise BadValue(f"paths={paths!r}: give one file or more")
        self._read = read = as_function("read", read)
        self._files = [_survey(as_path("paths", path), read) for path in paths]
        self.mean, self.deviation = _statistics(np.sum([file.histogram for file in self._files], 0))
        standardise = standardise if isinstance(standardise, FileSource) else as_flag("standardise", standardise)
        by = self if standardise is True else standardise or None
        self._shift, self._scale = np.zeros(3, np.float32), np.ones(3, np.float32)
        if by is not None:
            if not np.all(by.deviation > 0):
                raise BadValue("standardise: all pixels of a channel are the same; use standardise=False")
            self._shift, self._scale = by.mean.astype(np.float32), by.deviation.astype(np.float32)
        # The files by which it standardises count too; not the statistics, whose last bits depend on the machine.
        self.digest = digest_of(*(np.array([file.digest for file in s._files]) for s in (self, by) if s is not None))

    def __len__(self) -> int:
        return sum(file.count for file in self._files)

    def first(self, count: int) -> Samples:
        count = min(as_count("count", count), len(self))
        return next(self._assembled(((file, np.arange(file.count)) for file in self._files), count))

    def batches(
        self, key: Key[Array, ""], epoch: int, batch_size: int, start: int = 0
    ) -> Generator[Samples, None, None]:
        begin, end = _require_span(len(self), key, epoch, batch_size, start)
        # Drawn here: jax's precision is set by thread.
        rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, epoch))))
        return _ahead(self._assembled(self._shuffled(rng, begin, end), batch_size))

    def _shuffled(self, rng: np.random.Generator, begin: int, end: int) -> Iterator[tuple["_File", np.ndarray]]:
        """The files in the order of an epoch, and which of their samples stand from `begin` to `end` in this order.

        The order of a file is drawn even where nothing is taken from it, so that the next ones stay the same.
        """
        place = 0
        for i in rng.permutation(len(self._files)):
            file = self._files[i]
            chosen = rng.permutation(file.count)[max(begin - place, 0) : max(end - place, 0)]
            place += file.count
            if len(chosen):
                yield file, chosen

    def _assembled(self, portions: Iterable[tuple["_File", np.ndarray]], batch_size: int) -> Iterator[Samples]:
        """The chosen samples of each file in turn, in batches; what is left of a file begins the next batch."""
        rest = nothing = Batch(np.empty((0, 3072), np.uint8), np.empty(0, np.int32))
        for file, chosen in portions:
            content = self._read_again(file)
            for part in np.split(chosen, range(batch_size - len(rest.labels), len(chosen), batch_size)):
                taken = Batch(*(a[part] for a in content))  # copies, through which nothing keeps the file
                rest = Batch(*map(np.concatenate, zip(rest, taken, strict=True)))
                if len(rest.labels) == batch_size:
                    yield self._converted(rest)
                    rest = nothing
            del content  # before the next one is read

    def _read_again(self, file: "_File") -> Batch:
        content = self._read(file.path)
        if digest_of(*content) != file.digest:
            raise BadValue(
                f"{file.path} has changed: its {len(content.labels)} samples are not the {file.count} that it held "
                "when this source was made; put it back, or make a new source"
            )
        return content

    def _converted(self, batch: Batch) -> Samples:
        x, y = to_images([batch])
        x -= self._shift
        x /= self._scale
        return x, y


class _File(NamedTuple):
    """A file and what was found in it; `histogram[c, p]` says how often channel c has the value p."""

    path: Path
    count: int
    digest: str
    histogram: Int[np.ndarray, "3 256"]


def _survey(path: Path, read: Callable[[Path], Batch]) -> _File:
    content = asked("read", read, path, errors=(TypeError,))  # others are of what the file holds
    require_instance("read", content, Batch, "return a Batch(pixels, labels) of oscsim.datasets.batches")
    return _File(path, len(content.labels), digest_of(*content), _histogram(content.pixels))


def _histogram(pixels: UInt8[np.ndarray, "n 3072"]) -> Int[np.ndarray, "3 256"]:
    parts = np.array_split(pixels.reshape(-1, 3, 1024), math.ceil(len(pixels) / 256))  # counting takes 8 bytes a pixel
    return np.sum([[np.bincount(part[:, c].ravel(), minlength=256) for c in range(3)] for part in parts], 0)


def _statistics(histogram: Int[np.ndarray, "3 256"]) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Mean and standard deviation of each channel, in [0, 1], from the exact counts."""
    values, frequencies = np.arange(256) / 255, histogram / histogram.sum(1, keepdims=True)
    mean = frequencies @ values
    return mean, np.sqrt(np.sum(frequencies * (values - mean[:, None]) ** 2, 1))


def digest_of(*arrays: np.ndarray) -> str:
    """A fingerprint of arrays: of shapes, dtypes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for a in arrays:
        digest.update(f"{a.shape}{a.dtype}".encode())
        digest.update(np.ascontiguousarray(a).reshape(-1).view(np.uint8).data)  # also of types that have no buffer
    return digest.hexdigest()


def _require_span(samples: int, key: Array, epoch: int, batch_size: int, start: int) -> tuple[int, int]:
    """From which to which place in the order of an epoch its batches go; or an error that names a bad argument."""
    as_key("key", key)
    as_count("epoch", epoch, 0)
    batch_size, start = as_count("batch_size", batch_size), as_count("start", start, 0)
    count = samples // batch_size
    if start > count:
        raise BadValue(f"start={start}: an epoch has {count} batches of {batch_size}; use 0 to {count}")
    return start * batch_size, count * batch_size


# Making batches ahead.

AHEAD = 2
"""How many batches wait to be taken."""


def _ahead(batches: Iterator[Samples]) -> Generator[Samples, None, None]:
    """The batches, made in a thread, which ends when this generator ends, for whatever reason."""
    # Simple queues, because their `put` is reentrant: the garbage collector may close a dropped generator at any point
    # of any thread, where waiting for another lock could last forever.
    made, room, stop = SimpleQueue(), SimpleQueue(), threading.Event()
    for _ in range(AHEAD):
        room.put(None)
    thread = threading.Thread(target=_make, args=(batches, made, room, stop), name="oscsim batches", daemon=True)
    thread.start()
    try:
        yield from iter(lambda: _taken(made, room), None)
    finally:
        if not sys.is_finalizing():  # else daemon threads stand still already, and cannot be waited for
            stop.set()
            room.put(None)
            if thread is not threading.current_thread():
                thread.join()


def _make(batches: Iterator[Samples], made: SimpleQueue, room: SimpleQueue, stop: threading.Event) -> None:
    """Put batches where they are taken from, as long as there is room, and then None, or the error that ended them."""
    try:
        for batch in batches:
            room.get()
            if stop.is_set():
                return
            made.put(batch)
        made.put(None)
    except BaseException as error:
        made.put(error)


def _taken(made: SimpleQueue, room: SimpleQueue) -> Samples | None:
    room.put(None)
    taken = made.get()
    if not isinstance(taken, BaseException):
        return taken
    try:
        raise taken
    finally:
        del taken  # its traceback holds this frame: no cycle
