"""The lab: an oscilloscope for learning, live in the browser or in a notebook.

`NoiseLab` is the page, `serve` serves it; both need the extra `lab` (Panel and Bokeh). The computation behind them does
not: `Settings`, `Engine`, the examples, classic equilibrium propagation.
"""

from typing import TYPE_CHECKING

from oscsim.core import MissingPackage
from oscsim.lab.classic import PhaseMeans, TwoPhase, classic_gradient
from oscsim.lab.engine import Engine, Frame
from oscsim.lab.settings import PRESETS, Example, Settings, example

if TYPE_CHECKING:
    from oscsim.lab.server import serve
    from oscsim.lab.view import NoiseLab

__all__ = [
    "PRESETS",
    "Engine",
    "Example",
    "Frame",
    "NoiseLab",
    "PhaseMeans",
    "Settings",
    "TwoPhase",
    "classic_gradient",
    "example",
    "serve",
]


def __getattr__(name: str) -> object:
    """Import the page and its server when they are first used: a run on a cluster needs no Panel."""
    if name not in ("NoiseLab", "serve"):
        raise AttributeError(f"module 'oscsim.lab' has no attribute {name!r}")
    try:
        from oscsim.lab import server, view
    except ModuleNotFoundError as error:
        if error.name not in ("panel", "bokeh", "param"):
            raise
        raise MissingPackage(
            f"the lab needs {error.name}, which is not installed: pip install '.[lab]' in a clone of oscsim",
            name=error.name,
        ) from error
    return view.NoiseLab if name == "NoiseLab" else server.serve
