r"""How a cycle is integrated, what is read in it, and many cycles. diffrax integrates here and nowhere else.

The cycle is the unit of time: one period is integrated from $t = 0$ to $T$, and cycles are counted by an integer. The
tick is the unit of reading: between two ticks diffrax integrates with any explicit solver and any step control; at
each tick the demodulator is shown the activities. Under noise the same solvers take equal steps, one by one, with the
noise as one more term of the equation.
"""

from oscsim.dynamics.cycle import advance
from oscsim.dynamics.demodulation import AbstractDemodulator, Boxcar, Exponential, Hann, Plateaus
from oscsim.dynamics.ensembles import Ensemble, ensemble
from oscsim.dynamics.error_bars import GradientError
from oscsim.dynamics.plan import Cycle
from oscsim.dynamics.plastic import advance_plastic
from oscsim.dynamics.readings import Phasors, Points
from oscsim.dynamics.run import Run
from oscsim.dynamics.simulation import Mean, PerCycle, simulate
from oscsim.dynamics.state import State, begin

__all__ = [
    "AbstractDemodulator",
    "Boxcar",
    "Cycle",
    "Ensemble",
    "Exponential",
    "GradientError",
    "Hann",
    "Mean",
    "PerCycle",
    "Phasors",
    "Plateaus",
    "Points",
    "Run",
    "State",
    "advance",
    "advance_plastic",
    "begin",
    "ensemble",
    "simulate",
]
