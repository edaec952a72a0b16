"""The error of the solver's steps: its size in a response, and whether the steps are fine enough."""

import math
from collections.abc import Callable

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from oscsim.core.arrays import is_traced
from oscsim.core.errors import BadValue
from oscsim.dynamics.system import System
from oscsim.equilibrium.modes import fastest_rate
from oscsim.networks.base import Layers, fastest_neuron
from oscsim.networks.inputs import Inputs

Number = Array | complex | float


def _stages(matrix: np.ndarray, z: Number, right: np.ndarray) -> list[Number]:
    """The solution of $(1 - zA) k = r$ for a matrix of an explicit method, stage by stage."""
    stages: list[Number] = []
    for row, value in zip(matrix, right, strict=True):
        stages.append(value + z * _weighted(row[: len(stages)], stages))
    return stages


def _weighted(weights: np.ndarray, values: list[Number]) -> Number:
    return sum((float(w) * v for w, v in zip(weights, values, strict=True) if w), 0.0)


def step_error(system: System, lag: Float[Array, ""]) -> Float[Array, ""]:
    r"""The relative error that the solver's steps leave in the response.

    Of equal steps: exact for one mode whose time constant is the measured lag, $|g_q| / (|g| \omega)$. An explicit
    Runge-Kutta method with tableau $(A, b, c)$ and $z = -h / \tau$ answers $e^{i\omega t}$ with $\frac{h}{\tau}
    b^\top (1 - zA)^{-1} e^{i\omega h c} / (e^{i\omega h} - 1 - z b^\top (1 - zA)^{-1} 1)$ in place of
    $1 / (1 + i\omega\tau)$. Of adaptive steps: the controller's relative tolerance.
    """
    plan, dtype = system.plan, system.network.dtype
    if plan.steps_per_cycle is None:
        controller = plan.steps.controller
        known = isinstance(controller, diffrax.PIDController)
        return jnp.asarray(controller.rtol if known else jnp.nan, dtype)
    tableau = tableau_of(plan.solver)
    if tableau is None:
        return jnp.asarray(jnp.nan, dtype)
    matrix, weights, nodes = tableau
    turn = 2 * math.pi / plan.steps_per_cycle
    # Of higher orders fast modes have the larger error: a mode is taken to be no faster than one step.
    least = 1e-3 * turn if len(nodes) == 1 else turn
    x = jnp.maximum(jnp.nan_to_num(lag), least).astype(dtype)  # omega tau
    z = -turn / x
    driven, kept = _stages(matrix, z, np.exp(1j * turn * nodes)), _stages(matrix, z, np.ones(len(nodes)))
    answer = -z * _weighted(weights, driven) / (complex(np.exp(1j * turn)) - 1 - z * _weighted(weights, kept))
    exact = 1 / (1 + 1j * x)
    return (jnp.abs(answer.real - exact.real) / exact.real).astype(dtype)


GROWS = 1.05
"""A mode that a step multiplies by more than this is taken to be unstable."""

SHORT_STEP = 0.6
"""Steps up to so many of the fastest neuron's time constants are not looked at: couplings make few modes that fast."""


def check_steps(system: System, inputs: Callable[[], Inputs], mean: Layers) -> None:
    """Refuse equal steps that the network's fastest mode, at these mean activities, would make unstable.

    The couplings can make it faster than every neuron alone. A solver that has become unstable may still lock, around
    an orbit that the neurons do not have.

    Raises:
        ValueError: the steps are too long; names how many it takes.
    """
    network, plan, period = system.network, system.plan, system.teaching.period
    tableau = tableau_of(plan.solver)
    per_cycle = plan.steps_per_cycle
    if tableau is None or per_cycle is None or is_traced(network, mean, period):
        return
    period = float(period)
    if period / per_cycle <= SHORT_STEP * fastest_neuron(network.time_constants):
        return
    rate = float(fastest_rate(network, inputs(), mean))
    matrix, weights, _ = tableau
    ones = np.ones(len(weights))

    def grows(steps):
        z = -rate * period / steps
        return abs(1 + z * _weighted(weights, _stages(matrix, z, ones))) > GROWS

    if not math.isfinite(rate) or not grows(per_cycle):
        return
    needed = per_cycle
    while grows(needed):
        needed += plan.ticks
    raise BadValue(
        f"steps_per_cycle={per_cycle} makes steps of {period / per_cycle:.3g}, and the fastest "
        f"mode of this network decays within {1 / rate:.3g}: {type(plan.solver).__name__} is unstable there; use "
        f"{needed} or more"
    )


def tableau_of(solver: diffrax.AbstractSolver) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """The Butcher tableau of an explicit solver: its matrix, weights and nodes; None where it has no such form."""
    if isinstance(solver, diffrax.Euler):
        return np.zeros((1, 1)), np.ones(1), np.zeros(1)
    tableau = solver.tableau if isinstance(solver, diffrax.AbstractRungeKutta) else None
    if not isinstance(tableau, diffrax.ButcherTableau):
        return None
    count = len(tableau.b_sol)
    matrix = np.zeros((count, count))
    for row, entries in enumerate(tableau.a_lower, start=1):
        matrix[row, : len(entries)] = entries
    return matrix, np.asarray(tableau.b_sol), np.concatenate([[0.0], tableau.c])
