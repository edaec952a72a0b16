"""MNIST and Fashion-MNIST: IDX files, gzipped or not."""

import hashlib
import math
from pathlib import Path

import numpy as np

from oscsim.core.errors import BadValue, DamagedFileError
from oscsim.core.files import reading, unpacked
from oscsim.datasets.files import Data, Folder, Split, get_again, locate

MNIST_MD5 = {  # of the unpacked files
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_mnist(name: str, split: Split, data_dir: Folder) -> Data:
    """`"mnist"` or `"fashion_mnist"` as rows of pixels."""
    stem = "train" if split == "train" else "t10k"
    images, image_path = _read_file(name, data_dir, f"{stem}-images-idx3-ubyte", rank=3)
    labels, label_path = _read_file(name, data_dir, f"{stem}-labels-idx1-ubyte", rank=1)
    if not len(images) or images.shape[1:] != (28, 28):
        raise BadValue(f"{image_path} holds {images.shape}, not images of 28 x 28 pixels: {get_again(name)}")
    if len(images) != len(labels) or labels.max() > 9:
        raise BadValue(
            f"{label_path} holds {len(labels)} labels up to {labels.max(initial=0)}, not one of 0 to 9 for each of the "
            f"{len(images)} images: {get_again(name)}"
        )
    return images.reshape(len(images), -1) / np.float32(255), labels.astype(np.int32)


def _read_file(name: str, data_dir: Folder, file: str, rank: int) -> tuple[np.ndarray, Path]:
    unpacked = file.replace("-idx", ".idx")  # as 7-Zip and others call it
    path = locate(name, data_dir, *(f"{stem}{ending}" for stem in (file, unpacked) for ending in (".gz", "")))
    array, md5 = read_idx(path, get_again(name), rank)
    if name == "mnist" and md5 != MNIST_MD5[file]:
        raise BadValue(
            f"{path} is not MNIST's: the MD5 of its unpacked content is {md5}, expected {MNIST_MD5[file]}; "
            f"{get_again(name)}"
        )
    if name != "mnist" and md5 in MNIST_MD5.values():
        raise BadValue(f"{path} is MNIST's, whose files have the same names: put those of {name} in a subfolder {name}")
    return array, path


def is_idx(path: Path) -> bool:
    """Whether a file is gzipped, or begins as an IDX file of bytes."""
    with path.open("rb") as file:
        return file.read(3) in (b"\0\0\x08", b"\x1f\x8b\x08")


def read_idx(path: Path, remedy: str, rank: int | None = None) -> tuple[np.ndarray, str]:
    """The array in an IDX file of bytes (two zeros, the type, the rank, the sizes, the data), and the MD5 of it all.

    Gzipped or not, whatever its name ends with.
    """
    with reading(f"{path} is truncated or damaged: {remedy}"):
        content = unpacked(path)
    rank = content[3] if rank is None and len(content) > 3 else rank or 0
    header, magic = 4 + 4 * rank, bytes((0, 0, 8, rank))
    if content[:4] != magic:
        raise DamagedFileError(
            f"{path} is not an IDX file of bytes with rank {rank}: it begins with {content[:4]!r}, not {magic!r}; "
            f"{remedy}"
        )
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    if len(content) != header + math.prod(shape):
        raise DamagedFileError(
            f"{path} is truncated or damaged: it has {len(content)} bytes, and an array of {shape} takes "
            f"{header + math.prod(shape)}; {remedy}"
        )
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape), md5
