"""Ten noisy networks learn digits: how many collapse to chance, what precedes it, what prevents it.

Prints the tables of collapse.md and draws its figure:

    python docs/results/collapse.py            # all of it: a quarter of an hour on one core
    python docs/results/collapse.py --quick    # seconds: three seeds, two epochs, two conditions
    python docs/results/collapse.py --spread   # how the noise compares with that on MNIST
"""

import argparse
import dataclasses
import math
import time
from itertools import pairwise
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax import lax

import oscsim as osc
from oscsim.plot.style import COLOURS, DASHES, NOTE_SIZE, finish, legend

SIZES = (64, 32, 32, 10)
BATCH = 20
RATE = 2.0
SIGMA = 0.04 * math.sqrt(256 / 32)  # the teaching signal at one neuron falls as 1/sqrt(width), its noise does not
ALIVE = 0.02  # a neuron whose activity has a smaller standard deviation over a batch tells the readout nothing
COLLAPSED = 80.0  # test error in percent above which a network counts as collapsed; chance is 90
PROBED = (0, 1, 2, 3, 5, 8, 12, 20, 40, 71)  # slowest mode and radius are measured after so many updates


@dataclasses.dataclass(frozen=True)
class Condition:
    """One way to train; each but the first differs from it in one thing."""

    sigma: float = SIGMA
    shared: bool = True
    amplitude: float = 0.4
    points: int = 10
    clip: float | None = None
    rate: float = RATE

    def estimator(self, plateau):
        """Three periods from rest, each plateau read at its end, as in the paper."""
        noise = osc.StepNoise(self.sigma, shared_over_batch=self.shared) if self.sigma else None
        steps = plateau * self.points
        signal = osc.Staircase(self.amplitude, float(steps), points=self.points)
        return osc.LockIn(
            signal,
            cycles=3,
            discard=0,
            noise=noise,
            integration=osc.Integration(solver=diffrax.Euler(), steps_per_cycle=steps),
        )

    def optimizer(self):
        """Gradient descent; `clip` as in `oscsim train --clip`."""
        descent = optax.sgd(self.rate)
        return descent if self.clip is None else optax.chain(optax.clip_by_global_norm(self.clip), descent)


CONDITIONS = {
    "as it is": Condition(),
    "clip 0.3": Condition(clip=0.3),
    "no noise": Condition(sigma=0.0),
    "noise of its own for each sample": Condition(shared=False),
    "amplitude 0.2": Condition(amplitude=0.2),
    "amplitude 0.8": Condition(amplitude=0.8),
    "20 points": Condition(points=20),
    "rate 1": Condition(rate=1.0),
}


NAMES = {"as it is": "unprotected"}
"""How conditions are called in the figure, where not as above."""


def train(condition, seeds, epochs, plateau):
    """All seeds in one program: what was logged at each update, at each epoch, and the first epoch's networks."""
    data, held_out = osc.datasets.load("digits"), osc.datasets.load("digits", "test")
    updates = len(data[0]) // BATCH
    estimator, optimizer = condition.estimator(plateau), condition.optimizer()
    networks = [osc.LayeredNetwork(SIZES, key=jax.random.key(seed)) for seed in seeds]
    static = eqx.partition(networks[0], eqx.is_array)[1]
    arrays = jax.tree.map(lambda *a: jnp.stack(a), *(eqx.filter(net, eqx.is_array) for net in networks))
    keys = jnp.stack([jax.random.fold_in(jax.random.key(1), seed) for seed in seeds])
    fold = jax.vmap(jax.random.fold_in, (0, None))

    def update(arrays, x, y, key):
        net = eqx.combine(arrays, static)
        estimate = estimator(net, x, y, key=key)
        learned = osc.parameters(net)
        steps, _ = optimizer.update(estimate.gradient, optimizer.init(learned), learned)
        log = {
            "norm": jnp.sqrt(sum(jnp.sum(a**2) for a in jax.tree.leaves(estimate.gradient))),
            "alive": 100 * jnp.mean(jnp.std(estimate.activities[-1], axis=0) > ALIVE),
            # A mean activity outside [0, 1] is none of a settled logistic neuron: its orbit passed close to a pole.
            "excess": jnp.max(jnp.stack([jnp.max(jnp.maximum(s - 1, -s)) for s in estimate.activities])),
        }
        return eqx.filter(eqx.apply_updates(net, steps), eqx.is_array), log

    @eqx.filter_jit
    def epoch(arrays, number, x, y, keep):
        ours = fold(keys, number)
        orders = jax.vmap(lambda key: jax.random.permutation(key, len(x)))(ours)[:, : updates * BATCH]
        orders = orders.reshape(len(seeds), updates, BATCH)

        def one(arrays, i):
            arrays, log = jax.vmap(update)(arrays, x[orders[:, i]], y[orders[:, i]], fold(ours, i + 1))
            return arrays, (log, arrays if keep else None)

        return lax.scan(one, arrays, jnp.arange(updates))

    @jax.jit
    def error(arrays, x, y):
        def of_one(arrays):  # 200 steps without noise, as the authors evaluate; one network at a time
            net = eqx.combine(arrays, static)
            free = osc.settle(
                net,
                x,
                y,
                method=osc.equilibrium.Sweeps(memory=0, even_odd=False),
                max_steps=200,
                tolerance=1e-5,
                throw=False,
            )
            scores = net.readout(jax.vmap(net.clamp)(x), free.activities)
            return 100 * jnp.mean(jnp.argmax(scores, axis=1) != y)

        return lax.map(of_one, arrays)

    logs, errors, start, trail = [], [error(arrays, *held_out)], arrays, None
    for number in range(epochs):
        arrays, (log, kept) = epoch(arrays, jnp.int32(number), *data, number == 0)
        trail = kept if number == 0 else trail
        logs.append(jax.tree.map(np.asarray, log))
        errors.append(error(arrays, *held_out))

    def network(seed, update):
        tree = start if update == 0 else jax.tree.map(lambda a: a[update - 1], trail)
        return eqx.combine(jax.tree.map(lambda a: a[seed], tree), static)

    logs = {name: np.concatenate([log[name] for log in logs]) for name in logs[0]}
    return logs, np.asarray(errors), network


def slow_modes(network, seeds):
    """Slowest time constant and convergence radius on 20 samples, after some updates; nan where nothing settles."""
    x, y = (a[:20] for a in osc.datasets.load("digits"))
    found = np.full((2, len(PROBED), len(seeds)), np.nan)
    for i, update in enumerate(PROBED):
        for j in range(len(seeds)):
            try:
                advice = osc.suggest(network(j, update), x, y)
            except osc.NotSettledError:
                continue
            found[:, i, j] = advice.slowest_time, advice.radius
    return found


def spread(name, sizes, sigma, data_dir=None):
    """How far the noise scatters the estimate at the initial weights: its norm over that of the mean, two batches."""
    x, y = (a[: 2 * BATCH] for a in osc.datasets.load(name, "train", data_dir))
    net = osc.LayeredNetwork(sizes, key=jax.random.key(0))
    estimator, ratios = Condition(sigma=sigma).estimator(plateau=30), []
    for batch in zip(np.split(x, 2), np.split(y, 2), strict=True):
        estimates = [estimator(net, *batch, key=jax.random.key(i)).gradient for i in range(8)]
        flat = np.array([np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)]) for tree in estimates])
        ratios.append(np.sqrt(flat.var(axis=0, ddof=1).sum()) / np.linalg.norm(flat.mean(axis=0)))
    print(f"{name} {sizes}, sigma {sigma:.3f}: relative spread {ratios[0]:.2f}, {ratios[1]:.2f}")


def table(results):
    """A row per condition, as in collapse.md."""
    print("| condition | collapsed | final error, of the others | best error, of the others |\n|---|---|---|---|")
    for name, (_, errors, _) in results.items():
        lost = errors[-1] > COLLAPSED
        kept = errors[:, ~lost]

        def mean_range(values):
            return f"{values.mean():.1f} ({values.min():.1f} to {values.max():.1f})" if len(values) else ""

        final, best = (mean_range(v) for v in (kept[-1], kept.min(axis=0) if kept.size else kept[-1]))
        print(f"| {name} | {lost.sum()} of {len(lost)} | {final} | {best} |")


def details(name, logs, errors, modes=None):
    """What happens around the first updates, and in the tail of the readings, in numbers."""
    lost = errors[-1] > COLLAPSED
    print(f"\n{name}: collapsed seeds {np.flatnonzero(lost).tolist()}")
    counts = (errors[1:] > COLLAPSED).sum(axis=0)
    print(f"  epochs that each seed spent collapsed: {counts.tolist()}")
    if lost.any():
        print(f"  lowest error that a collapsed seed ever had: {errors[:, lost].min():.1f} %")
    jumps = (errors[:-1] < 45) & (errors[1:] > 85.5)
    print(f"  jumps to chance from below half of it, which rollback acts on: {jumps.sum()}")
    for when in (0, 2, 5, 10, 20, 70):
        norm, alive = (logs[k][when] for k in ("norm", "alive"))
        print(
            f"  update {when + 1:3}: norm of the estimate {np.median(norm):.2f}, at most {norm.max():.2f}; "
            f"neurons alive in the last layer {np.median(alive):.0f} %, at least {alive.min():.0f} %"
        )
    print(
        f"  in the first 12 updates: norm at most {logs['norm'][:12].max():.1f}, "
        f"mean activity outside [0, 1] by at most {max(logs['excess'][:12].max(), 0):.3f}"
    )
    if lost.any():
        print(f"  at the end, collapsed: {np.mean(logs['alive'][-71:, lost]):.1f} % alive")
    if not lost.all():
        print(f"  at the end, others: {np.mean(logs['alive'][-71:, ~lost]):.1f} % alive")
        excess, norm = (logs[k][len(logs[k]) // 5 :, ~lost] for k in ("excess", "norm"))
        beyond = {x: int((excess > x).sum()) for x in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)}
        print(
            f"  and after a fifth of the run: mean activity outside [0, 1] by more than x in n of {excess.size} "
            f"updates, {beyond}; norm of the estimate {np.median(norm):.2f}, at most {norm.max():.2f}, the activity "
            f"then outside by {max(excess.flat[norm.argmax()], 0):.2f}"
        )
    if modes is not None:
        for update, slowest, radius in zip(PROBED, *modes, strict=True):
            print(
                f"  after {update:2} updates: slowest mode {np.nanmedian(slowest):.3g}, radius "
                f"{np.nanmedian(radius):.2g} (medians of {np.isfinite(radius).sum()} that settle)"
            )


def silent_loss(ones, updates=20_000):
    """Mean loss on MNIST's test labels of a readout trained at the paper's rate on neurons that never change.

    With `ones` neurons stuck at 1 and the others at 0, a step moves the score of each class by rate * (1 + ones) times
    the error of its predicted share: large steps, so the scores never come to rest at ln 10.
    """
    train = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
    test = np.array([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]) / 10_000
    draw, scores, losses = np.random.default_rng(0), np.zeros(10), []
    for update in range(updates):
        logs = scores - np.log(np.sum(np.exp(scores - scores.max()))) - scores.max()
        if update >= updates // 10:
            losses.append(-test @ logs)
        scores = scores - 0.05 * (1 + ones) * (np.exp(logs) - draw.multinomial(BATCH, train) / BATCH)
    return np.mean(losses)


def figure(results, modes, path):
    """Error and living neurons by epoch, slowest mode and radius by update, tail of the readings."""
    canvas, ((error, alive), (mode, tail)) = plt.subplots(2, 2, figsize=(7.4, 5.6), layout="constrained")
    draw_runs(error, alive, results)
    draw_modes(mode, modes)
    draw_tail(tail, results)
    for ax, letter in zip((error, alive, mode, tail), "abcd", strict=True):
        finish(ax)
        ax.set_title(letter, loc="left", fontweight="bold", fontsize=10)
    canvas.savefig(path, dpi=200)
    plt.close(canvas)


def draw_runs(error, alive, results):
    """Each seed's error and share of living neurons, unprotected and clipped."""
    for (name, (logs, errors, _)), colour in zip(list(results.items())[:2], COLOURS[1::-1], strict=True):
        updates, seeds = logs["alive"].shape
        epochs = len(errors) - 1
        edges = np.unique(np.geomspace(1, updates + 1, 80).astype(int))  # means over stretches that look equally long
        means = np.array([logs["alive"][a - 1 : b - 1].mean(axis=0) for a, b in pairwise(edges)])
        for j in range(seeds):
            style = {"color": colour, "linewidth": 0.9, "alpha": 0.8}
            style["label"] = None if j else NAMES.get(name, name)
            error.plot(np.arange(1, epochs + 1), errors[1:, j], **style)
            alive.plot(np.sqrt(edges[:-1] * edges[1:]) * epochs / updates, means[:, j], **style)
    error.axhline(90, color="black", linewidth=0.8, linestyle=DASHES[2])
    error.set(xlabel="epoch", ylabel="test error (%)", xscale="log", ylim=(0, 103))
    error.text(0.99, 95, "chance", fontsize=NOTE_SIZE, ha="right", transform=error.get_yaxis_transform())
    alive.set(xlabel="epoch (an update is 1/71)", ylabel="living neurons in the last layer (%)", xscale="log")
    alive.set_ylim(0, 103)
    for ax in (error, alive):
        ax.xaxis.set_major_formatter("{x:g}")
    legend(error, loc="center right", bbox_to_anchor=(1.0, 0.68))


def draw_modes(ax, modes):
    """Slowest mode and radius in the first epoch: medians over the seeds."""
    at = np.arange(len(PROBED))
    for (name, both), colour in zip(modes.items(), COLOURS[1::-1], strict=True):
        for values, dash, what in zip(both, DASHES, ("slowest mode (τ)", "radius (units of β)"), strict=False):
            style = {"color": colour, "linestyle": dash, "marker": "o", "markersize": 3, "linewidth": 1.2}
            ax.plot(at, np.nanmedian(values, axis=1), label=f"{what}, {NAMES.get(name, name)}", **style)
    ax.axhline(0.4, color="black", linewidth=0.8, linestyle=DASHES[2])
    ax.text(0.99, 0.43, "amplitude", fontsize=NOTE_SIZE, ha="right", va="bottom", transform=ax.get_yaxis_transform())
    ax.set(xlabel="updates made", ylabel="slowest mode (τ); radius (units of β)", yscale="log", ylim=(1e-2, 5e5))
    ax.set_xticks(at, map(str, PROBED))
    legend(ax, loc="upper left")


def draw_tail(ax, results):
    """How often an estimate is how large, once the networks have learned: those that did not collapse."""
    for name, colour in zip(("as it is", "no noise", "clip 0.3"), (COLOURS[1], COLOURS[4], COLOURS[0]), strict=True):
        if name not in results:
            continue
        logs, errors, _ = results[name]
        excess = np.sort(logs["excess"][len(logs["excess"]) // 5 :, errors[-1] <= COLLAPSED].ravel())[::-1]
        seen = excess > 1e-2
        share = np.arange(1, len(excess) + 1) / max(len(excess), 1)
        ax.plot(excess[seen], share[seen], color=colour, linewidth=1.3, label=NAMES.get(name, name))
    line = np.array([2e-2, 5.0])
    ax.plot(line, 3e-3 / line, color="black", linewidth=0.8, linestyle=DASHES[1], label="slope −1")
    ax.set(xlabel="mean activity outside [0, 1] by more than x", ylabel="share of updates", xscale="log", yscale="log")
    legend(ax, loc="lower left")


def main(arguments=None):
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three seeds, two epochs, two conditions")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--plateau", type=int, default=10, help="Euler steps per plateau; 30 in the paper")
    parser.add_argument("--only", nargs="*", choices=list(CONDITIONS), help="these conditions alone, and no figure")
    parser.add_argument("--spread", action="store_true", help="compare the noise with that on MNIST, and stop")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's files; downloaded if not given")
    parser.add_argument("--figure", type=Path, default=Path(__file__).parents[1] / "images" / "collapse.png")
    options = parser.parse_args(arguments)
    if options.spread:
        spread("mnist", (784, 256, 256, 10), 0.04, options.data_dir)
        return spread("digits", SIZES, SIGMA)
    if options.quick:
        options.seeds, options.epochs = 3, 2
    names = options.only or (list(CONDITIONS)[:2] if options.quick else list(CONDITIONS))
    seeds, results = range(options.seeds), {}
    for name in names:
        began = time.perf_counter()
        results[name] = train(CONDITIONS[name], seeds, options.epochs, options.plateau)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    table(results)
    modes = {} if options.only else {name: slow_modes(results[name][2], seeds) for name in names[:2]}
    for name, (logs, errors, _) in results.items():
        details(name, logs, errors, modes.get(name))
    if modes:
        figure(results, modes, options.figure)
        counts = (128,) if options.quick else (64, 128, 192, 224, 256)
        print("\nloss of a readout on stuck neurons, MNIST:", {n: round(float(silent_loss(n)), 2) for n in counts})
    return results


if __name__ == "__main__":
    main()
