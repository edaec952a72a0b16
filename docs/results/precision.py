"""How close gradients with products of bfloat16 numbers come to those in float32, layer by layer.

python docs/results/precision.py --width 0.125 --batch 16
"""

import argparse
import time

import jax
import numpy as np

import oscsim as osc
from oscsim.networks.products import PRODUCTS


def measure(estimator, net, x, y, repeats):
    """The gradient, and the best time of an estimate in milliseconds."""
    found = jax.block_until_ready(estimator(net, x, y))  # compiles
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(estimator(net, x, y))
        times.append(time.perf_counter() - began)
    return found.gradient, 1000 * min(times)


def cosines(gradient, other):
    """The cosine of each layer's weights."""
    found = osc.per_layer(osc.cosine, gradient, other)
    return "  ".join(f"{float(value):.5f}" for name, value in found.items() if name.startswith("weights"))


def report(title, estimator, build, x, y, repeats, exact=None):
    """One row per way to multiply, the network's own type first."""
    print(f"\n{title}", flush=True)
    reference = None
    for products in (None, *PRODUCTS):
        try:
            gradient, ms = measure(estimator, build(products), x, y, repeats)
        except osc.NotSettledError as error:
            print(f"{products}: {error}", flush=True)
            continue
        reference = gradient if products is None else reference
        to_exact = "" if exact is None else f" | {cosines(gradient, exact)}"
        print(f"{products or 'float32':10s} | {cosines(gradient, reference)}{to_exact} | {ms:.0f}", flush=True)


def main():
    """Print one table per amplitude and tolerance, and one for backpropagation through the feed-forward twin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--amplitudes", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--tolerances", type=float, nargs="+", default=[1e-4])
    parser.add_argument("--scale", type=float, default=1.0, help="what the initial weights are multiplied by")
    parser.add_argument("--repeats", type=int, default=3)
    settings = parser.parse_args()
    x = jax.random.normal(jax.random.key(1), (settings.batch, 32, 32, 3))
    y = np.arange(settings.batch) % 10

    def build(products, model=osc.models.vgg4):
        net = model(10, settings.width, products=products, key=jax.random.key(0))
        return jax.tree.map(lambda a: a * settings.scale if a.ndim > 1 else a, net)

    exact = osc.exact_gradient(build(None), x, y)
    print("products | cosine to float32, first layer to readout | cosine to the exact gradient | ms per gradient")
    for amplitude in settings.amplitudes:
        for tolerance in settings.tolerances:
            title = f"Phases({amplitude:g}, 2, tolerance={tolerance:g})"
            estimator = osc.Phases(amplitude, 2, tolerance=tolerance)
            report(title, estimator, build, x, y, settings.repeats, exact)

    def feed_forward(products):
        return build(products, osc.models.vgg4_feedforward)

    report("Backpropagation(), feed-forward", osc.Backpropagation(), feed_forward, x, y, settings.repeats)


if __name__ == "__main__":
    main()
