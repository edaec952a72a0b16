"""What networks without symmetry read and learn: plain, with homeostasis, corrected, beside symmetric ones.

Prints the tables of asymmetry.md, and draws its figure:

    python docs/results/asymmetry.py gradient                       # cosine against angle, and the figure: minutes
    python docs/results/asymmetry.py train                          # digits, three seeds: a quarter of an hour
    python docs/results/asymmetry.py train --data mnist             # 10,000 samples of MNIST, three seeds
    python docs/results/asymmetry.py bars                           # error bars of 240 runs: minutes
    python docs/results/asymmetry.py train --noise 0.04             # digits, read by a lock-in under noise
"""

import argparse
import math
import time
import warnings
from pathlib import Path

import diffrax
import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax

import oscsim as osc
from oscsim.core.arrays import norm
from oscsim.equilibrium.asymmetry import asymmetry_error
from oscsim.plot.style import COLOURS, DASHES, finish, legend

PERIOD = 200.0
STRENGTH = {"digits": 20.0, "mnist": 60.0}
RATE = {"digits": 0.1, "mnist": 0.2}
EPOCHS = {"digits": 30, "mnist": 5}
BATCH = {"digits": 20, "mnist": 50}
SAMPLES = {"digits": None, "mnist": 10_000}
ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)


def network(data, seed):
    sizes = (64, 32, 10) if data == "digits" else (784, 256, 10)
    return osc.LayeredNetwork(sizes, cost=osc.SquaredError(), key=jax.random.key(seed))


def two_ways(net, angle, seed):
    return osc.OwnFeedback(net, angle=angle, key=jax.random.key(seed + 100))


# Cosine against angle.


def gradient(figure):
    """The cosine of what is read to the exact gradient of the same network, at its initial weights."""
    x, y = (a[:20] for a in osc.datasets.load("digits"))
    lock_in = osc.LockIn(
        osc.Rotating(0.1, PERIOD),
        cycles=8,
        start="settled",
        noise=osc.WhiteNoise(0.02),
        integration=osc.Integration(diffrax.Heun(), steps_per_cycle=800),
    )
    rows, rules = [], ("plain", "homeostatic", "corrected")
    for angle in ANGLES:
        found = {rule: {"theory": [], "lock-in": []} for rule in rules}
        for seed in range(5):
            own = two_ways(network("digits", seed), angle, seed)
            for rule, net in zip(rules, (own, pulled(own), osc.CorrectedNetwork(own)), strict=True):
                inputs, free = osc.Inputs.of(net, x, y), osc.settle(net, x, y)
                by_theory = asymmetry_error(net, inputs, free.potentials)
                read = lock_in(net, x, y, jax.random.key(seed), tolerance=math.inf).gradient
                found[rule]["theory"].append(float(osc.cosine(by_theory.read, by_theory.exact)))
                found[rule]["lock-in"].append(float(osc.cosine(read, by_theory.exact)))
        rows.append(found)
        cells = [f"{np.mean(found[r][way]):.3f}" for r in rules for way in ("theory", "lock-in")]
        print(f"| {angle:.0f} | {' | '.join(cells)} |", flush=True)
    draw(rows, rules, figure)


def pulled(own, steps=20, rate=0.05):
    """The network after some steps of homeostasis alone: each closes the gap of the two ways by 10 %."""
    forward, feedback = own.network.weights[1], own.feedback[1]
    for _ in range(steps):
        gap = forward - feedback
        forward, feedback = forward - rate * gap, feedback + rate * gap
    closed = own.network.replace(weights=[None, forward])
    return osc.OwnFeedback(closed, [None, feedback])


def draw(rows, rules, figure):
    osc.plot.use_style()
    fig, ax = plt.subplots(figsize=(4.6, 3.2))
    for colour, dash, rule in zip(COLOURS, DASHES, rules, strict=False):
        theory = np.asarray([row[rule]["theory"] for row in rows])
        read = np.asarray([row[rule]["lock-in"] for row in rows])
        ax.plot(ANGLES, theory.mean(axis=1), color=colour, linestyle=dash, label=rule)
        low, high = read.mean(axis=1) - read.min(axis=1), read.max(axis=1) - read.mean(axis=1)
        ax.errorbar(ANGLES, read.mean(axis=1), [low, high], fmt="o", markersize=3, color=colour, linewidth=1)
    ax.set(xlabel="angle between the two ways at the start (degrees)", ylabel="cosine to the exact gradient")
    ax.set_xticks(ANGLES)
    legend(ax)
    finish(ax)
    fig.savefig(figure)
    plt.close(fig)


# Error bars.


def bars(runs):
    """What runs say of themselves, beside what they are off by: noise and steps, lag, asymmetry."""
    x, y = np.random.default_rng(0).random((3, 6)).astype(np.float32), np.array([0, 1, 2])
    rng, found = np.random.default_rng(1), {"contamination": [], "lag": [], "asymmetry": []}
    steps = osc.Integration(diffrax.Heun(), steps_per_cycle=512)
    for number in range(runs):
        net = osc.LayeredNetwork((6, 5, 4, 3), cost=osc.SquaredError(), key=jax.random.key(number % 12))
        own = osc.OwnFeedback(net, angle=rng.uniform(5, 90), key=jax.random.key(number))
        period, amplitude, sigma = rng.choice([50.0, 100.0]), rng.uniform(0.02, 0.2), rng.choice([0.01, 0.03, 0.1])
        signal, noise = osc.Rotating(amplitude, period), osc.WhiteNoise(sigma)
        run = osc.simulate(
            own, x, y, signal, cycles=6, start="settled", noise=noise, key=jax.random.key(number), integration=steps
        )
        read, error = run.gradient(discard=1, tolerance=math.inf), run.error(discard=1)
        ideal = osc.response.predict_gradient(own, x, y, period)
        slow, exact = osc.response.predict_gradient(own, x, y, 1e6), osc.exact_gradient(own, x, y)
        size = norm(read)
        off = {"contamination": (read, ideal), "lag": (ideal, slow), "asymmetry": (slow, exact)}
        for name, (a, b) in off.items():
            told = float(getattr(error, name))
            found[name].append(told / float(norm(jax.tree.map(jax.numpy.subtract, a, b)) / size))
    print("| part | bar over error: 5 %, median, 95 % | within a factor of 2 | within 0.3 to 4 |\n|---|---|---|---|")
    for name, ratios in found.items():
        low, median, high = np.quantile(ratios, [0.05, 0.5, 0.95])
        ratios = np.asarray(ratios)
        twice, calibrated = np.mean((ratios > 0.5) & (ratios < 2)), np.mean((ratios > 0.3) & (ratios < 4))
        print(f"| {name} | {low:.2f}, {median:.2f}, {high:.2f} | {twice:.1%} | {calibrated:.1%} |")


# Learning.


def estimator(data, noise):
    if not noise:
        return osc.Orbit(PERIOD)
    return osc.LockIn(
        osc.Rotating(0.4, 50.0),
        cycles=2,
        start="settled",
        noise=osc.WhiteNoise(noise),
        integration=osc.Integration(diffrax.Heun(), steps_per_cycle=128),
    )


def rules(data, seed, noise):
    """Each way to learn: its name, the angle at the start, the network, and what reads its gradient."""
    net, read = network(data, seed), estimator(data, noise)
    yield "symmetric", "", net, read
    for angle in (60.0, 90.0):
        own = two_ways(net, angle, seed)
        yield "plain", f"{angle:.0f}", own, read
        yield "homeostatic", f"{angle:.0f}", own, osc.Homeostatic(read, STRENGTH[data])
        yield "corrected", f"{angle:.0f}", osc.CorrectedNetwork(own), read
    if not noise:
        twin = osc.FeedForwardNetwork(net.sizes, activation=osc.Logistic(), cost=net.cost, key=jax.random.key(seed))
        yield "backpropagation", "", twin, osc.Backpropagation()


def train(data, noise, seeds, data_dir, epochs):
    where = {} if data_dir is None else {"data_dir": data_dir}
    x, y = osc.datasets.load(data, **where)
    held_out = osc.datasets.load(data, split="test", **where)
    x, y = x[: SAMPLES[data]], y[: SAMPLES[data]]
    found = {}
    for seed in range(seeds):
        for rule, angle, net, read in rules(data, seed, noise):
            began = time.perf_counter()
            trained = osc.train(
                net,
                (x, y),
                read,
                optax.sgd(RATE[data]),
                epochs=epochs or EPOCHS[data],
                batch_size=BATCH[data],
                key=jax.random.key(seed),
                validation=held_out,
                monitor=osc.Monitor(probe=20, progress=False),
            )
            last = trained.history[-1]
            found.setdefault((rule, angle), []).append(last)
            told = {
                name: last[name]
                for name in ("cosine", "error_bar", "asymmetry_error", "angle/weights[1]")
                if name in last
            }
            seconds = time.perf_counter() - began
            print(f"seed {seed} {rule} {angle}: {last['validation_error']:.2f} %, {told}, {seconds:.0f} s", flush=True)
    print("\n| rule | angle | test error, mean | seeds | asymmetry | error bar | angle at the end |")
    print("|---|---|---|---|---|---|---|")
    for (rule, angle), rows in found.items():
        errors = [row["validation_error"] for row in rows]
        cells = [mean_of(rows, name, form) for name, form in NAMES]
        each = ", ".join(f"{e:.2f}" for e in errors)
        print(f"| {rule} | {angle} | {np.mean(errors):.2f} | {each} | {' | '.join(cells)} |")


NAMES = (("asymmetry_error", ".1g"), ("error_bar", ".2f"), ("angle/weights[1]", ".1f"))


def mean_of(rows, name, form):
    return format(np.mean([row[name] for row in rows]), form) if name in rows[0] else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("gradient", "bars", "train"))
    parser.add_argument("--data", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=240)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's files; downloaded if not given")
    parser.add_argument("--figure", type=Path, default=Path(__file__).parents[1] / "images" / "asymmetry.png")
    given = parser.parse_args()
    warnings.simplefilter("ignore", osc.InexactGradientWarning)  # the tables show it
    if given.what == "gradient":
        gradient(given.figure)
    elif given.what == "bars":
        bars(given.runs)
    else:
        train(given.data, given.noise, given.seeds, given.data_dir, given.epochs)


if __name__ == "__main__":
    main()
