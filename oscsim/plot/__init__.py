"""Figures: of a network, of a run (orbits, traces, spectrum, gradient), of learning, and of sweeps.

Every function takes what it draws and, optionally, the matplotlib axes to draw into, and returns axes. `animate`
returns a moving picture; `running_errors` and `running_bars` compute what one of them draws; `use_style` is for figures
of your own. No other function touches the global style, and matplotlib is imported when the first figure is made.
"""

from oscsim.plot import style
from oscsim.plot.animation import animate
from oscsim.plot.learning import gradient_cosines, learning_curves, training, weights
from oscsim.plot.live import LiveTraining
from oscsim.plot.networks import network
from oscsim.plot.planes import stability
from oscsim.plot.runs import (
    components,
    gradient_error,
    layers,
    orbits,
    running_bars,
    running_errors,
    spectrum,
    summary,
    traces,
)
from oscsim.plot.style import use_style
from oscsim.plot.sweeps import sweep_curves, sweep_map

__all__ = [
    "LiveTraining",
    "animate",
    "components",
    "gradient_cosines",
    "gradient_error",
    "layers",
    "learning_curves",
    "network",
    "orbits",
    "running_bars",
    "running_errors",
    "spectrum",
    "stability",
    "style",
    "summary",
    "sweep_curves",
    "sweep_map",
    "traces",
    "training",
    "use_style",
    "weights",
]
