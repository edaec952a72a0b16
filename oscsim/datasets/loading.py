"""`load` and `stream`: the data sets by their names, and data of your own by its path."""

import math
import os
from pathlib import Path

import numpy as np

from oscsim.core.checks import Given, as_flag, as_place, as_plain, as_text, checked
from oscsim.core.errors import BadValue
from oscsim.datasets.cifar import CIFAR, read_cifar
from oscsim.datasets.files import Data, Folder, Split, require_split
from oscsim.datasets.idx import read_mnist
from oscsim.datasets.imagenet32 import imagenet32_files, load_imagenet32, read_pixels
from oscsim.datasets.own import read
from oscsim.datasets.source import FileSource, Samples

NAMES = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet32")
"""What `load` knows."""


def as_name_or_place(name: str, value: Given) -> Given:
    """The name of a data set, or a path; one that is empty is the name of none."""
    return value if type(value) is str and not value else as_place(name, value)


@checked(name=as_name_or_place, standardise=as_flag, target=as_text, validation=as_plain)
def load(
    name: str | os.PathLike[str],
    split: Split = "train",
    data_dir: Folder = None,
    *,
    standardise: bool = False,
    target: str | None = None,
    validation: float | None = None,
) -> Samples:
    """Load a data set: inputs in [0, 1], and labels from 0; or a file or folder of your own, as `read` does.

    | name | inputs | train, test | classes | source |
    |---|---|---|---|---|
    | `"digits"` | (n, 64) | 1,437, 360 | 10 | Alpaydin & Kaynak (1998); embedded in scikit-learn, shuffled for all |
    | `"mnist"` | (n, 784) | 60,000, 10,000 | 10 | LeCun, Cortes & Burges (1998) |
    | `"fashion_mnist"` | (n, 784) | 60,000, 10,000 | 10 | Xiao, Rasul & Vollgraf (2017), arXiv 1708.07747 |
    | `"cifar10"` | (n, 32, 32, 3) | 50,000, 10,000 | 10 | Krizhevsky (2009) |
    | `"cifar100"` | (n, 32, 32, 3) | 50,000, 10,000 | 100 | Krizhevsky (2009); the fine labels |
    | `"imagenet32"` | (n, 32, 32, 3) | 1,281,167, 50,000 | 1,000 | Chrabaszcz et al. (2017), arXiv 1707.08819 |

    Files are looked for in `data_dir`, or else in the folder that the environment variable OSCSIM_DATA names: in its
    subfolder of the data set's name, then in the folder itself. They have their published names (such as
    `train-images-idx3-ubyte.gz`, `cifar-10-python.tar.gz`, `train_data_batch_1`); unpacked ones
    (`train-images-idx3-ubyte`, `cifar-10-batches-py`) do as well. Where no folder is named, they are downloaded once
    into the user's cache, and checked. ImageNet32 is not downloaded; its training split takes 16 GB of memory: `stream`
    leaves it in its ten files, and `read_imagenet32` reads one of them. Files that were unpacked, renamed or nested by
    Kaggle, 7-Zip or torchvision are found as well.

    Args:
        name: one of `NAMES`, or the path of your own data.
        split: `"train"` or `"test"` (of ImageNet32, the validation set).
        data_dir: the folder with the files.
        standardise: shift and scale to mean 0 and variance 1 over the training split, whichever split is returned: per
            colour channel, or over all pixels together where images are flat (each column of a table of your own).
        target: of a table of your own, the column with the labels.
        validation: of your own data without a part to test, the share that becomes one.

    Returns:
        Inputs, float32 (your own floats keep their precision), and labels, int32 (n,).

    Raises:
        ValueError: an unknown data set or split; a file that is truncated, damaged or not as published; a download
            with a wrong checksum; a folder named for the digits, or none for ImageNet32; of your own data, what `read`
            refuses.
        FileNotFoundError: the folder or path, or a file in it, is missing.
        OSError: a download failed; nothing of it is kept.

    Example:
        >>> images, labels = osc.datasets.load("digits")
        >>> images.shape, int(labels.max())
        ((1437, 64), 9)
    """
    require_split(split)
    if _is_own(name):
        if data_dir is not None:
            raise BadValue(
                f"data_dir={os.fspath(data_dir)!r} belongs to the named data sets, not to {name}: leave it out"
            )
        own = read(name, target=target, validation=validation, standardise=standardise)
        return own.train if split == "train" else own.held_out()
    name = str(name)
    for option, value in {"target": target, "validation": validation}.items():
        if value is not None:
            raise BadValue(f"{option}={value} belongs to data of your own, not to {name!r}: leave it out")
    x, y = _read(name, split, data_dir)
    if standardise:
        mean, deviation = _statistics(x if split == "train" else _read(name, "train", data_dir)[0])
        x -= mean
        x /= deviation
    return x, y


@checked(name=as_text)
def stream(
    name: str, split: Split = "train", data_dir: Folder = None, *, standardise: bool | FileSource = False
) -> FileSource:
    """A data set that stays in its files, of which one at a time is read: ImageNet32, with the samples of `load`.

    Its files are read once here, one by one, to check and to count what is in them.

    Args:
        name: `"imagenet32"`; the others fit in memory.
        split: `"train"` or `"test"` (the validation set).
        data_dir: the folder with the files, as in `load`.
        standardise: shift and scale to mean 0 and variance 1 over the training split, per colour channel. For the test
            split, True reads the training files too; the stream of the training split, given instead, saves that.

    Raises:
        ValueError: another data set, an unknown split, no folder, a file that is damaged or not as published.
        FileNotFoundError: the folder, or a file in it, is missing.

    Example:
        >>> import pickle
        >>> from pathlib import Path
        >>> content = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1000]}  # as published, but for the size
        >>> count = Path("val_data").write_bytes(pickle.dumps(content))
        >>> source = osc.datasets.stream("imagenet32", "test", ".")
        >>> len(source), source.first(1)[0].shape
        (2, (1, 32, 32, 3))
    """
    _require_name(name)
    if name != "imagenet32":
        raise BadValue(f"name={name!r}: only 'imagenet32' is streamed, this one fits in memory; use load({name!r})")
    paths = imagenet32_files(data_dir, split)
    if standardise is True and split == "test":
        standardise = FileSource(imagenet32_files(data_dir, "train"), read_pixels)
    return FileSource(paths, read_pixels, standardise)


def _is_own(name: str | os.PathLike[str]) -> bool:
    """Whether this is a path of the user's own data, and not one of `NAMES`.

    Raises:
        ValueError: neither a known name nor anything like a path.
    """
    text = os.fspath(name)
    own = text not in NAMES and text != "" and (Path(text).name != text or "." in text or Path(text).exists())
    if not own:
        _require_name(text)
    return own


def _require_name(name: str) -> None:
    if name not in NAMES:
        known = ", ".join(map(repr, NAMES))
        raise BadValue(f"name={name!r}: no such data set; use {known}, or the path of a file or folder that is there")


def _read(name: str, split: Split, data_dir: Folder) -> Data:
    if name == "digits":
        if data_dir is not None:
            raise BadValue(f"data_dir={str(data_dir)!r}: 'digits' is embedded and read from no folder; leave it out")
        return _read_digits(split)
    if name == "imagenet32":
        return load_imagenet32(data_dir, split)
    return read_cifar(name, split, data_dir) if name in CIFAR else read_mnist(name, split, data_dir)


def _read_digits(split: Split) -> Data:
    from sklearn.datasets import load_digits  # a second to import: only where it is needed

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    order = np.random.default_rng(0).permutation(len(labels))
    chosen = order[:1437] if split == "train" else order[1437:]
    return (images[chosen] / 16).astype(np.float32), labels[chosen].astype(np.int32)


def _statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation: of each channel, or of all pixels together where there are no channels."""
    axes = (0, 1, 2) if x.ndim == 4 else (0, 1)
    mean = x.mean(axes, np.float64, keepdims=True)
    parts = np.array_split(x, math.ceil(len(x) / 1024))  # only a few images at a time are copied to float64
    squares = sum(np.square(part - mean).sum(axes, keepdims=True) for part in parts)
    deviation = np.sqrt(squares / (x.size / mean.size))
    if not np.all(deviation > 0):
        raise BadValue("standardise=True: all pixels of a channel are the same; use standardise=False")
    return mean.astype(np.float32), deviation.astype(np.float32)
