"""Where a simulation stands between two cycles."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact, Int, Key

from oscsim.core.arrays import complex_of, describe, to_complex
from oscsim.dynamics.demodulation import Reading
from oscsim.dynamics.plan import Cycle, Plan, as_plan
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import Inputs
from oscsim.signals.noise import AbstractNoise, as_noises, require_noise_key
from oscsim.signals.teaching import is_adaptive


class State(eqx.Module):
    """Where a simulation stands, between two cycles; made by `begin`, moved on by `advance`.

    Attributes:
        potentials: complex $u$, one (batch, neurons) array per layer.
        cycle: how many cycles were run.
        demodulator: the demodulator's own state.
        reading: what was last read.
        diverged: whether the neurons ran away; the potentials are then the last finite ones, the reading is nan.
        noise: the state of each noise, or None.
        tuning: the amplitudes of an `Adaptive` signal, or None.
    """

    potentials: Layers
    cycle: Int[Array, ""]
    demodulator: Any
    reading: Reading
    diverged: Bool[Array, ""]
    noise: Any = None
    tuning: Any = None

    def drive(self, teaching: Any) -> Any:
        """The signal of the present cycle: at each sample's own amplitude where that tunes itself."""
        return teaching if self.tuning is None else teaching.at(self.tuning.amplitude)


class Watched(eqx.Module):
    """Samples of a few neurons at every tick of a cycle: what the plots draw.

    Attributes:
        activities: one complex (..., ticks, watched neurons) array per layer.
        teaching: the signal at the same ticks, (..., ticks).
    """

    activities: Layers
    teaching: Inexact[Array, "..."]


class Effort(eqx.Module):
    """What a cycle cost the solver: accepted and rejected steps."""

    accepted: Int[Array, "..."]
    rejected: Int[Array, "..."]


def begin(
    net: AbstractNetwork,
    inputs: Inputs,
    teaching: Any,
    *,
    cycle: Cycle | Plan = Cycle(),  # noqa: B008
    potentials: Layers | None = None,
    noise: Any = None,
    key: Key[Array, ""] | None = None,
) -> State:
    """The state before the first cycle: the neurons at rest, or at the `potentials` given.

    Where there is noise it needs its key here too, for states of its own.

    Raises:
        ValueError: settings that do not fit each other; noise without a key.
    """
    plan = as_plan(cycle, teaching, net, noise)
    u = net.rest(inputs.x.shape[0]) if potentials is None else potentials
    u = to_complex(u)
    tuning = teaching.begin(inputs.x.shape[0], net.dtype) if is_adaptive(teaching) else None
    demodulator = _first_reader(net, plan, u, tuning)
    return State(
        potentials=u,
        cycle=jnp.zeros((), jnp.int32),
        demodulator=demodulator,
        reading=jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(plan.demodulator.read, demodulator)),
        diverged=jnp.zeros((), bool),
        noise=begin_noise(as_noises(noise), key, u),
        tuning=tuning,
    )


def _first_reader(net: AbstractNetwork, plan: Plan, u: Layers, tuning: Any) -> Any:
    """The demodulator's state before it has seen anything."""
    shape = () if tuning is None else tuning.amplitude.shape
    return plan.demodulator.init(net.activities(u), jnp.zeros(shape, complex_of(net.dtype)), plan.ticks)


def read_anew(state: State, net: AbstractNetwork, plan: Plan) -> State:
    """The same neurons, noise and time, with a demodulator that has seen nothing of the past."""
    return eqx.tree_at(lambda s: s.demodulator, state, _first_reader(net, plan, state.potentials, state.tuning))


def begin_noise(noises: tuple[AbstractNoise, ...], key: Any, u: Layers) -> Any:
    """The state of each noise at the start, drawn from its stationary distribution."""
    if not noises:
        return None
    require_noise_key(noises, key)
    start = jax.random.fold_in(key, np.uint32(2**32 - 1))  # no cycle has this index
    return tuple(noise.init(jax.random.fold_in(start, place), u) for place, noise in enumerate(noises))


first_state = eqx.filter_jit(begin)
"""`begin`, compiled."""


def divergence(net: AbstractNetwork, teaching: Any, state: State) -> str:
    """What to say of neurons that ran away: the cycle, the layer, the signal, and what to change."""
    peaks = [float(jnp.max(jnp.abs(layer))) for layer in state.potentials]
    layer = int(np.argmax(peaks))
    return (
        f"the neurons diverged in cycle {int(state.cycle)}: layer {layer + 1} of {len(peaks)}, last seen at |u| = "
        f"{peaks[layer]:.3g}, under {describe(teaching)}; lower the amplitude (it may be past the convergence radius: "
        "see suggest), or take smaller steps"
    )
