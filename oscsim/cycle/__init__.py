r"""One cycle: how a period is integrated, tick by tick. diffrax integrates here and nowhere else.

The cycle is the unit of time: one period is integrated from $t = 0$ to $T$, and cycles are counted by an integer. The
tick is the unit of reading: between two ticks diffrax integrates with any explicit solver and any step control; at
each tick the demodulator is shown the activities. Under noise the same solvers take equal steps, one by one, with the
noise as one more term of the equation.
"""

from oscsim.cycle.advance import advance, advance_watching
from oscsim.cycle.plan import Cycle, Plan, as_plan, check_drive
from oscsim.cycle.plastic import advance_plastic
from oscsim.cycle.state import Effort, State, Watched, begin, begin_noise, divergence, first_state, read_anew

__all__ = [
    "Cycle",
    "Effort",
    "Plan",
    "State",
    "Watched",
    "advance",
    "advance_plastic",
    "advance_watching",
    "as_plan",
    "begin",
    "begin_noise",
    "check_drive",
    "divergence",
    "first_state",
    "read_anew",
]
