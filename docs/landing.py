"""The moving picture of the landing page: a noisy network that oscillates, and the gradient that it holds.

    python docs/landing.py [FIGURE.gif]

Three views of one run at the same time: the teaching signal, the orbits of four neurons, and the error of the gradient
read so far, with the error that theory predicts.
"""

import argparse
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import PillowWriter

import oscsim as osc
from oscsim.plot import style

PERIOD, CYCLES, DISCARD = 100.0, 8, 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", nargs="?", type=Path, default=Path(__file__).parent / "images" / "landing.gif")
    figure = parser.parse_args().figure
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
        integration=osc.Integration(ticks=144),
        start="settled",
        key=jax.random.key(1),
        record=osc.PerCycle(neurons=32, every_cycle=True),
    )
    print(run)

    largest = np.argsort(-np.abs(run.phasors[1][0][-1, 0]))
    exact, four = osc.exact_gradient(net, x, y), {1: largest[[0, 4, 10, 20]].tolist()}
    movie = osc.plot.animate(run, exact, neurons=four, discard=DISCARD, frames=12, hold=20)
    read = np.arange(1, CYCLES - DISCARD + 1)
    bias = osc.norm_ratio(osc.response.predict_bias(net, x, y, PERIOD), exact)
    spread = osc.norm_ratio(osc.response.predict_spread(net, x, y, signal, noise, cycles=1), exact)
    predicted = 100 * np.hypot(bias, spread / np.sqrt(read))
    ax = plt.gcf().axes[2]
    ax.plot(PERIOD * (DISCARD + read), predicted, color="0.55", linestyle=style.DASHES[1], label="expected")
    ax.set_ylim(0, max(ax.get_ylim()[1], 1.15 * predicted.max()))
    style.legend(ax, loc="upper right")
    movie.save(figure, PillowWriter(fps=10), dpi=90)
    print(f"{figure}: {figure.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
