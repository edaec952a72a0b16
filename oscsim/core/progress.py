"""The progress bar: a widget in notebooks where there are widgets, text elsewhere."""

import sys
import warnings

import tqdm as _tqdm

with warnings.catch_warnings():
    warnings.simplefilter("ignore", _tqdm.TqdmWarning)  # without widgets it is text, which is nothing to warn of
    from tqdm.auto import tqdm

__all__ = ["interactive", "tqdm"]


def interactive() -> bool:
    """Whether somebody is looking: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules
