"""Data sets: embedded, downloaded once, or read from a folder or file that the user names.

`load` reads every data set in `NAMES` from its files as published, into arrays, and files of your own; `read` says more
of the latter; `as_labels` makes numbers of names; `stream` leaves in its files what is too large for memory; `augment`
varies images at random.
"""

from oscsim.datasets.augmentation import augment
from oscsim.datasets.files import Split
from oscsim.datasets.imagenet32 import imagenet32_files, read_imagenet32
from oscsim.datasets.labels import as_labels
from oscsim.datasets.loading import NAMES, load, stream
from oscsim.datasets.own import OwnData, read, read_inputs
from oscsim.datasets.source import AbstractSource, ArraySource, FileSource, Samples

__all__ = [
    "NAMES",
    "AbstractSource",
    "ArraySource",
    "FileSource",
    "OwnData",
    "Samples",
    "Split",
    "as_labels",
    "augment",
    "imagenet32_files",
    "load",
    "read",
    "read_imagenet32",
    "read_inputs",
    "stream",
]
