"""A run as a moving picture."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes

from oscsim.core.checks import as_count, as_index, checked
from oscsim.core.errors import BadValue
from oscsim.dynamics import Run
from oscsim.dynamics.run import RUN
from oscsim.networks.learned import Gradient, as_known_gradient
from oscsim.plot.runs import Chosen, as_chosen, picture_of, running_errors
from oscsim.plot.style import COLOURS, DRIVE, LABEL_SIZE, NOTE_SIZE, finish, legend, square

Styles: TypeAlias = list[tuple[dict, str]]
Draw: TypeAlias = Callable[[int], None]
"""Draws one panel as it is after so many ticks."""


@checked(run=RUN, exact=as_known_gradient, sample=as_index, neurons=as_chosen, discard=as_index)
def animate(
    run: Run,
    exact: Gradient | None = None,
    *,
    sample: int | None = None,
    neurons: Chosen = None,
    discard: int = 0,
    frames: int = 16,
    hold: int = 0,
) -> FuncAnimation:
    r"""A run as a moving picture: the teaching signal turns, neurons follow, and the gradient in them builds up.

    Left, the teaching signal $\beta(t)$; middle, the paths of the watched neurons about their means, over the last
    period; right, the response of each that has been read up to then,

    $$ \mathrm{Re}\,\frac{1}{a_1 t}\int_0^t (s - c_0)\, e^{-i\omega t'}\, dt', $$

    with $a_1$ the first coefficient of the teaching signal: at the end of each cycle it is $\mathrm{Re}\,c_1/a_1$, of
    which the gradient is made. With `exact` the right panel shows the relative error of the gradient read from the
    cycles so far instead.

    In a notebook, `IPython.display.HTML(animation.to_jshtml())` shows it with a slider. `animation.save("run.gif")`
    and, where ffmpeg is installed, `.save("run.mp4")` write it. All cycles are shown after
    `record=PerCycle(every_cycle=True)`, otherwise the last.

    Args:
        run: from `simulate`, with samples of some neurons.
        exact: the exact gradient, as `exact_gradient` gives it.
        sample: which of the watched samples; by default the first.
        neurons: which of the watched neurons, such as `{1: [0, 5]}` for two of the first layer; by default all.
        discard: how many cycles at the start are not read.
        frames: frames per cycle.
        hold: how many more frames show the end.

    Raises:
        ValueError: the run holds no samples of these; `discard` leaves nothing of them; with `exact`, as
            `gradient_error`.

    Example:
        >>> animation = osc.plot.animate(run, frames=4)
        >>> animation.save("run.gif")
    """
    import matplotlib.pyplot as plt

    picture = picture_of(run, "animate", sample, neurons)
    drawn, beta = picture.curves, picture.teaching
    cycles, ticks = beta.shape
    if as_count("discard", discard, 0) >= run.cycles:
        raise BadValue(f"discard={discard} leaves none of {run.cycles} cycles: use a smaller number")
    unread = max(discard - (run.cycles - cycles), 0)  # of the cycles that are shown
    paths = np.stack([(samples - samples[unread:].mean()).ravel() for _, _, samples in drawn])
    styles = [(style, label) for style, label, _ in drawn]
    figure, axes = plt.subplots(1, 3, figsize=(9.4, 3.2), layout="constrained")
    draw_signal, draw_paths = _signal(axes[0], beta.ravel(), ticks), _paths(axes[1], styles, paths, ticks)
    if exact is None:
        draw_reading = _responses(axes[2], styles, paths, run.time, beta, unread * ticks)
    else:
        draw_reading = _errors(axes[2], run, exact, discard)
    axes[2].set(xlabel=r"time (units of $\tau$)", xlim=(2 * run.time[0] - run.time[1], 1.01 * run.time[-1]))
    now = axes[2].axvline(run.time[0], color=DRIVE, linewidth=0.8)
    for ax in axes:
        finish(ax)

    def draw(end: int) -> None:
        draw_signal(end)
        draw_paths(end)
        draw_reading(end)
        now.set_xdata([run.time[end - 1]] * 2)

    per_cycle = min(as_count("frames", frames), ticks)
    ends = np.linspace(0, cycles * ticks, per_cycle * cycles + 1).astype(int)[1:].tolist()
    return FuncAnimation(figure, draw, frames=[*ends, *ends[-1:] * as_count("hold", hold, 0)], interval=100)


def _signal(ax: Axes, beta: np.ndarray, ticks: int) -> Draw:
    """The teaching signal as a hand that turns, and the number of the cycle."""
    ax.plot(np.real(beta[: ticks + 1]), np.imag(beta[: ticks + 1]), color="0.8", linewidth=1)
    (hand,) = ax.plot([], [], color=DRIVE, linewidth=1.5)
    (tip,) = ax.plot([], [], "o", color=DRIVE, markersize=7)
    clock = ax.text(0.02, 0.98, "", ha="left", va="top", fontsize=LABEL_SIZE, transform=ax.transAxes)
    ax.set(xlabel=r"Re $\beta$", ylabel=r"Im $\beta$")
    ax.set_title("teaching signal", fontsize=LABEL_SIZE)
    square(ax, 1.25 * float(np.abs(beta).max()))

    def draw(end: int) -> None:
        b = complex(beta[end - 1])
        hand.set_data([0, b.real], [0, b.imag])
        tip.set_data([b.real], [b.imag])
        clock.set_text(f"cycle {(end - 1) // ticks + 1}")

    return draw


def _paths(ax: Axes, styles: Styles, paths: np.ndarray, ticks: int) -> Draw:
    """Where the neurons are, and where they were in the last period."""
    trails = [ax.plot([], [], linewidth=1.2, **style)[0] for style, _ in styles]
    dots = [ax.plot([], [], "o", color=style["color"], markersize=5)[0] for style, _ in styles]
    ax.set(xlabel=r"Re $(s - c_0)$", ylabel=r"Im $(s - c_0)$")
    ax.set_title("neurons, about their means $c_0$", fontsize=LABEL_SIZE)
    square(ax, 1.05 * float(np.abs(paths).max()))

    def draw(end: int) -> None:
        for trail, dot, path in zip(trails, dots, paths, strict=True):
            seen = path[max(0, end - ticks) : end]
            trail.set_data(np.real(seen), np.imag(seen))
            dot.set_data(np.real(seen[-1:]), np.imag(seen[-1:]))

    return draw


def _responses(ax: Axes, styles: Styles, paths: np.ndarray, time: np.ndarray, beta: np.ndarray, unread: int) -> Draw:
    """The response of each neuron that has been read so far: the mean of what turns along with the signal."""
    back = np.exp(-2j * np.pi * (1 + np.arange(beta.size)) / beta.shape[1])[unread:]
    first = np.mean(beta.ravel()[unread:] * back)
    count = 1 + np.arange(len(back))
    read = (np.cumsum(paths[:, unread:] * back, axis=1) / (count * first)).real
    curves = [ax.plot([], [], linewidth=1.2, label=label, **style)[0] for style, label in styles]
    if unread > 0:
        _not_read(ax, time[0], time[unread])
    ax.set_title("response read so far", fontsize=LABEL_SIZE)
    ax.set_ylabel(r"Re $c_1 / a_1$")
    low, high = read[:, len(back) // 4 :].min(), read[:, len(back) // 4 :].max()  # the first ticks scatter far
    ax.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.02))

    def draw(end: int) -> None:
        for curve, values in zip(curves, read, strict=True):
            seen = max(0, end - unread)
            curve.set_data(time[unread : unread + seen], values[:seen])

    return draw


def _errors(ax: Axes, run: Run, exact: Gradient, discard: int) -> Draw:
    """The error of the gradient at the end of each cycle."""
    cycle, errors, _ = running_errors(run, exact, discard)
    period = float(run.teaching.period)
    if discard:
        _not_read(ax, period * run.first_cycle, period * (cycle[0] - 1))
    (curve,) = ax.plot([], [], "o-", color=COLOURS[1], markersize=5, linewidth=1.2, label="measured")
    ax.set_title("error of the gradient read so far", fontsize=LABEL_SIZE)
    ax.set(ylabel="relative error (%)", ylim=(0, 115 * np.nanmax(errors)))

    def draw(end: int) -> None:
        read = cycle * period <= run.time[end - 1] * (1 + 1e-6)
        curve.set_data(period * cycle[read], 100 * errors[read])

    return draw


def _not_read(ax: Axes, start: float, end: float) -> None:
    """Mark the cycles that are left out."""
    ax.axvspan(start, end, color="0.93", linewidth=0)
    place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "center", "va": "bottom"}
    ax.annotate("not read", ((start + end) / 2, 0.03), fontsize=NOTE_SIZE, color="0.35", **place)
