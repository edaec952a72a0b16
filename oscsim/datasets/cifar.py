"""CIFAR-10 and CIFAR-100: batches in an archive, or in the folder that it unpacks to."""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from oscsim.core.errors import BadValue
from oscsim.core.files import reading, require_unpackable
from oscsim.datasets.batches import read_batch, to_images
from oscsim.datasets.files import Data, Folder, Split, get_again, locate


class Packing(NamedTuple):
    """How a data set is packed: its archive, the folder and the batches in it, the key of the labels."""

    archive: str
    folder: str
    batches: dict[str, tuple[str, ...]]
    labels: str
    classes: int


CIFAR = {
    "cifar10": Packing(
        "cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        "labels",
        10,
    ),
    "cifar100": Packing(
        "cifar-100-python.tar.gz", "cifar-100-python", {"train": ("train",), "test": ("test",)}, "fine_labels", 100
    ),
}


def read_cifar(name: str, split: Split, data_dir: Folder) -> Data:
    """`"cifar10"` or `"cifar100"` as images."""
    packing = CIFAR[name]
    path, wanted = locate(name, data_dir, packing.archive, packing.folder), packing.batches[split]
    with reading(f"{path} is truncated, or no archive as published: {get_again(name)}"):
        found = {
            batch: read_batch(file, f"{batch} in {path}", packing.labels, packing.classes)
            for batch, file in _open_batches(path, wanted)
        }
    missing = [batch for batch in wanted if batch not in found]
    if missing:
        kind = FileNotFoundError if path.is_dir() else BadValue
        raise kind(f"{path} is incomplete, it lacks {', '.join(missing)}: {get_again(name)}")
    return to_images([found[batch] for batch in wanted])


def _open_batches(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    """Those of the wanted batches that are there, in any order."""
    if path.is_dir():
        for batch in wanted:
            if (path / batch).is_file():
                with (path / batch).open("rb") as file:
                    yield batch, file
        return
    with tarfile.open(path) as archive:
        for member in archive:  # to the end, so that one cut short is noticed
            require_unpackable(path, member.offset_data + member.size, path.stat().st_size)
            batch = PurePosixPath(member.name).name
            if batch in wanted and member.isfile() and (file := archive.extractfile(member)):
                yield batch, file
