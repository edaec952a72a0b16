"""Shared by all packages: named errors, checks and conversions, files that are written whole or not at all."""

from oscsim.core import checkpoint, colours, ending
from oscsim.core.arrays import Count, norm
from oscsim.core.checks import as_count, as_path, positive
from oscsim.core.compiled import keep_compiled
from oscsim.core.errors import BadType, BadValue, MissingPackage, warn
from oscsim.core.files import FIGURES, reading, write, write_figure
from oscsim.core.printing import percent
from oscsim.core.progress import say

__all__ = [
    "FIGURES",
    "BadType",
    "BadValue",
    "Count",
    "MissingPackage",
    "as_count",
    "as_path",
    "checkpoint",
    "colours",
    "ending",
    "keep_compiled",
    "norm",
    "percent",
    "positive",
    "reading",
    "say",
    "warn",
    "write",
    "write_figure",
]
