"""Figs. 4a and b of the paper at a small width: the cosine of estimates to the exact gradient, layer by layer.

    python docs/results/fig4.py --width 0.125 --batch 16 --out fig4.csv

The network is `osc.models.vgg6` at its initial weights, in float32, with 1,000 classes, on random images; temperature,
steps and numbers of points are the authors' (50 free steps, 20 at each point, N = 1, 2, 4; with `--hard` 100, 50, and
N = 1, 2).
"""

import argparse
import csv
from pathlib import Path

import jax
import numpy as np

import oscsim as osc


def estimator(points, amplitude, steps):
    """Classic for one point."""
    return osc.Classic(amplitude, steps=steps) if points == 1 else osc.Phases(amplitude, points, steps=steps)


def layers(estimate, exact):
    """The cosine of each layer, weights and biases together, and of all layers."""
    pairs = zip(estimate.weights, estimate.biases, exact.weights, exact.biases, strict=True)
    found = [float(osc.cosine((a, b), (c, d))) for a, b, c, d in pairs]
    return [*found, float(osc.cosine(estimate, exact))]


def main():
    """Print and write one row per number of points and amplitude."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--amplitudes", type=float, nargs="+", default=[0.01, 0.1, 1.0, 3.0, 10.0, 30.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hard", action="store_true", help="hard tanh and max pooling, which are not holomorphic")
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    key_net, key_x, key_y = jax.random.split(jax.random.key(settings.seed), 3)
    hard = {"pooling": osc.MaxPooling(), "activation": osc.HardTanh(width=2.0)} if settings.hard else {}
    net = osc.models.vgg6(1000, settings.width, key=key_net, **hard)
    x = jax.random.normal(key_x, (settings.batch, *net.input_shape))
    y = np.asarray(jax.random.randint(key_y, (settings.batch,), 0, 1000))
    exact = osc.exact_gradient(net, x, y)
    names = [f"conv_{i}" for i in range(1, 7)] + ["readout", "all"]
    rows = [["points", "amplitude", *names]]
    print(*rows[0], flush=True)
    steps, all_points = ((100, 50), (1, 2)) if settings.hard else ((50, 20), (1, 2, 4))
    for points in all_points:
        for amplitude in settings.amplitudes:
            try:
                found = layers(estimator(points, amplitude, steps)(net, x, y).gradient, exact)
            except osc.DivergenceError:
                found = [float("nan")] * len(names)
            rows.append([points, amplitude, *(f"{value:.5f}" for value in found)])
            print(*rows[-1], flush=True)
    if settings.out:
        with settings.out.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
