"""Pickled batches of 32 x 32 colour images, the format of CIFAR and ImageNet32, read without trusting them."""

import io
import pickle
from collections.abc import Callable, Sequence
from typing import IO, NamedTuple

import numpy as np

from oscsim.core.errors import BadValue
from oscsim.core.files import reading
from oscsim.datasets.files import Data

Buffer = bytes | bytearray | memoryview | pickle.PickleBuffer


class Batch(NamedTuple):
    """What a file holds.

    Attributes:
        pixels: (n, 3072) uint8; in a row all red, all green, all blue pixels of an image.
        labels: (n,) int32, from 0.
    """

    pixels: np.ndarray
    labels: np.ndarray


def to_images(batches: Sequence[Batch]) -> Data:
    """All batches together, channels last, in [0, 1]."""
    pixels = np.concatenate([batch.pixels for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    x = np.divide(pixels, np.float32(255), dtype=np.float32, order="C")
    return x, np.concatenate([batch.labels for batch in batches])


def read_batch(file: IO[bytes] | io.BufferedIOBase, where: str, label_key: str, classes: int, first: int = 0) -> Batch:
    """The batch in a pickled dictionary, or an error that says `where` and what is wrong with it.

    Args:
        file: opened for reading bytes.
        where: what to call it.
        label_key: key of the labels.
        classes: how many there are.
        first: the lowest label in the file.
    """
    with reading(f"{where} is truncated, damaged or not a batch of images as published: get it again"):
        whole = io.BytesIO(file.read())  # which takes no memory for as many bytes as a damaged length asks for
        content = {_text(key): value for key, value in _Unpickler(whole, encoding="bytes").load().items()}
        pixels, labels = _numbers(content["data"]), _numbers(content[label_key])
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or not len(pixels) or pixels.shape[1] != 3072:
        raise BadValue(f"{where}: 'data' is {pixels.dtype} of {pixels.shape}, not uint8 of (n, 3072); get it again")
    if labels.dtype.kind not in "iu" or labels.shape != pixels.shape[:1]:
        raise BadValue(
            f"{where}: {label_key!r} is {labels.dtype} of {labels.shape}, not one integer for each of {len(pixels)} "
            "images; get it again"
        )
    low, high = labels.min(), labels.max()
    if low < first or high >= first + classes:
        raise BadValue(
            f"{where}: {label_key!r} has {low} to {high}, not {first} to {first + classes - 1}; get it again"
        )
    return Batch(pixels, labels.astype(np.int32) - np.int32(first))


def _numbers(value: "list[int] | _Array") -> np.ndarray:
    """An array, or a list of numbers; a list of lists may be one list that holds itself a thousand times."""
    if type(value) is not _Array and not (type(value) is list and {*map(type, value)} <= {int, str}):
        raise TypeError(f"a {type(value).__name__} in place of numbers")
    return np.asarray(value)


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value  # Python 2 wrote bytes


class _Dtype:
    """Stands in for a pickled dtype of numpy, whose own way to restore one trusts the file."""

    def __init__(self, code: str | bytes, *_: object):
        self.code = _text(code)

    def __setstate__(self, state: tuple) -> None:
        self.code = _text(state[1]) + self.code  # the byte order


class _Array:
    """Stands in for a pickled array, likewise; `np.frombuffer` checks sizes, and refuses arrays of objects."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.array = np.frombuffer(content, dtype.code).reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self.array


def _reconstruct(*_: object) -> _Array:  # its state follows
    return _Array()


def _frombuffer(content: Buffer, dtype: _Dtype, shape: tuple, order: str) -> _Array:  # from protocol 5 on
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _encode(text: str, _: str) -> bytes:  # how Python 3 writes bytes in old protocols
    return text.encode("latin1")


def _no_bytes() -> bytes:  # likewise, where there are none
    return b""


ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
}


class _Unpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Reads arrays, bytes, text, numbers, lists and dictionaries; whatever else a pickle asks for is refused.

    The one written in Python: that in C makes room for as many objects as a damaged file numbers, many gigabytes.
    """

    def find_class(self, module: str, name: str) -> Callable:
        found = ADMITTED.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays and plain data are admitted")
        return found
