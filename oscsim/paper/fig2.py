"""Fig. 2: a teaching signal of any size, on a small network."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import xarray
from jaxtyping import Array
from matplotlib.axes import Axes

import oscsim as osc
from oscsim.paper.authors import authors
from oscsim.paper.panels import THEIRS, Panels, with_letters
from oscsim.plot import stability, style
from oscsim.response import convergence_radius, stability_map

CIRCLE = 96
"""Points around each circle of panel c."""


def toy() -> tuple[osc.LayeredNetwork, Array, np.ndarray]:
    """The authors' network 6-4-4-4, and their sample."""
    theirs = authors()["toy"]
    net = osc.LayeredNetwork((6, 4, 4, 4), weights=[np.array(w, float) for w in theirs["weights"]])
    return net, jnp.asarray(theirs["x"], float), np.array(theirs["y"])


def fig2(*, amplitudes: Sequence[float] | None = None, resolution: int = 61, period: float = 400.0) -> Panels:
    r"""The authors' network 6-4-4-4: how it oscillates, where it settles, and how good its gradient is.

    Args:
        amplitudes: of panel d; by default those of the authors, 0.01 to 2.
        resolution: of the map in panel b, points along each side.
        period: of the oscillation in panel a, in tau.

    Returns:
        `a`: `teaching` $\beta(t)$ and `activity` $s(t) - c_0$ of the last layer over one period, real and imaginary
        parts. `b`: `settled`, where in the plane of $\beta$ the free equilibrium continues to.
        `c`: `activity` of the last layer, settled at $\beta$ around circles of growing `amplitude`. `d`: as `fig2d`.

    Example:
        >>> panels = osc.paper.fig2(amplitudes=[0.1, 0.4], resolution=9)  # doctest: +SKIP
        >>> sorted(panels)  # doctest: +SKIP
    """
    net, x, y = toy()
    radius = convergence_radius(net, x, y)
    panels = {
        "a": _oscillation(net, x, y, 0.5 * radius, period),
        "b": _settled(net, x, y, radius, resolution),
        "c": _circles(net, x, y, radius),
        "d": fig2d(amplitudes),
    }
    for name, panel in panels.items():
        panel.attrs |= {"figure": f"2{name}", "network": "6-4-4-4", "radius": radius}
    return panels


def _oscillation(net: osc.AbstractNetwork, x: Array, y: np.ndarray, amplitude: float, period: float) -> xarray.Dataset:
    run = osc.simulate(net, x, y, osc.Rotating(amplitude, period), cycles=4, progress=False)
    if run.watched is None:
        raise AssertionError("simulate records samples unless it is told not to")
    samples = np.asarray(run.watched.activities[-1][-1, :, 0]).T
    teaching = np.asarray(run.watched.teaching[-1, :, 0])
    time = period * np.arange(1, len(teaching) + 1) / len(teaching)
    return xarray.Dataset(
        {
            "teaching": _parts(teaching, "time"),
            "activity": _parts(samples - samples.mean(axis=1, keepdims=True), "neuron", "time"),
        },
        coords={"time": ("time", time, {"units": "tau"}), "neuron": np.arange(1, len(samples) + 1)},
    )


def _settled(net: osc.AbstractNetwork, x: Array, y: np.ndarray, radius: float, resolution: int) -> xarray.Dataset:
    side = np.linspace(-2 * radius, 2 * radius, resolution)
    found = stability_map(net, x, y, side + 1j * side[:, None])
    return xarray.Dataset(
        {"settled": (("beta_imaginary", "beta_real"), np.asarray(found.settled))},
        coords={"beta_real": side, "beta_imaginary": side},
    )


def _circles(net: osc.AbstractNetwork, x: Array, y: np.ndarray, radius: float) -> xarray.Dataset:
    shares = np.array([0.25, 0.5, 0.75, 0.95])
    angle = 2 * np.pi * np.arange(CIRCLE + 1) / CIRCLE
    beta = radius * shares[:, None] * np.exp(1j * angle)
    layer = np.asarray(stability_map(net, x, y, beta).activities[-1])[:, :, 0]
    return xarray.Dataset(
        {"activity": _parts(np.moveaxis(layer, -1, 0), "neuron", "amplitude", "angle")},
        coords={"neuron": np.arange(1, layer.shape[-1] + 1), "amplitude": radius * shares, "angle": angle},
    )


def fig2d(amplitudes: Sequence[float] | None = None) -> xarray.Dataset:
    """How good the gradient of the authors' network 6-4-4-4 is, against the amplitude of the teaching signal.

    Args:
        amplitudes: by default those of the authors, 0.01 to 2.

    Returns:
        `cosine` of the estimate to the exact gradient, over `amplitude` and `points` N (1: classic, and 30).

    Example:
        >>> quality = osc.paper.fig2d(amplitudes=[0.4])  # doctest: +SKIP
        >>> quality.cosine.sel(points=30)  # doctest: +SKIP
    """
    net, x, y = toy()
    sizes: Sequence[float] = authors()["fig2d"]["amplitude"] if amplitudes is None else amplitudes
    exact = osc.exact_gradient(net, x, y)
    estimators = {1: osc.Classic, 30: lambda a: osc.Phases(a, 30, steps=(100, 100))}

    def quality(estimator):  # wrong ones are drawn too
        return float(osc.cosine(estimator(net, x, y, tolerance=math.inf).gradient, exact))

    found = [[quality(make(a)) for a in sizes] for make in estimators.values()]
    return xarray.Dataset(
        {"cosine": (("points", "amplitude"), np.array(found))},
        coords={"points": list(estimators), "amplitude": np.asarray(sizes, float)},
    )


def _parts(values: np.ndarray, *dims: str) -> tuple[tuple[str, ...], np.ndarray]:
    return ("part", *dims), np.stack([np.real(values), np.imag(values)])


def draw_fig2(panels: Panels) -> np.ndarray:
    """Draw what `fig2` returned, the authors' curves behind panel d. Returns the four axes.

    Example:
        >>> axes = osc.paper.draw_fig2(osc.paper.fig2())  # doctest: +SKIP
    """
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(2, 2, figsize=(8.0, 6.6), layout="constrained")
    radius = panels["b"].attrs["radius"]
    _draw_oscillation(axes[0, 0], panels["a"])
    settled = panels["b"]
    beta = settled.beta_real.values + 1j * settled.beta_imaginary.values[:, None]
    circles = {r"$\beta(t)$ of panel a": radius / 2, f"convergence radius {radius:.2f}": radius}
    stability(beta, settled.settled.values, axes[0, 1], circles=circles)
    _draw_circles(axes[1, 0], panels["c"], radius)
    _draw_cosines(axes[1, 1], panels["d"], radius)
    with_letters(axes.flat)
    return axes


def _draw_oscillation(ax: Axes, panel: xarray.Dataset) -> None:
    real = panel.isel(part=0)
    for number, neuron in enumerate(real.neuron.values):
        ax.plot(real.time, real.activity.sel(neuron=neuron), **style.curve_style(number))  # panel c names them
    ax.set(xlabel=r"time ($\tau$)", ylabel=r"Re $(s - c_0)$, last layer")
    drive = ax.twinx()
    drive.plot(real.time, real.teaching, color=style.DRIVE, linestyle=(0, (1, 1.2)), label=r"Re $\beta$")
    drive.set_ylabel(r"Re $\beta$ (dotted)")
    style.finish(drive)
    drive.spines["right"].set_visible(True)
    for side, values in ((ax, real.activity), (drive, real.teaching)):
        reach = 1.25 * float(abs(values).max())
        side.set_ylim(-reach, reach)


def _draw_circles(ax: Axes, panel: xarray.Dataset, radius: float) -> None:
    sizes = panel.amplitude.values
    for number, neuron in enumerate(panel.neuron.values):
        for amplitude in sizes:
            real, imaginary = panel.activity.sel(neuron=neuron, amplitude=amplitude).values
            label = f"neuron {neuron}" if amplitude == sizes[-1] else None
            ax.plot(
                real, imaginary, color=style.COLOURS[number], linewidth=0.6 + 1.2 * amplitude / sizes[-1], label=label
            )
    ax.set_aspect("equal", adjustable="datalim")
    ax.set(xlabel=r"Re $s$, last layer", ylabel=r"Im $s$")
    shares = ", ".join(f"{amplitude / radius:.2g}" for amplitude in sizes)
    ax.annotate(f"$|\\beta|$ = {shares} radii", (0.02, 0.02), xycoords="axes fraction", fontsize=style.NOTE_SIZE)
    style.legend(ax, loc="upper left")


def _draw_cosines(ax: Axes, panel: xarray.Dataset, radius: float) -> None:
    theirs = authors()["fig2d"]
    for number, points in enumerate(panel.points.values):
        name = "classic, N = 1" if points == 1 else f"holomorphic, N = {points}"
        one = panel.cosine.sel(points=points)
        ax.plot(one.amplitude, one, label=name, linewidth=1.8, color=style.COLOURS[1 - number])
        note = None if number else "authors"
        (dashed,) = ax.plot(theirs["amplitude"], theirs["cosine"][f"N={points}"], label=note, color="black", **THEIRS)
        dashed.set_zorder(3)  # else the curve that agrees with it hides it
    ax.axvline(radius, color="0.6", linewidth=0.8, linestyle=(0, (1, 2)))
    place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "left", "va": "center"}
    ax.annotate(" radius", (radius, 0.6), fontsize=style.NOTE_SIZE, color="0.4", **place)
    ax.set(xlabel=r"amplitude $|\beta|$", ylabel="cosine to the exact gradient")
    style.legend(ax, loc="lower left")
