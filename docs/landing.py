"""The moving picture of the landing page: a noisy network that oscillates, and the gradient that it holds.

    python docs/landing.py [--frames FOLDER] [FIGURE.gif]

Three views of one run at the same time: the teaching signal, the orbits of four neurons, and the error of the gradient
read so far. --frames also writes a few single frames as PNG files, to look at.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

import oscsim as osc
from oscsim.plot import style

PERIOD, CYCLES, DISCARD = 100.0, 8, 1
TICKS, FRAMES = 144, 12  # of each cycle


def compute():
    """The run, and the relative error of its gradient after each cycle, measured and predicted."""
    x, y = osc.datasets.load("digits", split="train")
    x, y = x[:4], y[:4]
    net = osc.LayeredNetwork((64, 32, 10), activation=osc.Logistic(slope=4.0, centre=0.5), key=jax.random.key(0))
    signal, noise = osc.Rotating(amplitude=0.4, period=PERIOD), osc.WhiteNoise(0.03, quadratures="circular")
    run = osc.simulate(
        net,
        x,
        y,
        signal,
        cycles=CYCLES,
        noise=noise,
        integration=osc.Integration(ticks=TICKS),
        start="settled",
        key=jax.random.key(1),
        record=osc.PerCycle(neurons=32, every_cycle=True),
    )
    exact = osc.exact_gradient(net, x, y)
    running = run.gradient(discard=DISCARD, cumulative=True)
    measured = jax.vmap(lambda gradient: osc.relative_error(gradient, exact))(running)
    bias = osc.norm_ratio(osc.response.predict_bias(net, x, y, PERIOD), exact)
    spread = osc.norm_ratio(osc.response.predict_spread(net, x, y, signal, noise, cycles=1), exact)
    predicted = np.hypot(bias, spread / np.sqrt(np.arange(1, CYCLES - DISCARD + 1)))
    return run, np.asarray(measured), predicted


def picture(run, measured, predicted):
    """The figure, and the function that draws its frame of a given number."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(9.0, 3.2), layout="constrained")
    beta = np.asarray(run.watched.teaching)[..., 0].ravel()
    s = np.concatenate([np.asarray(layer).reshape(CYCLES * TICKS, -1) for layer in run.watched.activities], axis=1)
    s = s - s[DISCARD * TICKS :].mean(axis=0)
    s = s[:, np.argsort(-np.abs(s).mean(axis=0))[[0, 4, 10, 20]]]  # the largest orbit, and smaller ones

    left.set_title(r"teaching signal $\beta(t)$", fontsize=style.LABEL_SIZE)
    left.plot(beta.real[: TICKS + 1], beta.imag[: TICKS + 1], color="0.8", linewidth=1)
    (hand,) = left.plot([], [], color=style.DRIVE, linewidth=1.5)
    (tip,) = left.plot([], [], "o", color=style.DRIVE, markersize=7)
    clock = left.text(0.02, 0.98, "", ha="left", va="top", fontsize=style.LABEL_SIZE, transform=left.transAxes)
    left.set(xlabel=r"Re $\beta$", ylabel=r"Im $\beta$", xlim=(-0.5, 0.5), ylim=(-0.5, 0.5))

    middle.set_title(r"four of its neurons, about their means $c_0$", fontsize=style.LABEL_SIZE)
    reach = 1.05 * np.abs(s).max()
    middle.set(xlabel=r"Re $(s - c_0)$", ylabel=r"Im $(s - c_0)$", xlim=(-reach, reach), ylim=(-reach, reach))
    colours = [style.COLOURS[i % len(style.COLOURS)] for i in range(s.shape[1])]
    trails = [middle.plot([], [], color=c, linewidth=1.2)[0] for c in colours]
    dots = [middle.plot([], [], "o", color=c, markersize=5)[0] for c in colours]

    right.set_title("error of the gradient read so far", fontsize=style.LABEL_SIZE)
    ends = PERIOD * np.arange(DISCARD + 1, CYCLES + 1)
    right.plot(ends, 100 * predicted, color="0.55", linestyle=style.DASHES[1], linewidth=1.2, label="expected")
    (curve,) = right.plot([], [], "o-", color=style.COLOURS[1], markersize=5, linewidth=1.2, label="measured")
    right.set(xlabel=r"time (units of $\tau$)", ylabel="relative error (%)", xlim=(0, PERIOD * CYCLES * 1.02))
    right.axvspan(0, PERIOD * DISCARD, color="0.93", linewidth=0)
    note = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": style.NOTE_SIZE, "color": "0.35"}
    right.text(PERIOD * DISCARD / 2, 0.1, "not read", **note)
    right.set_ylim(0, 115 * max(measured.max(), predicted.max()))
    now = right.axvline(0, color=style.DRIVE, linewidth=0.8)
    style.legend(right, loc="upper right")
    for ax in (left, middle):
        ax.set_aspect("equal")
        ax.locator_params(nbins=5)
    for ax in (left, middle, right):
        style.finish(ax)

    def draw(frame):
        end = (min(frame, CYCLES * FRAMES - 1) + 1) * TICKS // FRAMES  # ticks so far
        time = end * PERIOD / TICKS
        b = beta[end - 1]
        hand.set_data([0, b.real], [0, b.imag])
        tip.set_data([b.real], [b.imag])
        clock.set_text(f"cycle {(end - 1) // TICKS + 1}")
        for trail, dot, path in zip(trails, dots, s.T, strict=True):
            trail.set_data(path.real[max(0, end - TICKS) : end], path.imag[max(0, end - TICKS) : end])
            dot.set_data([path.real[end - 1]], [path.imag[end - 1]])
        read = np.sum(ends <= time + 1e-6)
        curve.set_data(ends[:read], 100 * measured[:read])
        now.set_xdata([time, time])

    return fig, draw


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", nargs="?", type=Path, default=Path(__file__).parent / "images" / "landing.gif")
    parser.add_argument("--frames", type=Path)
    options = parser.parse_args()
    run, measured, predicted = compute()
    print(run)
    print("relative error, measured: ", *(f"{e:.3f}" for e in measured))
    print("relative error, predicted:", *(f"{e:.3f}" for e in predicted))
    fig, draw = picture(run, measured, predicted)
    if options.frames:
        options.frames.mkdir(parents=True, exist_ok=True)
        for frame in (5, FRAMES + 5, 5 * FRAMES + 7, CYCLES * FRAMES):
            draw(frame)
            fig.savefig(options.frames / f"{frame:03}.png", dpi=100)
    hold = 20  # frames at the end, before it starts anew
    movie = FuncAnimation(fig, draw, frames=CYCLES * FRAMES + hold)
    movie.save(options.figure, PillowWriter(fps=10), dpi=90)
    print(f"{options.figure}: {options.figure.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
