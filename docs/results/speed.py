"""How fast vgg4 learns, by the way its products are computed: images per second, and seconds for an epoch of 50,000.

python docs/results/speed.py                                                 # full width, batches of 128: a GPU
python docs/results/speed.py --width 0.25 --batch 32 --products float32      # a CPU
"""

import argparse

import jax
import numpy as np
import optax

import oscsim as osc

WAYS = {
    "float32": ("highest", None),
    "TF32": ("tensorfloat32", None),
    "bfloat16x3": ("highest", "bfloat16x3"),
    "bfloat16": ("highest", "bfloat16"),
}
"""What jax makes of float32 products (a CPU ignores it), and the network's `products`."""

RATES = (0.25, 0.15, 0.1, 0.08, 0.05)
"""The authors' learning rates, for batches of 128."""


def speed(build, estimator, products, settings):
    """Images per second of training, without compilation: the best of three short epochs on random images."""
    net = build(10, settings.width, products=products, key=jax.random.key(0))
    samples = settings.batch * settings.updates
    x = np.random.default_rng(0).normal(size=(samples, 32, 32, 3)).astype(np.float32)
    rates = [rate * settings.batch / 128 for rate in RATES]
    optimizer = osc.layerwise(net, rates, lambda rate: optax.sgd(rate, 0.9))
    found = osc.train(
        net,
        (x, np.arange(samples) % 10),
        estimator,
        optimizer,
        epochs=4,
        key=jax.random.key(1),
        batch_size=settings.batch,
        monitor=osc.Monitor(probe=0),
    )
    return max(row["samples_per_second"] for row in found.history[1:])


def main():
    """Print one row per estimator and way to compute products."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--products", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--updates", type=int, default=10, help="per epoch")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    settings = parser.parse_args()
    phases = osc.Phases(1.0, 2, tolerance=settings.tolerance)
    kind = jax.devices()[0].device_kind
    print(f"{jax.device_count()} x {kind}, width {settings.width:g}, batches of {settings.batch}")
    for estimator, build in (
        (phases, osc.models.vgg4),
        (osc.Backpropagation(), osc.models.vgg4_feedforward),
    ):
        for name in settings.products:
            precision, products = WAYS[name]
            with jax.default_matmul_precision(precision):
                rate = speed(build, estimator, products, settings)
            print(f"{type(estimator).__name__:15s} {name:10s} {rate:8.1f} images/s {50_000 / rate:8.1f} s", flush=True)


if __name__ == "__main__":
    main()
