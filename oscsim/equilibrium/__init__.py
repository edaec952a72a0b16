"""Settled states and exact gradients: the references that every estimate is compared with.

Accelerated sweeps find a state without time stepping. Where they fail, the neurons are followed in time.
"""

from oscsim.equilibrium.acceleration import PATIENCE, anderson
from oscsim.equilibrium.exact_gradients import exact_gradient, exact_solution, implicit_gradient
from oscsim.equilibrium.settling import Sweeps, free_equilibrium, settle, settle_inputs, state_at
from oscsim.equilibrium.stable_states import Equilibria, States, equilibria
from oscsim.equilibrium.states import Equilibrium, default_tolerance, is_settled, require_settled

__all__ = [
    "PATIENCE",
    "Equilibria",
    "Equilibrium",
    "States",
    "Sweeps",
    "anderson",
    "default_tolerance",
    "equilibria",
    "exact_gradient",
    "exact_solution",
    "free_equilibrium",
    "implicit_gradient",
    "is_settled",
    "require_settled",
    "settle",
    "settle_inputs",
    "state_at",
]
