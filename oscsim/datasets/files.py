"""Data files: found in a folder that the user names, or in the cache that they are downloaded to."""

import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from oscsim.core.checks import as_path, choice
from oscsim.core.errors import BadValue

Split = Literal["train", "test"]
"""Which part of a data set; of ImageNet32, `"test"` is the validation set."""

Folder = str | os.PathLike[str] | None
Data = tuple[Float32[np.ndarray, "n ..."], Int32[np.ndarray, " n"]]


class Published(NamedTuple):
    """Where a data set is downloaded from, and the MD5 of each of its files."""

    address: str
    md5: dict[str, str]


PUBLISHED = {
    "mnist": Published(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": Published(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Published(
        "https://www.cs.toronto.edu/~kriz/", {"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"}
    ),
    "cifar100": Published(
        "https://www.cs.toronto.edu/~kriz/", {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}
    ),
}


TORCHVISION = {"mnist": ("MNIST", "."), "fashion_mnist": ("FashionMNIST", ".")}
"""The folders above `raw`, seen from the root of torchvision or from within."""


def require_split(split: str) -> None:
    """Refuse an unknown split."""
    choice("train", "test")("split", split)


def get_again(name: str) -> str:
    """The remedy for a bad file."""
    return f"get it again from {PUBLISHED[name].address}"


def locate(name: str, data_dir: Folder, *files: str) -> Path:
    """The first of the files that is in the user's folder; where no folder is named, the first of all, downloaded."""
    named = named_folder(data_dir)
    return _download(name, files[0]) if named is None else find(name, *named, *files)


def named_folder(data_dir: Folder) -> tuple[Path, str] | None:
    """The folder that the user names, if any, and what to call it in an error."""
    argument, value = "data_dir", data_dir
    if value is None:
        argument, value = "OSCSIM_DATA", os.environ.get("OSCSIM_DATA") or None
    if value is None:
        return None
    folder, called = as_path(argument, value), f"{argument}={str(value)!r}"
    if not folder.is_dir():
        raise FileNotFoundError(f"{called}: no such folder; name the one with the files of the data set")
    return folder, called


def find(name: str, folder: Path, called: str, *files: str) -> Path:
    """The first of the files that is in the folder, or an error that says what belongs there."""
    below = [folder / name, folder, *(folder / torch / "raw" for torch in TORCHVISION.get(name, ()))]
    for place in below:
        for file in files:
            if (place / file / file).is_file():  # as unpacked from Kaggle's archive
                return place / file / file
            if (place / file).exists():
                return place / file
    instead = ", or name no folder to have it downloaded" if name in PUBLISHED else ""
    raise FileNotFoundError(
        f"{called}: {name} needs {' or '.join(files[:2])} in this folder or in its subfolder {name}, and there is "
        f"none; put it there{instead}"
    )


def _download(name: str, file: str) -> Path:
    """The file in the user's cache. What is not there yet, or is damaged, is downloaded beside it and checked first."""
    import pooch  # brings an HTTP client along: only where it is needed

    published = PUBLISHED[name]
    url, folder = published.address + file, Path(pooch.os_cache("oscsim")) / name
    try:
        return Path(pooch.retrieve(url, f"md5:{published.md5[file]}", fname=file, path=folder, progressbar=True))
    except (OSError, ValueError) as error:
        kind = OSError if isinstance(error, OSError) else BadValue
        raise kind(
            f"{url} could not be downloaded to {folder} ({error}). Nothing of it was kept: try again, or get the file "
            "by other means and name its folder as data_dir"
        ) from error
