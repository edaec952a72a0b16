"""Fig. 3: continuous learning signals on the MNIST network, in time and under noise."""

from collections.abc import Sequence

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array, Key
from matplotlib.axes import Axes

import oscsim as osc
from oscsim.paper.authors import authors
from oscsim.paper.panels import THEIRS, Panels, with_letters
from oscsim.plot import running_errors, style, sweep_curves
from oscsim.sweeps import studies

PERIODS = (50, 100, 200, 300, 400)
AMPLITUDES = (0.1, 0.22, 0.42, 0.62, 0.83, 1.03, 1.44, 2.05, 2.86, 3.88, 5.1, 6.13, 7.96, 10.0)
NAMES = {1: "classic, N = 1", 15: "holomorphic, N = 15"}


def mnist_network(key: Key[Array, ""]) -> osc.LayeredNetwork:
    """784-256-256-10 with logistic neurons of slope 4 and weights of standard deviation 0.05."""
    return osc.LayeredNetwork((784, 256, 256, 10), scale=0.05, key=key)


def fig3(
    images: Array | np.ndarray,
    labels: Array | np.ndarray,
    *,
    periods: Sequence[int] = PERIODS,
    cycles: int = 40,
    amplitudes: Sequence[float] = AMPLITUDES,
    seeds: int = 16,
    progress: bool | None = None,
) -> Panels:
    r"""The MNIST network at its initial weights: gradients in continuous time, and under noise.

    Args:
        images: MNIST training images, (n, 784) in [0, 1].
        labels: theirs, (n,).
        periods: of the teaching signal in panels a and b, in steps of tau; multiples of 10.
        cycles: of panels a and b.
        amplitudes: of panel c.
        seeds: networks, batches and noises that panel c averages over.
        progress: of the sweep behind panel c, as in `sweep`.

    Returns:
        `a`: `one_minus_cosine` between the exact gradient and the running average of the estimates, over `period` and
        `cycle`; from rest, ten plateaus a period, amplitude 0.5, nothing discarded. `b`: its `relative_error`. `c`: as
        `fig3c`.

    Raises:
        ValueError: a period that is no multiple of 10, or as `simulate` and `sweep`.

    Example:
        >>> images, labels = osc.datasets.load("mnist")  # doctest: +SKIP
        >>> panels = osc.paper.fig3(images, labels, cycles=10, seeds=4)  # doctest: +SKIP
    """
    odd = [period for period in periods if period % 10]
    if odd:
        raise osc.BadValue(f"periods={tuple(periods)}: ten plateaus of whole steps need multiples of 10, not {odd[0]}")
    net, x, y = mnist_network(jax.random.key(2)), images[:10], labels[:10]
    exact = osc.exact_gradient(net, x, y)

    def running(period):
        integration = osc.Integration(diffrax.Euler(), steps_per_cycle=period)
        teaching, record = osc.Staircase(0.5, float(period), 10), osc.PerCycle(neurons=0)
        options = {"cycles": cycles, "integration": integration, "record": record, "progress": False}
        return running_errors(osc.simulate(net, x, y, teaching, **options), exact)

    _, errors, distances = zip(*map(running, periods), strict=True)
    panels = {}
    for name, quantity, values in (("a", "one_minus_cosine", distances), ("b", "relative_error", errors)):
        panels[name] = xarray.Dataset(
            {quantity: (("period", "cycle"), np.array(values))},
            coords={"period": ("period", np.asarray(periods), {"units": "tau"}), "cycle": np.arange(1, cycles + 1)},
            attrs={"figure": f"3{name}", "network": "784-256-256-10", "amplitude": 0.5},
        )
    return panels | {"c": fig3c(images, labels, amplitudes=amplitudes, seeds=seeds, progress=progress)}


def fig3c(
    images: Array | np.ndarray,
    labels: Array | np.ndarray,
    *,
    amplitudes: Sequence[float] = AMPLITUDES,
    seeds: int = 16,
    progress: bool | None = None,
) -> xarray.Dataset:
    """How well a gradient survives noise: 0.01 at every step, the same for all samples of a batch of 10.

    Each seed is another network, another batch and another noise. The classic estimate averages five readings of each
    phase, as the authors' code does.

    Args:
        images: MNIST training images, (n, 784) in [0, 1].
        labels: theirs, (n,).
        amplitudes: of the teaching signal.
        seeds: how many.
        progress: as in `sweep`.

    Returns:
        `cosine` to the exact gradient without noise, over `amplitude`, `points` (1: classic, and 15) and `seed`.

    Example:
        >>> images, labels = osc.datasets.load("mnist")  # doctest: +SKIP
        >>> osc.paper.fig3c(images, labels, amplitudes=[0.1, 1.03], seeds=4).cosine.mean("seed")  # doctest: +SKIP
    """

    def survival(key, amplitude, points):
        key_net, key_batch, key_noise = jax.random.split(key, 3)
        net = mnist_network(key_net)
        rows = jax.random.choice(key_batch, len(images), (10,), replace=False)
        x, y = jnp.asarray(images)[rows], jnp.asarray(labels)[rows]
        noise = osc.StepNoise(standard_deviation=0.01, shared_over_batch=True)
        if points == 1:
            estimator = osc.Classic(amplitude, steps=(100, 60), noise=noise, readings=5)
        else:
            estimator = osc.Phases(amplitude, points, steps=(100, 60), noise=noise)
        exact = osc.Exact()(net, x, y).gradient
        return {"cosine": osc.cosine(estimator(net, x, y, key=key_noise).gradient, exact)}

    study = studies.FunctionStudy(survival, known={"cosine": studies.Quantity("cosine to the gradient without noise")})
    axes = {"amplitude": list(amplitudes), "points": list(NAMES)}
    found = osc.sweep(study, axes, seeds=seeds, key=jax.random.key(0), progress=progress)
    return found.assign_attrs(figure="3c", network="784-256-256-10")


def draw_fig3(panels: Panels) -> np.ndarray:
    """Draw what `fig3` returned, the authors' curves behind. Returns the three axes.

    Example:
        >>> images, labels = osc.datasets.load("mnist")  # doctest: +SKIP
        >>> axes = osc.paper.draw_fig3(osc.paper.fig3(images, labels))  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 3, figsize=(11.4, 3.7), layout="constrained")
    _draw_running(axes[0], panels["a"].one_minus_cosine, "1 − cosine to the exact gradient")
    _draw_running(axes[1], panels["b"].relative_error, "relative error")
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(low, 30 * high)  # room for the legend
    style.legend(axes[1], title="period", title_fontsize=8, loc="upper right", ncols=2)
    draw_fig3c(panels["c"], axes[2])
    with_letters(axes)
    return axes


def _draw_running(ax: Axes, curves: xarray.DataArray, label: str) -> None:
    for number, period in enumerate(curves.period.values):
        one = curves.sel(period=period)
        ax.plot(one.cycle, one, linewidth=1.6, label=rf"{period} $\tau$", **style.curve_style(number))
    for number, run in enumerate(run for run in authors()["fig3ab"] if run["period"] in curves.period.values):
        cosines, distances = np.array(run["cosine"]), np.array(run["distance"])
        theirs = 1 - cosines if curves.name == "one_minus_cosine" else distances / distances[0]
        note = None if number else "authors"
        shown = np.where(theirs[1:] > 0, theirs[1:], np.nan)
        ax.plot(np.arange(1, len(theirs)), shown, label=note, color="black", **THEIRS)
    ax.set(xscale="log", yscale="log", xlabel="periods averaged, from rest", ylabel=label)
    ax.set_xticks([1, 2, 5, 10, 20, 40], labels=["1", "2", "5", "10", "20", "40"], minor=False)
    ax.set_xticks([], minor=True)


def draw_fig3c(data: xarray.Dataset, ax: Axes | None = None) -> Axes:
    """Draw what `fig3c` returned: mean and 95 % interval over the seeds, the authors' two runs behind. Returns axes."""
    ax = style.axes_or_new(ax)
    for number, (points, label) in enumerate(NAMES.items()):
        ax = sweep_curves(data.sel(points=points).drop_vars("points"), "cosine", ax, log="x")
        ax.lines[-1].set(color=style.COLOURS[1 - number], label=label)
        ax.collections[-1].set(color=style.COLOURS[1 - number], alpha=0.25)
    lowest = float(data.amplitude.min())
    for number, run in enumerate(authors()["fig3c"]):
        for points in NAMES:
            keep = np.asarray(run["amplitude"]) >= lowest
            theirs = np.asarray(run["amplitude"])[keep], np.asarray(run["cosine"][f"N={points}"])[keep]
            note = "authors, two runs" if points == 15 and number == 0 else None
            (line,) = ax.plot(*theirs, label=note, color="black", **THEIRS)
            line.set(linestyle=["--", ":"][number % 2])
    ax.set(ylim=(0, 1.02), xlabel="amplitude")
    style.legend(ax, loc="lower center")
    return ax
