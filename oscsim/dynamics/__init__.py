r"""The dynamics: integration of a cycle, its demodulation, and runs of many cycles. Only here does diffrax integrate.

The cycle is the unit of time: one period is integrated from $t = 0$ to $T$, and cycles are counted by an integer. The
tick is the unit of reading: between two ticks diffrax integrates with any explicit solver and any step control; at
each tick the demodulator is shown the activities. Under noise the same solvers take equal steps, one by one, with the
noise as one more term of the equation.
"""

from oscsim.dynamics.average import Average
from oscsim.dynamics.cycle import Cycle, Watch, Watched, advance
from oscsim.dynamics.cycles import Averaged
from oscsim.dynamics.demodulation import AbstractDemodulator, Boxcar, Exponential, Hann, Plateaus
from oscsim.dynamics.error_bars import gradient_and_error, relative_parts, response_lag
from oscsim.dynamics.gradient import Phasors, Points
from oscsim.dynamics.gradient_error import TOLERANCE, GradientError
from oscsim.dynamics.integration import Integration, Plan, usual_tolerance
from oscsim.dynamics.orbit import PeriodicOrbit, periodic_orbit
from oscsim.dynamics.plastic import advance_plastic
from oscsim.dynamics.record import AbstractRecord, Mean, PerCycle
from oscsim.dynamics.run import Run
from oscsim.dynamics.simulation import simulate
from oscsim.dynamics.state import State, begin, failure, read_anew
from oscsim.dynamics.stopping import AbstractStop, Accuracy, Locked
from oscsim.dynamics.system import System

__all__ = [
    "TOLERANCE",
    "AbstractDemodulator",
    "AbstractRecord",
    "AbstractStop",
    "Accuracy",
    "Average",
    "Averaged",
    "Boxcar",
    "Cycle",
    "Exponential",
    "GradientError",
    "Hann",
    "Integration",
    "Locked",
    "Mean",
    "PerCycle",
    "PeriodicOrbit",
    "Phasors",
    "Plan",
    "Plateaus",
    "Points",
    "Run",
    "State",
    "System",
    "Watch",
    "Watched",
    "advance",
    "advance_plastic",
    "begin",
    "failure",
    "gradient_and_error",
    "periodic_orbit",
    "read_anew",
    "relative_parts",
    "response_lag",
    "simulate",
    "usual_tolerance",
]
