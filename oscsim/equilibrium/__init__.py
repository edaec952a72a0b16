"""Settled states and exact gradients: the references that every estimate is compared with.

Accelerated sweeps find a state without time stepping. Where they fail, the neurons are followed in time.
"""

from oscsim.equilibrium.acceleration import PATIENCE, anderson
from oscsim.equilibrium.corrected import CorrectedNetwork, MeasuredCorrection
from oscsim.equilibrium.exact_gradients import exact_gradient, exact_solution, implicit_gradient
from oscsim.equilibrium.linear import free_state
from oscsim.equilibrium.metrics import errors_of, per_layer, relative_error
from oscsim.equilibrium.settling import Sweeps, free_equilibrium, settle, settle_inputs, settled_start, state_at
from oscsim.equilibrium.stable_states import Equilibria, States, equilibria
from oscsim.equilibrium.states import Equilibrium, default_tolerance, is_settled, require_settled
from oscsim.equilibrium.vectors import as_layers, flat, flat_force, flat_time_constants, is_dense

__all__ = [
    "PATIENCE",
    "CorrectedNetwork",
    "Equilibria",
    "Equilibrium",
    "MeasuredCorrection",
    "States",
    "Sweeps",
    "anderson",
    "as_layers",
    "default_tolerance",
    "equilibria",
    "errors_of",
    "exact_gradient",
    "exact_solution",
    "flat",
    "flat_force",
    "flat_time_constants",
    "free_equilibrium",
    "free_state",
    "implicit_gradient",
    "is_dense",
    "is_settled",
    "per_layer",
    "relative_error",
    "require_settled",
    "settle",
    "settle_inputs",
    "settled_start",
    "state_at",
]
