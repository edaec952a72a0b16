"""The slowest and the fastest mode of a network at rest."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from oscsim.core.arrays import per_sample, ratio, sample_norm
from oscsim.equilibrium.linear import held_potentials
from oscsim.networks.base import AbstractNetwork, Layers, slowest_neuron
from oscsim.networks.inputs import Inputs

SLOWEST_PRODUCTS = 300
"""Products with the Jacobian of each of the two passes that find the slowest mode."""

FASTEST_PRODUCTS = 200
"""Products with the Jacobian that find the fastest mode; the mean is over the last half of them."""


def slowest_time(net: AbstractNetwork, inputs: Inputs, u: Layers) -> float:
    """The time constant of the network's slowest mode at the free equilibrium `u`, over all samples."""
    gain = float(jnp.max(_slowest_gain(net, inputs, u)))
    return slowest_neuron(net.following) / max(1 - gain, 1e-3)


@eqx.filter_jit
def _slowest_gain(net: AbstractNetwork, inputs: Inputs, u: Layers) -> Array:
    """The rightmost eigenvalue of the Jacobian of the force in the potentials, per sample, by power iteration.

    A first pass finds the largest in size; shifted by that, the rightmost one is the largest in size. Eigenvalues are
    real where the slope of the activation is positive.
    """

    def force(u):
        return net.force(inputs.clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))

    def normalised(v):
        length = sample_norm(v)
        return tuple(ratio(a, per_sample(length, a)) for a in v)

    def largest(shift):
        """The size of the largest eigenvalue of the Jacobian plus `shift`."""

        def iterate(_, carry):
            v, _ = carry
            new = jax.jvp(force, (u,), (v,))[1]
            new = tuple(a + per_sample(shift, b) * b for a, b in zip(new, v, strict=True))
            return normalised(new), sample_norm(new)

        keys = jax.random.split(jax.random.key(0), len(u))
        start = normalised(tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, u, strict=True)))
        return lax.fori_loop(0, SLOWEST_PRODUCTS, iterate, (start, jnp.zeros(len(u[0]), net.dtype)))[1]

    shift = largest(jnp.zeros(len(u[0]), net.dtype))
    return largest(shift) - shift


@eqx.filter_jit
def fastest_rate(net: AbstractNetwork, inputs: Inputs, mean: Layers) -> Array:
    r"""The largest $|\lambda|$ of $(1 - \partial F/\partial u) / \tau$ at these mean activities, over all samples.

    By power iteration: the decay rate of the fastest mode, which is what equal steps have to resolve.
    """
    u = held_potentials(net, inputs, mean)

    def velocity(u):
        force = net.force(inputs.clamped, net.activities(u), inputs.y, jnp.zeros((), net.dtype))
        return tuple((a - f) / tau for a, f, tau in zip(u, force, net.time_constants, strict=True))

    def iterate(number, carry):
        v, growth = carry
        new = jax.jvp(velocity, (u,), (v,))[1]
        length = jnp.maximum(sample_norm(new), jnp.finfo(net.dtype).tiny)
        new = tuple(a / per_sample(length, a) for a in new)
        # the mean over the last half: one product alone can be longer, as the Jacobian is not symmetric
        return new, growth + jnp.where(number >= FASTEST_PRODUCTS // 2, jnp.log(length), 0)

    keys = jax.random.split(jax.random.key(0), len(u))
    start = tuple(jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, u, strict=True))
    _, growth = lax.fori_loop(0, FASTEST_PRODUCTS, iterate, (start, jnp.zeros(len(u[0]), net.dtype)))
    return jnp.max(jnp.exp(growth / (FASTEST_PRODUCTS - FASTEST_PRODUCTS // 2)))
