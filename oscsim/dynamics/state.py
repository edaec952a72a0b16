"""`State`: where a simulation stands between two cycles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PyTree

from oscsim.core.arrays import complex_of, describe, promoting, to_complex
from oscsim.core.checks import as_key, checked, instance
from oscsim.core.errors import BadValue, DivergenceError, MaxStepsError
from oscsim.dynamics.gradient import Reading
from oscsim.dynamics.system import SYSTEM, System
from oscsim.equilibrium.states import check_start
from oscsim.networks.base import Layers, as_potentials
from oscsim.networks.inputs import INPUTS, Inputs
from oscsim.signals.noise import AbstractNoise, noise_key
from oscsim.signals.teaching import AbstractTeaching, Tuning


class State(eqx.Module):
    """Where a simulation stands, between two cycles; made by `begin`, moved on by `advance`.

    Attributes:
        potentials: complex $u$, one (batch, neurons) array per layer.
        cycle: how many cycles were run.
        demodulator: the demodulator's own state.
        reading: what was last read.
        diverged: whether the neurons ran away, or the solver gave up; the potentials are then the last finite ones, the
            reading is nan.
        exhausted: whether it was that the solver ran out of steps: see `MaxStepsError`.
        noise: the state of each noise, or None.
        tuning: the amplitudes of an `Adaptive` signal, or None.

    Example:
        >>> int(run.state.cycle), [u.shape for u in run.state.potentials]
        (3, [(3, 5)])
    """

    potentials: Layers
    cycle: Int[Array, ""]
    demodulator: PyTree
    reading: Reading
    diverged: Bool[Array, ""]
    exhausted: Bool[Array, ""]
    noise: PyTree = None
    tuning: Tuning | None = None

    def drive(self, teaching: AbstractTeaching) -> AbstractTeaching:
        """The signal of the present cycle: at each sample's own amplitude where that tunes itself."""
        return teaching if self.tuning is None else teaching.at(self.tuning.amplitude)


@promoting
@checked(system=SYSTEM, inputs=INPUTS, key=as_key, start=as_potentials)
def begin(system: System, inputs: Inputs, *, key: Key[Array, ""] | None = None, start: Layers | None = None) -> State:
    """The state before the first cycle: the neurons at rest, or at the potentials `start`.

    Where there is noise it needs its key here too, for states of its own.

    Raises:
        ValueError: noise without a key.

    Example:
        >>> system, inputs = osc.System.of(net, osc.Rotating(0.2, 100.0)), osc.Inputs.of(net, x, y)
        >>> state = osc.begin(system, inputs)
        >>> int(state.cycle), [u.shape for u in state.potentials]
        (0, [(3, 5)])
    """
    net, teaching, plan = system.network, system.teaching, system.plan
    if start is not None:
        check_start(net, inputs, start)
    u = to_complex(net.rest(inputs.x.shape[0]) if start is None else start)
    tuning = teaching.begin(inputs.x.shape[0], net.dtype)
    demodulator = _first_reader(system, u, tuning)
    return State(
        potentials=u,
        cycle=jnp.zeros((), jnp.int32),
        demodulator=demodulator,
        reading=jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(plan.demodulator.read, demodulator)),
        diverged=jnp.zeros((), bool),
        exhausted=jnp.zeros((), bool),
        noise=begin_noise(system.noises, key, u),
        tuning=tuning,
    )


STATE = instance(State, "use what begin(system, inputs) gives, or the cycle before")
"""The kind of arguments that are states."""


def require_fitting(system: System, state: State, inputs: Inputs) -> None:
    """Refuse a state of another network or batch than that of the system and its inputs: by its shapes alone.

    Raises:
        ValueError: one that does not fit.
    """
    batch, given = inputs.x.shape[0], [u.shape for u in state.potentials]
    expected = [(batch, *shape) for shape in system.network.shapes]
    if given != expected:
        raise BadValue(f"state has potentials of shape {given}, not {expected}: use begin(system, inputs)")


def _first_reader(system: System, u: Layers, tuning: Tuning | None) -> PyTree:
    """The demodulator's state before it has seen anything."""
    net, plan = system.network, system.plan
    shape = () if tuning is None else tuning.amplitude.shape
    return plan.demodulator.init(net.activities(u), jnp.zeros(shape, complex_of(net.dtype)), plan.ticks)


def read_anew(system: System, state: State) -> State:
    """The same neurons, noise and time, with a demodulator that has seen nothing of the past."""
    return eqx.tree_at(lambda s: s.demodulator, state, _first_reader(system, state.potentials, state.tuning))


def begin_noise(noises: tuple[AbstractNoise, ...], key: Key[Array, ""] | None, u: Layers) -> PyTree:
    """The state of each noise at the start, drawn from its stationary distribution."""
    if not noises:
        return None
    key = noise_key(key)
    start = jax.random.fold_in(key, np.uint32(2**32 - 1))  # no cycle has this index
    return tuple(noise.init(jax.random.fold_in(start, place), u) for place, noise in enumerate(noises))


begin_compiled = eqx.filter_jit(begin)
"""`begin`, compiled."""


def failure(system: System, state: State) -> DivergenceError | MaxStepsError:
    """The error that a cycle ended in."""
    if bool(state.exhausted):
        most, ticks = system.plan.steps.most(system.plan.ticks), system.plan.ticks
        return MaxStepsError(
            f"the solver reached max_steps={most} within one of the {ticks} ticks of cycle {int(state.cycle)}, under "
            f"{describe(system.teaching)}; the neurons did not run away, but the signal is slow, or some neurons fast, "
            f"for so few steps: use Integration(max_steps={8 * most}), or more ticks, ticks={8 * ticks}, which share "
            "the steps, or another solver or tolerance"
        )
    return DivergenceError(divergence(system.teaching, state))


def divergence(teaching: AbstractTeaching, state: State) -> str:
    """What to say of neurons that ran away: the cycle, the layer, the signal, and what to change."""
    peaks = [float(jnp.max(jnp.abs(layer))) for layer in state.potentials]
    layer = int(np.argmax(peaks))
    return (
        f"the neurons diverged in cycle {int(state.cycle)}: layer {layer + 1} of {len(peaks)}, last seen at |u| = "
        f"{peaks[layer]:.3g}, under {describe(teaching)}; lower the amplitude (it may be past the convergence radius: "
        "see suggest), or take smaller steps"
    )
