"""Floquet multipliers: whether neurons that something moved return to their periodic orbit."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex

from oscsim.core.arrays import to_complex
from oscsim.core.errors import DivergenceError
from oscsim.dynamics.cycle import advance
from oscsim.dynamics.integration import DEFAULT_TICKS, Integration, Plan
from oscsim.dynamics.state import begin, divergence
from oscsim.dynamics.system import System
from oscsim.equilibrium.modes import fastest_rate
from oscsim.equilibrium.vectors import as_layers
from oscsim.networks.base import Layers
from oscsim.networks.inputs import Inputs

if TYPE_CHECKING:
    from oscsim.dynamics.orbit import PeriodicOrbit

FINE = 4
"""Steps in the time constant of the network's fastest mode: `Dopri8` follows it to 1e-9 then."""

TOGETHER = 64
"""How many neurons' displacements are integrated at once, so that memory does not grow with their number squared."""


def multipliers(orbit: "PeriodicOrbit", integration: Integration | None) -> Complex[np.ndarray, "batch neurons"]:
    """The eigenvalues of each sample's monodromy matrix, the largest first: see `PeriodicOrbit.multipliers`."""
    net, inputs, start = orbit.network, orbit.inputs, orbit.potentials_at(0.0)
    if integration is None:
        fastest = float(fastest_rate(net, inputs, orbit.phasors[0]))
        per_tick = math.ceil(FINE * fastest * float(orbit.teaching.period) / DEFAULT_TICKS)
        integration = Integration(diffrax.Dopri8(), steps_per_cycle=DEFAULT_TICKS * per_tick)
    plan = Plan.of(replace(integration, adjoint=diffrax.ForwardMode()), None, net, orbit.teaching, ())
    system = System(net, orbit.teaching, (), plan)
    matrices, diverged = _monodromy(system, inputs, start)
    if bool(diverged):
        raise DivergenceError(divergence(orbit.teaching, begin(system, inputs, start=start)))
    found = np.linalg.eigvals(np.asarray(matrices))
    return np.take_along_axis(found, np.argsort(-np.abs(found), axis=1), axis=1).astype(matrices.dtype)


@eqx.filter_jit
def _monodromy(system: System, inputs: Inputs, start: Layers) -> tuple[Complex[Array, "batch to from"], Array]:
    r"""$\partial u(T) / \partial u(0)$ of each sample, and whether the cycle diverged.

    Samples do not hear each other: a displacement of one neuron is followed in all of them at once.
    """
    first = begin(system, inputs, start=start)

    def after(u: Layers) -> Layers:
        return advance(system, eqx.tree_at(lambda s: s.potentials, first, u), inputs)[0].potentials

    size = sum(math.prod(shape) for shape in system.network.shapes)
    u = to_complex(start)

    def moved(neuron):
        one = jnp.zeros((len(u[0]), size), u[0].dtype).at[:, neuron].set(1)
        pushed = jax.jvp(after, (u,), (as_layers(system.network, one),))[1]
        return jnp.concatenate([a.reshape(len(a), -1) for a in pushed], axis=1)

    columns = lax.map(moved, jnp.arange(size), batch_size=TOGETHER)
    return jnp.moveaxis(columns, 0, 2), advance(system, first, inputs)[0].diverged
