"""ImageNet32: batches in files, too large to be read together on most machines."""

import os
from pathlib import Path

from oscsim.core.checks import as_path
from oscsim.core.errors import BadValue
from oscsim.datasets.batches import Batch, read_batch, to_images
from oscsim.datasets.files import Data, Folder, Split, find, named_folder, require_split


def imagenet32_files(data_dir: Folder = None, split: Split = "train") -> list[Path]:
    """The files of ImageNet32 in a folder, in order: ten to train, `val_data` to test.

    Args:
        data_dir: the folder, as in `load`.
        split: `"train"` or `"test"`.

    Raises:
        ValueError: no folder is named, or an unknown split.
        FileNotFoundError: the folder, or a file in it, is missing.

    Example:
        >>> from pathlib import Path
        >>> Path("val_data").touch()
        >>> [path.name for path in osc.datasets.imagenet32_files(".", "test")]
        ['val_data']
    """
    require_split(split)
    named = named_folder(data_dir)
    if named is None:
        raise BadValue(
            f"data_dir={data_dir}: imagenet32 is not downloaded; get it from https://image-net.org/download-images and "
            "name its folder"
        )
    files = [f"train_data_batch_{i}" for i in range(1, 11)] if split == "train" else ["val_data"]
    return [find("imagenet32", *named, file) for file in files]


def read_imagenet32(path: str | os.PathLike[str]) -> Data:
    """Read one file of ImageNet32, such as one of `imagenet32_files`.

    Args:
        path: the file.

    Returns:
        (n, 32, 32, 3) float32 in [0, 1], and (n,) int32 labels from 0 (in the file they are from 1).

    Raises:
        ValueError: the file is truncated, damaged or not as published.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pickle
        >>> from pathlib import Path
        >>> content = {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1000]}  # as published, but for the size
        >>> count = Path("val_data").write_bytes(pickle.dumps(content))
        >>> images, labels = osc.datasets.read_imagenet32("val_data")
        >>> images.shape, labels.tolist()
        ((2, 32, 32, 3), [0, 999])
    """
    return to_images([read_pixels(as_path("path", path))])


def load_imagenet32(data_dir: Folder, split: Split) -> Data:
    """All files of a split together."""
    return to_images([read_pixels(path) for path in imagenet32_files(data_dir, split)])


def read_pixels(path: Path) -> Batch:
    """What is in one file, as it stands there: bytes."""
    if not path.is_file():
        raise FileNotFoundError(f"path={str(path)!r}: no such file; use one of imagenet32_files(data_dir)")
    with path.open("rb") as file:
        return read_batch(file, str(path), "labels", 1000, first=1)
