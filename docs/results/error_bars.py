"""Is an error bar right? Many runs, each with what it says of itself beside what it is off by.

Prints the tables of error_bars.md and draws its figure:

    python docs/results/error_bars.py                 # 1,000 runs, about half an hour on two cores
    python docs/results/error_bars.py --runs 60       # minutes
    python docs/results/error_bars.py --only lag      # one of: calibration, steps, phases, lag, until
"""

import argparse
import json
import math
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import numpy as np

import oscsim as osc

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
    learned, fixed = eqx.partition(net, eqx.is_inexact_array)
    wanted = osc.parameters(net)
    times = jax.tree.map(lambda w: w * factor, wanted)
    return eqx.combine(times, net)


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


def own_state(net, inputs_x, y, activities):
    """The free equilibrium next to the mean activities of a run; None where there is none."""
    inputs = osc.Inputs.of(net, inputs_x, y)
    start = net.force(inputs.clamped, tuple(jnp.asarray(a, net.dtype) for a in activities), inputs.y, 0.0)
    found = osc.settle(net, inputs_x, y, start=start, check=False)
    return found if bool(jnp.all(found.residual < 1e-9)) else None


def ideal(net, x, y, state, period, steps, solver):
    """What the same solver with the same steps reads at this state without noise, locked, at a small amplitude."""
    from oscsim.cycle import Cycle, as_plan, first_state
    from oscsim.estimators.lock_in import Counts, averaged

    inputs = osc.Inputs.of(net, x, y)
    signal = osc.Rotating(1e-3, period)
    plan = as_plan(Cycle(solver, None, steps), signal, net)
    begun = first_state(net, inputs, signal, cycle=plan, potentials=state.potentials)
    counts = Counts(np.int32(12), np.int32(11), np.int32(12))
    found = eqx.filter_jit(averaged)(begun, net, inputs, signal, plan, None, counts, None)
    return eqx.filter_jit(lambda r: r.gradient(net, inputs))(found.average.mean)


def cast(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def draw(rng, cause):
    """The settings of one run."""
    kind = str(rng.choice(list(KINDS)))
    cost = osc.SquaredError() if kind in ("layered, 2", "Hopfield") else osc.CrossEntropy()
    noise = str(rng.choice([n for n in NOISES if n != "none"])) if cause == "noise" else "none"
    period = float(rng.choice([50.0, 100.0, 200.0]))
    precision = "float32" if rng.random() < 0.6 else "float64"
    return kind, cost, noise, period, precision


def one_run(rng, cause):
    """A run of that cause, as a Row."""
    kind, cost, noise_name, period, precision = draw(rng, cause)
    key = jax.random.key(int(rng.integers(2**31)))
    scale = float(rng.uniform(0.6, 1.5))
    with jax.enable_x64(True):
        net = KINDS[kind](key, scale, cost)
        shape = net.input_shape
        x = jax.random.uniform(jax.random.key(int(rng.integers(2**31))), (BATCH, *shape))
        y = rng.integers(0, 4, BATCH).astype(np.int32)
        radius = osc.response.convergence_radius(net, x, y)
    top = min(radius, 3.0)
    discard, cycles = None, int(rng.integers(2, 9))
    if cause == "noise":
        amplitude = top * float(np.exp(rng.uniform(np.log(0.03), np.log(0.6))))
    elif cause == "transient":
        amplitude = top * float(np.exp(rng.uniform(np.log(0.003), np.log(0.6))))
        cycles, discard = int(rng.integers(1, 4)), 0
    elif cause == "radius":
        amplitude = radius * float(rng.uniform(0.8, 2.0))
    else:
        amplitude = float(np.exp(rng.uniform(np.log(1e-7), np.log(3e-4))))
        if precision == "float64":
            amplitude *= 1e-8
    per_step, steps = noise_name == "step", 200  # the same for all periods: fewer programs
    period = 200.0 if per_step else period
    solver = diffrax.Euler() if per_step else diffrax.Heun()
    noise = None
    if noise_name != "none":
        strength = 0.02 * float(np.exp(rng.uniform(np.log(0.1), np.log(5))))
        noise = NOISES[noise_name](strength * (5 if noise_name == "readout" else 1), period)
    dtype = np.dtype(precision)
    with jax.enable_x64(precision == "float64"):
        here, x_here = cast(net, dtype), np.asarray(x, dtype)
        lock_in = osc.LockIn(
            osc.Rotating(amplitude, period), cycles=cycles, discard=discard, noise=noise, solver=solver,
            steps_per_cycle=steps,
        )  # fmt: skip
        try:
            estimate = lock_in(here, x_here, y, jax.random.key(int(rng.integers(2**31))) if noise is not None else None)
        except osc.DivergenceError:
            return None
        gradient = jax.tree.map(np.asarray, estimate.gradient)
        error = jax.tree.map(np.asarray, estimate.error)
        activities = tuple(np.asarray(a) for a in estimate.activities)
    with jax.enable_x64(True):
        state = own_state(net, x, y, activities)
        if state is None:
            state = osc.settle(net, x, y)
        right = ideal(net, x, y, state, period, steps, solver)
        off = float(osc.relative_error(jax.tree.map(lambda a: jnp.asarray(a, float), gradient), right))
    return Row(
        kind, type(cost).__name__, noise_name, cause, precision, amplitude, radius, period, cycles,
        float(np.min(error.kept)), off, float(error.contamination), float(error.lag), float(error.steps), error.reasons,
    )  # fmt: skip


def calibration(runs, seed):
    """The rows of so many runs, a quarter for each cause but noise, which has more."""
    rng, rows, began = np.random.default_rng(seed), [], time.time()
    warnings.simplefilter("ignore", osc.InexactGradientWarning)
    shares = {"noise": 0.55, "transient": 0.15, "radius": 0.15, "rounding": 0.15}
    for cause, share in shares.items():
        wanted = max(1, round(runs * share))
        while wanted:
            row = one_run(rng, cause)
            if row is not None:
                rows.append(row)
                wanted -= 1
                if len(rows) % 20 == 0:
                    print(f"{len(rows)} runs, {time.time() - began:.0f} s", flush=True)
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
        r for r in rows
        if ((r.error > 0.1 and r.bar < 0.02) or (r.error > 0.4 and r.bar < 0.1)) and not r.reasons
    ]  # fmt: skip
    print(f"silent wrong gradients: {len(silent)}")
    for r in silent:
        print("  ", r)
    for right in (0.01, 0.025):
        good = [r for r in rows if r.error < right]
        print(
            f"right to {100 * right:g} %: {len(good)}, of which the bar is above 10 % in {sum(r.bar > 0.1 for r in good)}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    args = parser.parse_args()
    rows = calibration(args.runs, args.seed)
    if args.save:
        args.save.write_text(json.dumps([r._asdict() for r in rows]))
    report(rows)
