"""What the compiler makes by default, as for users: the other tests compile without optimisation."""

import os
import subprocess
import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oscsim as osc

ROOT = Path(__file__).resolve().parents[1]


def many_networks_in_one_batch_are_read_out_like_each_alone():
    """A canary for the compiler: jaxlib 0.10.2 computes this wrong on CPUs, from the tenth network on."""
    nets = [osc.LayeredNetwork((4, 6, 10), key=jax.random.key(seed)) for seed in range(12)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *nets)
    x, s = jnp.full((300, 4), 0.5), (jnp.linspace(0, 1, 1800).reshape(300, 6),)

    def scores(net):
        return net.readout(jax.vmap(net.clamp)(x), s)

    together = jax.jit(jax.vmap(scores))(stacked)
    alone = jax.jit(scores)
    for i, net in enumerate(nets):
        np.testing.assert_allclose(together[i], alone(net), atol=1e-5)


def a_run_in_float32_is_exact_and_reading_the_image_changes_nothing():
    net = osc.LayeredNetwork((5, 6, 3), key=jax.random.key(0))
    x, y = jax.random.uniform(jax.random.key(1), (4, 5)), jnp.array([0, 1, 2, 1])
    steps = osc.Integration(diffrax.Heun(), steps_per_cycle=256, ticks=64)
    plain, imaged = (
        osc.simulate(
            net, x, y, osc.Rotating(0.2, 200.0), cycles=3, integration=steps, demodulator=osc.Boxcar(harmonics)
        )
        for harmonics in ((0, 1), (-1, 0, 1))
    )
    for n in (0, 1):
        assert eqx.tree_equal(plain.phasors[n], imaged.phasors[n])
    assert imaged.phasors[1][0].dtype == np.complex64
    assert osc.relative_error(imaged.gradient(), osc.exact_gradient(net, x, y)) < 0.01


@pytest.mark.slow
def test_in_a_process_of_its_own():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-W", "error", __file__], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["canary", "run"]


if __name__ == "__main__":
    many_networks_in_one_batch_are_read_out_like_each_alone()
    print("canary")
    a_run_in_float32_is_exact_and_reading_the_image_changes_nothing()
    print("run")
