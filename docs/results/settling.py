"""How many sweeps, and how long, a convolutional network takes to settle.

python docs/results/settling.py --width 0.25 --batch 16
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import oscsim as osc
from oscsim.equilibrium import Sweeps

WAYS = {
    "plain steps": Sweeps(memory=0, even_odd=False),
    "even/odd": Sweeps(memory=0),
    "Anderson": Sweeps(even_odd=False),
    "both": "sweeps",
}


def measure(net, x, y, beta, tolerance, start, way):
    """Sweeps, the best of five times in milliseconds, and how far the result is from settled: one plain step."""

    def once():
        began = time.perf_counter()
        found = osc.settle(net, x, y, beta, tolerance=tolerance, start=start, throw=False, method=way)
        jax.block_until_ready(found)
        return time.perf_counter() - began, found

    once()  # compiles
    seconds, found = min((once() for _ in range(5)), key=lambda pair: pair[0])
    moved = net.force(osc.Inputs.of(net, x, y).clamped, found.activities, y, beta)
    residual = max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(moved, found.potentials, strict=True))
    return int(found.steps), 1000 * seconds, residual


def main():
    """Print one row per model, start, signal and way to settle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scale", type=float, default=1.0, help="what the initial weights are multiplied by")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    settings = parser.parse_args()
    x = jax.random.normal(jax.random.key(1), (settings.batch, 32, 32, 3))
    y = np.arange(settings.batch) % 10
    net = osc.models.vgg4(10, settings.width, key=jax.random.key(0))
    net = jax.tree.map(lambda a: a * settings.scale if a.ndim > 1 else a, net)
    free = osc.settle(net, x, y, tolerance=1e-5, max_steps=3000).potentials
    print("start, beta: sweeps, ms, largest change in one more plain step", flush=True)
    for start, beta in ((None, 0.0), (free, 1.0), (free, 1.0j)):
        for name, way in WAYS.items():
            steps, ms, residual = measure(net, x, y, beta, settings.tolerance, start, way)
            place = "rest" if start is None else "free equilibrium"
            print(f"{place}, {beta}: {name}: {steps}, {ms:.0f} ms, {residual:.1e}", flush=True)


if __name__ == "__main__":
    main()
