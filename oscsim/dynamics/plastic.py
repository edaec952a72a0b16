"""Integration of neurons and synapses together over one cycle: the weights are part of the equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, PyTree

from oscsim.core.arrays import promoting
from oscsim.core.checks import as_scalar, checked
from oscsim.dynamics.cycle import run
from oscsim.dynamics.equation import AbstractSmooth, Arguments, Time, bounded, packed_of, unpacked, velocity
from oscsim.dynamics.gradient import Reading
from oscsim.dynamics.integration import Plan
from oscsim.dynamics.state import STATE, State, require_fitting
from oscsim.dynamics.system import SYSTEM, System
from oscsim.networks.base import AbstractNetwork, Layers
from oscsim.networks.inputs import INPUTS, Inputs
from oscsim.networks.learned import Gradient, parameters, require_steady
from oscsim.signals.teaching import fourier_coefficient


@promoting
@checked(system=SYSTEM, state=STATE, inputs=INPUTS, rate=as_scalar)
def advance_plastic(system: System, state: State, inputs: Inputs, rate: ArrayLike) -> tuple[State, Gradient, Reading]:
    r"""Integrate one cycle of neurons and synapses together: a pure function that works under jit, vmap and grad.

    $\tau \dot u = -u + \frac{\partial\Phi}{\partial s}$ and $\dot\theta = \eta\, \mathrm{Re}\big[e^{-i\omega t}
    \frac{\partial\Phi}{\partial\theta}(t) / a_1\big]$, the mean over the batch, with $a_1$ the teaching signal's own
    first Fourier coefficient. What is integrated is $(\theta - \theta_0) / (\eta \tau)$ with the fastest $\tau$, which
    has no unit of time, so that a slow rate loses no digits. Where the force has no potential, $\Psi(s(t), \bar s)$
    stands for $\Phi$: what is heard is held at the mean that was read in the cycle before, or at the activities that
    the cycle begins with where nothing was read yet.

    Args:
        system: the neurons, with the weights $\theta_0$ that the cycle starts from, their signal, how they are
            integrated and read.
        state: from `begin`, or from the cycle before.
        inputs: `Inputs.of(net, x, y)`; the clamped part is computed anew as the weights move.
        rate: $\eta$, in units of weight per gradient and time.

    Returns:
        The state after the cycle; how far the parameters moved, a pytree like `parameters(net)` for
        `eqx.apply_updates(net, moved)`; and the reading, which serves whoever watches: no synapse sees it. Where
        `state.diverged`, potentials and parameters are the last finite ones; nothing is raised here.

    Source: Laborieux & Zenke (2022), section 4, with the demodulation left to the slowness of the weights.

    Example:
        >>> state, moved, reading = osc.advance_plastic(run.system, run.state, run.inputs, rate=1e-4)
        >>> moved.weights[0].shape, int(state.cycle)
        ((5, 6), 4)
    """
    require_fitting(system, state, inputs)
    net = system.network
    require_steady(net, "its weights move in every step")
    tau = jnp.min(jnp.stack([jnp.min(tau) for tau in net.time_constants]))
    rate = jnp.asarray(rate, net.dtype) * tau
    first = fourier_coefficient(system.teaching, 1, net.dtype)
    reference = (1 / first).real, (1 / first).imag  # real: the solver sees no complex number
    heard = None if net.symmetric else _heard(state, net, system.plan.demodulator.warm_up)
    start = jax.tree.map(jnp.zeros_like, parameters(net))
    equation = PlasticNeurons(system.plan, rate, tau, reference, heard)
    after, cycle, (_, moved) = run(equation, (state.potentials, start), system, state, inputs)
    return after, jax.tree.map(lambda a: rate * a, moved), cycle.reading


PlasticPacked = tuple[Layers, Layers, Gradient]
"""Real parts, imaginary parts, and $(\\theta - \\theta_0) / (\\eta \\tau)$."""


class PlasticNeurons(AbstractSmooth[tuple[Layers, PyTree]]):
    r"""The neurons, and $(\theta - \theta_0) / (\eta \tau)$ with them: it moves both.

    Attributes:
        plan: how it is integrated.
        rate: $\eta \tau$.
        tau: $\tau$, the fastest time constant: the unit of time.
        reference: real and imaginary part of $1 / a_1$.
        heard: what the neurons hear on average, where the force has no potential.
    """

    plan: Plan
    rate: Array
    tau: Array
    reference: tuple[Array, Array]
    heard: Layers | None

    def velocity(
        self, t: Time, packed: tuple[Layers, Layers, PyTree], args: Arguments
    ) -> tuple[Layers, Layers, PyTree]:
        r"""$\dot u$ as in `velocity`, and $\dot\theta / (\eta \tau)$: a synapse turns its product back, and follows."""
        real, imag, change = packed
        net, x = _moved(args.network, change, self.rate), args.shown(t).x
        now = args._replace(network=net, inputs=Inputs(x, args.inputs.y, net.clamped(x)))
        turn = jnp.asarray((args.start + t) / args.teaching.period, net.dtype)
        turned_back = lax.complex(*self.reference) * jnp.exp(-2j * jnp.pi * turn)
        s = net.activities(unpacked((real, imag)))
        descent = net.plasticity(x, s, args.inputs.y, now.signal(t), turned_back, self.heard)
        return *velocity(t, (real, imag), now), jax.tree.map(lambda a: a / self.tau, descent)

    def packed(self, moved: tuple[Layers, PyTree]) -> PlasticPacked:
        u, change = moved
        return *packed_of(u), change

    def unpacked(self, packed: PlasticPacked) -> tuple[Layers, PyTree]:
        real, imag, change = packed
        return unpacked((real, imag)), change

    def in_range(self, moved: tuple[Layers, PyTree], args: Arguments) -> Bool[Array, ""]:
        u, change = moved
        weights = tuple(jax.tree.leaves(parameters(_moved(args.network, change, self.rate))))
        return bounded(u) & bounded(weights)

    def potentials(self, moved: tuple[Layers, PyTree]) -> Layers:
        return moved[0]


def _heard(state: State, net: AbstractNetwork, warm_up: int) -> Layers:
    """What the neurons hear on average, as real activities: the free equilibrium, where nothing turns."""
    begun = net.activities(state.potentials)
    return tuple(
        jnp.where(state.cycle > warm_up, mean.real, now.real)
        for mean, now in zip(state.reading.mean, begun, strict=True)
    )


def _moved(net: AbstractNetwork, moved: Gradient, rate: Array) -> AbstractNetwork:
    r"""The network at $\theta_0 +$ `rate` times `moved`."""
    return eqx.apply_updates(net, jax.tree.map(lambda a: rate * a, moved))
