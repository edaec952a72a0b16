"""Table 1: MNIST learned by oscillation, with noise and without, beside classic equilibrium propagation."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import diffrax
import jax
import numpy as np
import optax
import xarray
from jaxtyping import Array

import oscsim as osc
from oscsim.core import as_path, checkpoint
from oscsim.paper.authors import authors
from oscsim.paper.panels import THEIRS, Panels
from oscsim.plot import style
from oscsim.training import Checkpoints, Monitor

NOISES = {"no_noise": 0.0, "noise": 0.04}
"""Standard deviation of the noise on the potentials at every step, in the two halves of the table."""


Split: TypeAlias = tuple[Array | np.ndarray, Array | np.ndarray]
"""Images and labels."""


class Method(NamedTuple):
    """A row of the table.

    Attributes:
        name: in words.
        estimator: from the noise to the estimator of the authors' settings.
        noisy: whether it has a half with noise.
    """

    name: str
    estimator: Callable[[osc.StepNoise | None], osc.AbstractEstimator]
    noisy: bool = True


def _classic(amplitude: float) -> Callable[[osc.StepNoise | None], osc.Classic]:
    # Under noise ten readings of each phase are averaged: with so many, the curves that the paper quotes are met.
    return lambda noise: osc.Classic(amplitude, steps=(350, 350), noise=noise, readings=1 if noise is None else 10)


def _continuous(noise: osc.StepNoise | None) -> osc.LockIn:
    integration = osc.Integration(diffrax.Euler(), steps_per_cycle=300)
    return osc.LockIn(osc.Staircase(0.4, 300.0, 10), cycles=3, discard=0, integration=integration, noise=noise)


def _lock_in(noise: osc.StepNoise | None) -> osc.LockIn:
    integration = osc.Integration(diffrax.Euler(), steps_per_cycle=300)
    return osc.LockIn(osc.Adaptive(300.0), cycles=3, integration=integration, noise=noise)


METHODS = {
    "hep": Method("holomorphic, N = 10", lambda noise: osc.Phases(0.4, 10, steps=(200, 50), noise=noise)),
    "continuous_hep": Method("holomorphic, continuous", _continuous),
    "classic_ep_4e-1": Method("classic, amplitude 0.4", _classic(0.4)),
    "classic_ep_1e-1": Method("classic, amplitude 0.1", _classic(0.1)),
    "orbit": Method("orbit, period 300", lambda noise: osc.Orbit(300.0), noisy=False),
    "lock_in": Method("lock-in, its own amplitudes", _lock_in),
    "backpropagation": Method("backpropagation", lambda noise: osc.Backpropagation(), noisy=False),
}
"""The rows of the table: the paper's, by the names that `authors()["table1"]` has for them, and three of our own.

The last is the feed-forward network with the same weights at the start.
"""

PAPERS = tuple(METHODS)[:4]
"""The paper's own rows."""


def table1(
    data: Split,
    validation: Split,
    *,
    out: str | Path,
    epochs: int = 2,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] = PAPERS,
    noises: Sequence[Literal["no_noise", "noise"]] = tuple(NOISES),  # pyright: ignore[reportArgumentType]
    progress: bool | None = None,
) -> Panels:
    """Train 784-256-256-10 by every method, with and without noise, at batches of 20 and a rate of 0.05.

    An epoch of MNIST takes minutes for each run on a CPU; the paper's have 50. Each run has a folder in `out`, with
    checkpoints: the same call again goes on where it stopped, and one with more epochs goes on from there.

    Args:
        data: MNIST training images and labels, or some of them.
        validation: the test images and labels.
        out: folder for the runs.
        epochs: of each run.
        seeds: of the initial weights, the order of the samples, the noise.
        methods: which rows, of `METHODS`; by default the paper's four. The others are `"orbit"`, the gradient that an
            endless lock-in would read; `"lock_in"` with amplitudes that tune themselves; `"backpropagation"` through
            the feed-forward network of the same size. The first and the last have no noise: nan in that half.
        noises: which halves.
        progress: as in `train`.

    Returns:
        `errors`: `validation_error` in percent over `noise`, `method`, `seed` and `epoch`. `table`: of that the mean
        over seeds of the `final` and the `best` epoch, and the authors' after as many epochs (`authors_then`) and the
        best of their 50 (`authors_best`).

    Raises:
        ValueError: an unknown method or noise, or as `train`.

    Example:
        >>> data = osc.datasets.load("mnist")  # doctest: +SKIP
        >>> test = osc.datasets.load("mnist", "test")  # doctest: +SKIP
        >>> panels = osc.paper.table1(data, test, out="table1", epochs=1, seeds=[0])  # doctest: +SKIP
    """
    for argument, given, known in (("methods", methods, METHODS), ("noises", noises, NOISES)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise osc.BadValue(f"{argument}={tuple(given)}: {unknown[0]!r} is none of {', '.join(map(repr, known))}")
    runs = [
        _run(data, validation, as_path("out", out) / f"{noise}-{method}-{seed}", noise, method, seed, epochs, progress)
        for noise, method, seed in itertools.product(noises, methods, seeds)
    ]
    found = np.reshape(runs, (len(noises), len(methods), len(seeds), epochs))
    coords = {"noise": list(noises), "method": list(methods), "seed": list(seeds), "epoch": np.arange(1, epochs + 1)}
    attributes = {"long_name": "validation error", "units": "%"}
    errors = xarray.Dataset({"validation_error": (tuple(coords), found, attributes)}, coords=coords)
    return {"errors": errors, "table": _table(errors)}


def _run(
    data: Split, validation: Split, folder: Path, noise: str, method: str, seed: int, epochs: int, progress: bool | None
) -> list[float]:
    key_weights, key = jax.random.split(jax.random.key(seed))
    strength, row = NOISES[noise], METHODS[method]
    if strength and not row.noisy:
        return [np.nan] * epochs
    sizes = 784, 256, 256, 10
    if method == "backpropagation":
        net = osc.FeedForwardNetwork(sizes, activation=osc.Logistic(slope=4.0, centre=0.5), key=key_weights)
    else:
        net = osc.LayeredNetwork(sizes, key=key_weights)
    estimator = row.estimator(osc.StepNoise(standard_deviation=strength, shared_over_batch=True) if strength else None)
    trained = osc.train(
        net,
        data,
        estimator,
        optax.sgd(0.05),
        epochs=epochs,
        key=key,
        batch_size=20,
        validation=validation,
        checkpoints=Checkpoints(folder, resume=bool(checkpoint.paths(folder))),
        monitor=Monitor(probe=0, progress=progress),
        devices=jax.devices()[:1],
    )
    return [row["validation_error"] for row in trained.history[:epochs]]


def _table(errors: xarray.Dataset) -> xarray.Dataset:
    """The mean over seeds: ours in the final and the best epoch, the authors' after as many, and their best."""
    ours, epochs = errors.validation_error, errors.sizes["epoch"]
    rows = {"final": ours.isel(epoch=-1).mean("seed"), "best": ours.min("epoch").mean("seed")}
    theirs = np.array([[_published(noise, method) for method in ours.method.values] for noise in ours.noise.values])
    dims = ("noise", "method")
    rows["authors_then"] = xarray.DataArray(theirs[..., min(epochs, 50) - 1].mean(axis=-1), dims=dims)
    rows["authors_best"] = xarray.DataArray(theirs.min(axis=-1).mean(axis=-1), dims=dims)
    return xarray.Dataset(rows).drop_vars("epoch", errors="ignore")


def _published(noise: str, method: str) -> np.ndarray:
    """The authors' errors in percent, (runs, epochs); nan for a row that is not theirs."""
    return np.array(authors()["table1"][noise].get(method, np.full((3, 50), np.nan)))


def draw_table1(panels: Panels) -> np.ndarray:
    """Draw what `table1` returned: test error over epochs, mean and range of the seeds, the authors' curves behind.

    Example:
        >>> data = osc.datasets.load("mnist")  # doctest: +SKIP
        >>> panels = osc.paper.table1(data, osc.datasets.load("mnist", "test"), out="table1")  # doctest: +SKIP
        >>> axes = osc.paper.draw_table1(panels)  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    errors = panels["errors"].validation_error
    count = errors.sizes["noise"]
    _, axes = plt.subplots(1, count, figsize=(0.6 + 4.4 * count, 3.6), layout="constrained", squeeze=False, sharey=True)
    epochs = errors.epoch.values
    theirs = THEIRS | {"marker": "_", "markersize": 5}  # one epoch is seen, too
    for noise, ax in zip(errors.noise.values, axes[0], strict=True):
        for number, method in enumerate(errors.method.values):
            colour = style.COLOURS[number]
            one = errors.sel({"noise": noise, "method": method})  # the keyword `method` means something else
            ax.plot(epochs, one.mean("seed"), color=colour, marker="o", markersize=4, label=METHODS[method].name)
            ax.fill_between(epochs, one.min("seed"), one.max("seed"), color=colour, alpha=0.2, linewidth=0)
            for run in _published(noise, method):
                ax.plot(epochs[:50], run[: len(epochs)], color=colour, **theirs)
        ax.plot([], [], color="0.3", label="authors, three runs each", **theirs)
        strength = NOISES[noise]
        ax.set_title(f"noise {strength} at every step" if strength else "no noise", fontsize=9)
        ax.set(xlabel="epoch", yscale="log")
        ticks = [1, 2, 5, 10, 20, 50, 90]
        ax.set_yticks(ticks, labels=map(str, ticks))
        ax.set_yticks([], minor=True)
        ax.set_xlim(0.5, epochs[-1] + 0.5)
        style.whole_ticks(ax) if len(epochs) > 10 else ax.set_xticks(epochs)
        style.finish(ax)
    axes[0, 0].set_ylabel("test error (%)")
    style.legend(axes[0, -1], loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return axes[0]
