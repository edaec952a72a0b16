"""Fig. 3c of Laborieux & Zenke (2022): how well a gradient survives noise, against the amplitude of the signal.

    python docs/results/fig3c.py [--seeds 16] [--data-dir DIR] [--reference FILE] [--figure FIGURE.png]

The MNIST network of the paper, 784-256-256-10, at its initial weights; batches of 10; noise of 0.01 at every step, the
same for all samples. Each seed is another network, another batch and another noise. FILE is a JSON file of the curves
that the authors published, `{"runs": [{"beta": [...], "cosine": {"N=1": [...], "N=15": [...]}}, ...]}`.
"""

import argparse
import json
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import oscsim as osc
from oscsim.studies import FunctionStudy, Quantity

AMPLITUDES = [0.1, 0.22, 0.42, 0.62, 0.83, 1.03, 1.44, 2.05, 2.86, 3.88, 5.1, 6.13, 7.96, 10.0]
NAMES = {1: "classic, N = 1", 15: "holomorphic, N = 15"}


def fig3c(images, labels, amplitudes=AMPLITUDES, seeds=16, progress=None):
    """The cosine to the exact gradient without noise, over amplitude and number of points, for each seed."""

    def survival(key, amplitude, points):
        key_net, key_batch, key_noise = jax.random.split(key, 3)
        net = osc.LayeredNetwork(
            (784, 256, 256, 10), activation=osc.Logistic(slope=4.0, centre=0.5), scale=0.05, key=key_net
        )
        rows = jax.random.choice(key_batch, len(images), (10,), replace=False)
        x, y = jax.numpy.asarray(images)[rows], jax.numpy.asarray(labels)[rows]
        noise = osc.StepNoise(0.01, shared_over_batch=True)
        if points == 1:
            estimator = osc.Classic(amplitude, steps=(100, 60), noise=noise, readings=5)
        else:
            estimator = osc.Phases(amplitude, points, steps=(100, 60), noise=noise)
        exact = osc.Exact()(net, x, y).gradient
        return {"cosine": osc.cosine(estimator(net, x, y, key=key_noise).gradient, exact)}

    study = FunctionStudy(survival, known={"cosine": Quantity("cosine to the gradient without noise")})
    axes = {"amplitude": list(amplitudes), "points": [1, 15]}
    return osc.sweep(study, axes, seeds=seeds, key=jax.random.key(0), progress=progress)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=16)
    options.add_argument("--data-dir", type=Path)
    options.add_argument("--reference", type=Path)
    options.add_argument("--figure", type=Path, default=Path("fig3c.png"))
    options = options.parse_args()
    x, y = osc.datasets.load("mnist", "train", options.data_dir)
    data = fig3c(x[:2000], y[:2000], seeds=options.seeds)
    runs = json.loads(options.reference.read_text())["runs"] if options.reference else []

    average = osc.summarise(data).cosine
    print("amplitude  " + "".join(f"{name:>22}{'authors':>16}" for name in NAMES.values()))
    for amplitude in AMPLITUDES:
        row = f"{amplitude:9.2f}  "
        for points in NAMES:
            here = average.sel(amplitude=amplitude, points=points)
            low, mean, high = (float(here.sel(statistic=s)) for s in ("low", "average", "high"))
            theirs = [np.interp(amplitude, run["beta"], run["cosine"][f"N={points}"], right=np.nan) for run in runs]
            row += f"{mean:8.3f} ({low:.3f}-{high:.3f})" + f"{' / '.join(f'{v:.3f}' for v in theirs):>16}"
        print(row)

    _, ax = plt.subplots(figsize=(4.6, 3.4), layout="constrained")
    for points, label in NAMES.items():
        part = data.sel(points=points).drop_vars("points")
        osc.plot.sweep_curves(part, "cosine", ax, log="x")
        colour = "#0072B2" if points == 15 else "#D55E00"
        ax.lines[-1].set(color=colour, label=label)
        ax.collections[-1].set(color=colour, alpha=0.25)
        for number, run in enumerate(runs):
            keep = np.asarray(run["beta"]) >= min(AMPLITUDES)
            theirs = np.asarray(run["beta"])[keep], np.asarray(run["cosine"][f"N={points}"])[keep]
            note = "authors' two runs" if points == 15 and number == 0 else None
            ax.plot(*theirs, color="black", linewidth=0.8, linestyle=["--", ":"][number % 2], label=note, zorder=0)
    ax.legend(fontsize=8, frameon=False, loc="lower center")
    ax.set_ylim(0, 1.02)
    ax.figure.savefig(options.figure, dpi=160)
    print(f"Figure: {options.figure}")


if __name__ == "__main__":
    main()
