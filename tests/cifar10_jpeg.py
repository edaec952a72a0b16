"""CIFAR-10 kept as JPEG streams, written as CIFAR-10 is published.

    python tests/cifar10_jpeg.py ../shared/data/cifar10-jpeg cifar10

The package reads published formats only. JPEG is lossy: say "CIFAR-10 (JPEG)" wherever a figure from it is quoted.
"""

import io
import itertools
import pickle
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, (n, 3072) uint8, all red, green and blue ones of an image in turn; and labels, (n,)."""
    with np.load(path) as file:
        streams, offsets, labels = file["jpeg"].tobytes(), file["offsets"], file["labels"]
    images = [Image.open(io.BytesIO(streams[a:b])) for a, b in itertools.pairwise(offsets)]
    return np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2).reshape(len(images), 3072), labels


def write(source: Path, folder: Path) -> Path:
    """The folder, with `cifar-10-batches-py` in it: five batches to train, one to test."""
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True, exist_ok=True)
    names = {"train.npz": [f"data_batch_{i}" for i in range(1, 6)], "test.npz": ["test_batch"]}
    for file, parts in names.items():
        pixels, labels = (np.array_split(a, len(parts)) for a in decode(source / file))
        for name, data, numbers in zip(parts, pixels, labels, strict=True):
            (batches / name).write_bytes(pickle.dumps({b"data": data, b"labels": numbers.tolist()}, protocol=2))
    return folder


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
