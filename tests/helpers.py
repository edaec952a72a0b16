"""What many test files use: a toy network with a batch, and the order at which an error falls."""

import jax
import jax.numpy as jnp
import numpy as np

import oscsim as osc


def toy(batch=3, **kwargs):
    """The paper's 6-4-4-4 network, with inputs at random and a target for each."""
    net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5, **kwargs)
    return net, jax.random.uniform(jax.random.key(3), (batch, 6)), jnp.array([0, 2, 3, 1])[jnp.arange(batch) % 4]


def order(errors, scales):
    """The slope of log error against log scale."""
    return np.polyfit(np.log(scales), np.log([float(e) for e in errors]), 1)[0]
