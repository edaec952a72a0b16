"""Is an error bar right? Many runs, each with what it says of itself beside what it is off by.

Prints the tables of error_bars.md:

    python docs/results/error_bars.py                 # 1,000 runs: most of the time is compilation
    python docs/results/error_bars.py --runs 60
    python docs/results/error_bars.py --only lag      # lag and steps of four networks
    python docs/results/error_bars.py --only shift    # what strong noise leaves for good
    python docs/results/error_bars.py --only until    # runs that go on until they are good enough
"""

import argparse
import concurrent.futures
import itertools
import json
import math
import multiprocessing
import time
from pathlib import Path
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import oscsim as osc
from oscsim.core.arrays import per_sample
from oscsim.dynamics.cycles import Counts, averaged
from oscsim.dynamics.error_bars import gradient_and_error
from oscsim.equilibrium import settle_inputs, state_at
from oscsim.networks.inputs import Inputs
from oscsim.plot.style import COLOURS, finish

HERE = Path(__file__).resolve().parent


class Ring(osc.AbstractNetwork):
    """A user's own network: neurons on a ring, coupled to their neighbours and by a cubic term."""

    coupling: jax.Array
    drive: jax.Array
    readout_weights: jax.Array
    activation = osc.Tanh()
    cost = osc.CrossEntropy()
    shapes = ((8,),)
    input_shape = (6,)
    outputs = 4

    def clamp(self, x):
        return self.drive @ x

    def phi(self, clamped, s, y, beta):
        (s,) = s
        pairs = jnp.sum(self.coupling * s * jnp.roll(s, 1)) + 0.05 * jnp.sum(s**3)
        return jnp.sum(clamped * s) + pairs - beta * self.cost(osc.linear(self.readout_weights, s), y)


def ring(key, scale, cost):
    keys = jax.random.split(key, 3)
    return Ring(
        0.4 * scale * jax.random.normal(keys[0], (8,)),
        scale * jax.random.normal(keys[1], (8, 6)),
        scale * jax.random.normal(keys[2], (4, 8)) / math.sqrt(8),
    )


def layered(sizes, activation):
    def make(key, scale, cost):
        net = osc.LayeredNetwork(sizes, activation=activation, cost=cost, key=key)
        return scaled(net, scale)

    return make


def hopfield(key, scale, cost):
    return scaled(osc.HopfieldNetwork((6, 10, 4), activation=osc.Tanh(), cost=cost, key=key), scale)


def convolutional(key, scale, cost):
    layers = (osc.Convolution(3, 3, pooling=osc.AveragePooling()), osc.Convolution(4, 3, pooling=osc.AveragePooling()))
    net = osc.ConvolutionalNetwork(
        layers, (8, 8, 1), 4, activation=osc.Logistic(slope=4.0, centre=0.5), cost=cost, key=key
    )
    return scaled(net, scale)


def scaled(net, factor):
    """The network with all weights multiplied."""
    return eqx.combine(jax.tree.map(lambda w: w * factor, osc.parameters(net)), net)


KINDS = {
    "layered, 1": layered((6, 8, 4), osc.Logistic(slope=4.0, centre=0.5)),
    "layered, 2": layered((6, 6, 5, 4), osc.Tanh()),
    "layered, 3": layered((6, 5, 5, 5, 4), osc.Logistic(slope=4.0, centre=0.5)),
    "Hopfield": hopfield,
    "convolutional": convolutional,
    "a user's own": ring,
}
BATCH = 6
NOISES = {
    "none": None,
    "white": lambda q, T: osc.WhiteNoise(q),
    "white, circular": lambda q, T: osc.WhiteNoise(q, quadratures="circular"),
    "coloured": lambda q, T: osc.OrnsteinUhlenbeck(q, 0.1 * T),
    "readout": lambda q, T: osc.ReadoutNoise(q),
    "step": lambda q, T: osc.StepNoise(q),
}
CAUSES = ("noise", "transient", "radius", "rounding")


class Row(NamedTuple):
    """One run: how it was made, how far it is off, what it says."""

    kind: str
    cost: str
    noise: str
    cause: str
    precision: str
    amplitude: float
    radius: float
    period: float
    cycles: int
    kept: float
    error: float
    bar: float
    lag: float
    steps: float
    reasons: tuple


class Settings(NamedTuple):
    """What differs from run to run within a group, as arrays."""

    net: object
    x: jax.Array
    y: jax.Array
    amplitude: jax.Array
    period: jax.Array
    strength: jax.Array
    cycles: jax.Array
    key: jax.Array


def read(settings, noise, solver, discard):
    """What one run reads, says and rests in; pure."""
    net, teaching = settings.net, osc.Rotating(settings.amplitude, settings.period)
    inputs = Inputs(settings.x, settings.y, jax.vmap(net.clamp)(settings.x))
    made = None if noise is None else NOISES[noise](settings.strength, settings.period)
    key = None if noise is None else settings.key
    system = osc.System.of(net, teaching, made, osc.Integration(solver, steps_per_cycle=200))
    counts = Counts(settings.cycles, settings.cycles, discard)
    found = averaged(system, osc.begin(system, inputs, key=key), inputs, counts, key=key)
    gradient, error = gradient_and_error(system, inputs, found.averages, found.change)
    return gradient, error, tuple(a.real for a in found.averages.mean.mean), found.state.diverged


def right(settings, activities, solver):
    """What the same solver with the same steps reads at the state that a run rests in: locked, without noise; pure."""
    net, teaching = settings.net, osc.Rotating(1e-3, settings.period)
    inputs = Inputs(settings.x, settings.y, jax.vmap(net.clamp)(settings.x))
    start = net.force(inputs.clamped, activities, inputs.y, jnp.zeros(()))
    # Newton's method stays at the state; where there is none, settling from there goes on to the next one.
    own = state_at(net, inputs, start)
    next_one = settle_inputs(net, inputs, jnp.zeros(()), jnp.asarray(1e-11), start=start)
    there = own.residual < 1e-9
    u = jax.tree.map(lambda a, b: jnp.where(per_sample(there, a), a, b), own.potentials, next_one.potentials)
    system = osc.System.of(net, teaching, None, osc.Integration(solver, steps_per_cycle=200))
    counts = Counts(jnp.asarray(10), jnp.asarray(10), jnp.asarray(9))
    found = averaged(system, osc.begin(system, inputs, start=u), inputs, counts, key=None)
    return found.averages.mean.gradient(net, inputs)


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def group(rng, kind, cause, noise, precision, runs):
    """So many runs of one kind of network and one cause of errors, as Rows."""
    cost = osc.SquaredError() if kind in ("layered, 2", "Hopfield") else osc.CrossEntropy()
    solver = diffrax.Euler() if noise == "step" else diffrax.Heun()
    dtype = np.dtype(precision)
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), runs)
        scales = jnp.asarray(rng.uniform(0.6, 1.5, runs))
        nets = eqx.filter_vmap(lambda key, scale: KINDS[kind](key, scale, cost))(keys, scales)
        one = jax.tree.map(lambda a: a[0] if eqx.is_array(a) else a, nets)
        x = jnp.asarray(rng.uniform(size=(runs, BATCH, *one.input_shape)))
        y = jnp.asarray(rng.integers(0, 4, (runs, BATCH)), jnp.int32)
        radius = np.full(runs, np.nan)
        if cause == "radius":
            for i in range(runs):
                net = jax.tree.map(lambda a, i=i: a[i] if eqx.is_array(a) else a, nets)
                radius[i] = min(osc.response.convergence_radius(net, x[i], y[i]), 10.0)
        amplitude, cycles, discard = drawn(rng, cause, precision, radius, runs)
        period = np.full(runs, 200.0) if noise == "step" else rng.choice([50.0, 100.0, 200.0], runs)
        strength = 0.02 * np.exp(rng.uniform(np.log(0.1), np.log(5), runs)) * (5 if noise == "readout" else 1)
        settings = Settings(
            nets, x, y, *(jnp.asarray(a) for a in (amplitude, period, strength)), jnp.asarray(cycles, jnp.int32), keys
        )
    with jax.enable_x64(precision == "float64"):
        step = eqx.filter_jit(eqx.filter_vmap(lambda s: read(s, noise, solver, discard)))
        gradients, errors, activities, diverged = jax.tree.map(np.asarray, step(cast(settings, dtype)))
    with jax.enable_x64(True):
        ideal = eqx.filter_jit(eqx.filter_vmap(lambda s, a: right(s, a, solver)))
        exact = ideal(settings, tuple(jnp.asarray(a, float) for a in activities))
        gradients = jax.tree.map(lambda a: jnp.asarray(a, float), gradients)
        off = np.asarray(jax.vmap(osc.relative_error)(gradients, exact))
    rows = []
    for i in np.flatnonzero(~diverged & np.isfinite(off)):
        error = jax.tree.map(lambda a, i=i: a[i], errors)
        parts = (float(error.contamination), float(error.lag), float(error.steps))
        names = (kind, type(cost).__name__, noise or "none", cause, precision)
        how = (float(amplitude[i]), float(radius[i]), float(period[i]), int(cycles[i]), float(np.min(error.kept)))
        rows.append(Row(*names, *how, float(off[i]), *parts, error.reasons))
    return rows


def drawn(rng, cause, precision, radius, runs):
    """Amplitudes, cycles and discard of so many runs."""

    def between(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high), runs))

    cycles = rng.integers(2, 9, runs)
    if cause == "noise":
        return between(0.02, 0.3), cycles, None
    if cause == "transient":
        return between(0.003, 0.3), rng.integers(1, 4, runs), jnp.asarray(0, jnp.int32)
    if cause == "radius":
        return radius * rng.uniform(0.8, 2.0, runs), cycles, None
    return between(1e-7, 3e-4) * (1 if precision == "float32" else 1e-8), cycles, None


def of_kind(kind, runs, seed):
    """The rows of so many runs of one kind: half of them under noise, the others with each of the other causes."""
    rng, rows = np.random.default_rng([seed, list(KINDS).index(kind)]), []
    plans = [(noise, "noise", 0.5 / 5) for noise in NOISES if noise != "none"]
    plans += [(None, cause, 0.5 / 3) for cause in ("transient", "radius", "rounding")]
    for number, (noise, cause, share) in enumerate(plans):
        count = max(1, round(runs * share))
        for precision, part in (("float32", count - count // 2), ("float64", count // 2)):
            if noise is not None and (number % 2 == 0) != (precision == "float32"):
                continue  # noise in one precision or the other: rounding plays no part in it
            wanted = count if noise is not None else part
            if wanted:
                rows += group(rng, kind, cause, noise, precision, wanted)
    return rows


def calibration(runs, seed):
    """The rows of so many runs, each kind of network in a process of its own."""
    rows, began = [], time.time()
    context = multiprocessing.get_context("spawn")
    for kind in KINDS:
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as process:
            rows += process.submit(of_kind, kind, runs / len(KINDS), seed).result()
        print(f"{kind}: {len(rows)} runs, {time.time() - began:.0f} s", flush=True)
    return rows


def summary(rows, name):
    """One line of the table: how many, and the quantiles of error over bar where the error is neither lost nor tiny."""
    counted = [r for r in rows if (1e-3 if r.precision == "float32" else 1e-5) < r.error < 0.5]
    ratio = np.array([r.error / max(r.bar, 1e-30) for r in counted])
    if not len(ratio):
        return f"| {name} | {len(rows)} | 0 | | | |"
    low, middle, high = np.quantile(ratio, [0.025, 0.5, 0.975])
    inside = np.mean((ratio > 0.3) & (ratio < 4))
    return f"| {name} | {len(rows)} | {len(ratio)} | {low:.2f} | {middle:.2f} | {high:.2f} | {100 * inside:.1f} % |"


def report(rows):
    print("| runs | all | counted | 2.5 % | median | 97.5 % | within 0.3 to 4 |\n|---|---|---|---|---|---|---|")
    print(summary(rows, "all"))
    for field in ("cause", "noise", "kind", "precision", "period", "cycles", "kept"):
        for value in sorted({getattr(r, field) for r in rows}, key=str):
            print(summary([r for r in rows if getattr(r, field) == value], f"{field}: {value}"))
    lost = [r for r in rows if r.error > 0.5]
    print(f"above an error of 0.5: {len(lost)}, of which the bar is above 0.3 in {sum(r.bar > 0.3 for r in lost)}")
    silent = [
        r for r in rows if ((r.error > 0.1 and r.bar < 0.02) or (r.error > 0.4 and r.bar < 0.1)) and not r.reasons
    ]
    print(f"silent wrong gradients: {len(silent)}")
    for r in silent:
        print("  ", r)
    for right in (0.01, 0.025):
        good = [r for r in rows if r.error < right]
        alarms = sum(r.bar > 0.1 for r in good)
        print(f"right to {100 * right:g} %: {len(good)}, of which the bar is above 10 % in {alarms}")


def draw(rows, path):
    """The error that each run has over the one that it names, by what makes it."""
    figure, axes = plt.subplots(1, len(CAUSES), figsize=(10.5, 3.1), sharex=True, sharey=True, layout="constrained")
    names = {
        "noise": "noise",
        "transient": "a start not forgotten",
        "radius": "0.8 to 2 times the radius",
        "rounding": "rounding",
    }
    ends = np.array([1e-6, 3.0])
    for ax, cause, colour in zip(axes, CAUSES, COLOURS, strict=False):
        of_cause = [r for r in rows if r.cause == cause]
        for precision, marker in (("float32", "o"), ("float64", "^")):
            some = [r for r in of_cause if r.precision == precision]
            points = [r.bar for r in some], [r.error for r in some]
            ax.loglog(*points, marker, ms=3, mew=0, alpha=0.6, color=colour, label=precision)
        ax.fill_between(ends, 0.3 * ends, 4 * ends, color="0.9", lw=0, zorder=-1, label="0.3 to 4 times the bar")
        ax.loglog(ends, ends, color="0.4", lw=0.8, zorder=0)
        ax.set(title=names[cause], xlabel="error that the estimate names", xlim=ends, ylim=ends)
        finish(ax)
    axes[0].set_ylabel("error that it has")
    axes[0].legend(loc="upper left", fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)


def lag():
    """The lag and the steps that an estimate names, beside the true ones."""
    with jax.enable_x64(True):
        nets = {
            "6-4-4-4": osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5),
            "6-5-5-5-4, tanh": osc.LayeredNetwork((6, 5, 5, 5, 4), key=jax.random.key(3), activation=osc.Tanh()),
            "Hopfield": osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(7), scale=0.3),
            "squared error": osc.LayeredNetwork((6, 5, 4), key=jax.random.key(4), cost=osc.SquaredError()),
        }
        x, y = jax.random.uniform(jax.random.key(3), (4, 6)), np.arange(4)
        print("| network | T | lag | ratio | steps | ratio |\n|---|---|---|---|---|---|")
        for name, net in nets.items():
            exact = osc.exact_gradient(net, x, y)
            for period in (50.0, 100.0, 200.0, 400.0):
                slow = osc.response.predict_gradient(net, x, y, period)
                signal = osc.Rotating(1e-3, period)
                found = osc.LockIn(
                    signal,
                    cycles=2,
                    start="settled",
                    integration=osc.Integration(solver=diffrax.Heun(), steps_per_cycle=800, ticks=80),
                )(net, x, y)
                lags, steps = osc.relative_error(slow, exact), osc.relative_error(found.gradient, slow)
                ratios = float(lags / found.error.lag), float(steps / found.error.steps)
                print(f"| {name} | {period:g} | {lags:.1e} | {ratios[0]:.2f} | {steps:.1e} | {ratios[1]:.2f} |")


def shift():
    """What strong noise leaves for good, and what a run says of it."""
    net = osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5)
    x, y = jax.random.uniform(jax.random.key(3), (8, 6)), np.arange(8) % 4
    right = osc.response.predict_gradient(net, x, y, 200.0)
    print("| noise | error | bar |\n|---|---|---|")
    for q in (0.05, 0.1, 0.2):
        run = osc.simulate(
            net,
            x,
            y,
            osc.Rotating(0.1, 200.0),
            cycles=2000,
            noise=osc.WhiteNoise(q),
            integration=osc.Integration(steps_per_cycle=400),
            start="settled",
            record=osc.Mean(0),
            key=jax.random.key(0),
        )
        off = osc.relative_error(run.gradient(tolerance=1e9), right)
        print(f"| {q} | {100 * float(off):.2g} % | {100 * float(run.error().contamination):.2g} % |", flush=True)


def until(seeds):
    """How often a run that is asked for an accuracy, under noise, is right to twice that."""
    nets = {
        "6-4-4-4": osc.LayeredNetwork((6, 4, 4, 4), key=jax.random.key(2), scale=0.5),
        "Hopfield": osc.HopfieldNetwork((6, 5, 4), key=jax.random.key(7), scale=0.3),
    }
    x, y = jax.random.uniform(jax.random.key(3), (8, 6)), np.arange(8) % 4
    print("| network | noise | asked for | reached | right to twice that | error (median) | bar | cycles |")
    print("|---|---|---|---|---|---|---|---|")
    for name, net in nets.items():
        exact = osc.exact_gradient(net, x, y)
        for q, wanted in itertools.product((0.03, 0.1), (0.1, 0.03, 0.01)):
            lock_in = osc.LockIn(
                osc.Rotating(0.1, 200.0),
                cycles=(2, 1000),
                noise=osc.WhiteNoise(q),
                integration=osc.Integration(steps_per_cycle=400),
                start="settled",
                accuracy=wanted,
            )
            found = [lock_in(net, x, y, jax.random.key(seed), tolerance=math.inf) for seed in range(seeds)]
            errors = np.array([float(osc.relative_error(e.gradient, exact)) for e in found])
            bars = np.array([float(e.error.total) for e in found])
            cycles = np.array([int(np.min(e.error.kept)) for e in found])
            reached = bars <= wanted
            right = f"{100 * np.mean(errors[reached] < 2 * wanted):.0f} %" if reached.any() else ""
            print(
                f"| {name} | {q} | {100 * wanted:g} % | {np.sum(reached)} of {seeds} | {right} | "
                f"{100 * np.median(errors):.2g} % | {100 * np.median(bars):.2g} % | {np.median(cycles):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["calibration", "lag", "shift", "until"], default="calibration")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=100, help="of until")
    parser.add_argument("--save", type=Path, help="the runs, as JSON")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "images" / "error_bars.png")
    args = parser.parse_args()
    if args.only != "calibration":
        {"lag": lag, "shift": shift, "until": lambda: until(args.seeds)}[args.only]()
    else:
        rows = calibration(args.runs, args.seed)
        if args.save:
            args.save.write_text(json.dumps([r._asdict() for r in rows]))
        draw(rows, args.figure)
        report(rows)
