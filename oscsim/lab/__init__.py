"""The lab: an oscilloscope for learning, live in the browser or in a notebook.

`NoiseLab` is the page, `serve` shows it to visitors; both need the extra `lab` (Panel and Bokeh). All else here is the
computation behind it, and runs without them: `Settings`, `Engine`, the examples, classic equilibrium propagation.
"""

from typing import TYPE_CHECKING, Any

from oscsim.core.errors import MissingPackage
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

_WITH_PANEL = {"NoiseLab": "oscsim.lab.view", "serve": "oscsim.lab.server"}


def __getattr__(name: str) -> Any:
    """The page and its server, imported when first asked for: a run on a cluster needs no Panel."""
    if name not in _WITH_PANEL:
        raise AttributeError(f"module 'oscsim.lab' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_WITH_PANEL[name]), name)
    except ModuleNotFoundError as error:
        if error.name not in ("panel", "bokeh", "param"):
            raise
        raise MissingPackage(
            f"the lab needs {error.name}, which is not installed: pip install 'oscsim[lab]'", name=error.name
        ) from error
