"""How many evaluations of the force, and how long, a convolutional network takes to settle.

python docs/results/settling.py --width 0.125 --batch 16
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import oscsim as osc


def measure(net, x, y, beta, memory, tolerance, start):
    """Evaluations, the best of five times in milliseconds, and the largest residual."""

    def once():
        began = time.perf_counter()
        found = osc.settle(net, x, y, beta, memory=memory, tolerance=tolerance, start=start, check=False)
        jax.block_until_ready(found)
        return time.perf_counter() - began, found

    once()  # compiles
    seconds, found = min((once() for _ in range(5)), key=lambda pair: pair[0])
    return int(found.steps), 1000 * seconds, float(jnp.max(found.residual))


def main():
    """Print one row per model, start, signal and way to settle."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scale", type=float, default=1.0, help="what the initial weights are multiplied by")
    parser.add_argument("--models", nargs="+", default=["vgg4"])
    settings = parser.parse_args()
    x = jax.random.normal(jax.random.key(1), (settings.batch, 32, 32, 3))
    y = np.arange(settings.batch) % 10
    print("model, start, beta, tolerance: plain evaluations, ms; Anderson evaluations, ms", flush=True)
    for name in settings.models:
        net = getattr(osc.models, name)(10, settings.width, key=jax.random.key(0))
        net = jax.tree.map(lambda a: a * settings.scale if a.ndim > 1 else a, net)
        free = osc.settle(net, x, y, tolerance=1e-5, max_steps=3000).potentials
        for start, beta in ((None, 0.0), (free, 1.0), (free, 1.0j)):
            for tolerance in (1e-4, 1e-5):
                cells = [measure(net, x, y, beta, memory, tolerance, start) for memory in (0, 5)]
                told = "; ".join(f"{steps}, {ms:.1f}" for steps, ms, _ in cells)
                print(f"{name}, {'rest' if start is None else 'free'}, {beta}, {tolerance:g}: {told}", flush=True)


if __name__ == "__main__":
    main()
