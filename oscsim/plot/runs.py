"""Figures of a run: orbits, traces, spectra, and how close the gradient in them comes to the exact one."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from matplotlib.axes import Axes

from oscsim.core.arrays import describe
from oscsim.core.checks import Given, as_count, as_function, as_index, as_sequence, checked, require_instance, shown
from oscsim.core.errors import BadType, BadValue
from oscsim.dynamics import PerCycle, PeriodicOrbit, Run, System
from oscsim.dynamics.average import Average, accumulated
from oscsim.dynamics.cycle import Watch, Watched
from oscsim.dynamics.error_bars import gradient_and_error
from oscsim.dynamics.gradient import Reading
from oscsim.dynamics.orbit import watched as watched_on
from oscsim.dynamics.run import RUN
from oscsim.equilibrium.metrics import errors_of, per_layer, relative_error
from oscsim.estimators import Estimate
from oscsim.networks import Inputs
from oscsim.networks.base import time_unit
from oscsim.networks.learned import Gradient, as_known_gradient
from oscsim.plot.style import (
    COLOURS,
    DRIVE,
    LABEL_SIZE,
    NOTE_SIZE,
    as_axes,
    axes_or_new,
    curve_style,
    finish,
    legend,
    own_bar,
    square,
    whole_ticks,
)

Estimates: TypeAlias = Gradient | Estimate | Mapping[str, Gradient | Estimate]
"""A gradient or an `Estimate`, or several by name."""

Drawn: TypeAlias = Run | PeriodicOrbit
"""What figures of watched neurons draw."""

Chosen: TypeAlias = Mapping[int, Sequence[int]] | None
"""Neurons by layer, counted from 1, or all that were watched."""


def as_drawn(name: str, run: Given) -> Drawn:
    """What figures of watched neurons draw, or an error that names what is none."""
    require_instance(name, run, (Run, PeriodicOrbit), "use what simulate returned, or periodic_orbit")
    return run


def as_chosen(name: str, neurons: Given) -> dict[int, tuple[int, ...]]:
    """Indices of neurons by layer, or an error that names what is none."""
    match neurons:
        case Mapping():
            return {
                as_count(f"{name}: layer", layer): tuple(
                    as_index(f"{name}[{layer}]", i) for i in as_sequence(name, some)
                )
                for layer, some in neurons.items()
            }
    raise BadType(
        f"{name}={shown(neurons)}: give a dict from layers, counted from 1, to indices, such as {{1: [0, 5]}}"
    )


def as_estimates(name: str, estimates: Given) -> dict[str, Gradient]:
    """Gradients by name, or an error that names what is none; what has no name is called "", which no legend shows."""
    named = estimates if isinstance(estimates, Mapping) else {"": estimates}
    if not named:
        raise BadValue(f"{name}={{}}: give one gradient at least")
    return {str(key): as_known_gradient(name, e.gradient if isinstance(e, Estimate) else e) for key, e in named.items()}


@checked(run=as_drawn, ax=as_axes, sample=as_index, neurons=as_chosen)
def orbits(run: Drawn, ax: Axes | None = None, *, sample: int | None = None, neurons: Chosen = None) -> Axes:
    r"""The path of each watched neuron in the complex plane over the last cycle, about its mean: $s(t) - c_0$.

    The inset shows the teaching signal over the same cycle; dots mark the end of the cycle on all of them.

    Args:
        run: from `simulate`, with samples of some neurons; or from `periodic_orbit`.
        ax: where to draw; by default a new figure.
        sample: which of the watched samples; by default the first.
        neurons: which of the watched neurons, such as `{1: [0, 5]}` for two of the first layer; by default all.

    Raises:
        ValueError: the run holds no samples of these.

    Example:
        >>> ax = osc.plot.orbits(run)
        >>> len(ax.lines) >= 5  # a path for each watched neuron
        True
    """
    drawn = picture_of(run, "orbits", sample, neurons)
    ax, ticks = axes_or_new(ax), drawn.teaching.shape[1]
    sampled = "." if ticks <= 24 else None
    turn = np.append(np.arange(ticks), 0) if drawn.closed else np.arange(ticks)
    for style, label, samples in drawn.curves:
        s = samples[-1] - samples[-1].mean()
        ax.plot(s.real[turn], s.imag[turn], label=label, marker=sampled, linewidth=1.2, **style)
        ax.plot(s.real[-1:], s.imag[-1:], marker="o", markersize=3.5, color=style["color"])
    reach = 1.3 * max(np.abs(samples[-1] - samples[-1].mean()).max() for _, _, samples in drawn.curves)
    square(ax, reach)
    ax.set(xlabel=r"Re $(s - c_0)$", ylabel=r"Im $(s - c_0)$")
    finish(ax)
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.02))

    beta = drawn.teaching[-1]
    inset = ax.inset_axes((0.79, 0.79, 0.2, 0.2))
    inset.plot(beta.real[turn], beta.imag[turn], color=DRIVE, marker=sampled, linewidth=1)
    inset.plot(beta.real[-1:], beta.imag[-1:], marker="o", markersize=3, color=DRIVE)
    inset.set_aspect("equal", adjustable="datalim")
    inset.margins(0.12)
    inset.set_axis_off()
    inset.text(0.5, 0.5, r"$\beta$", transform=inset.transAxes, ha="center", va="center", fontsize=LABEL_SIZE)
    return ax


@checked(run=as_drawn, ax=as_axes, sample=as_index, neurons=as_chosen)
def traces(run: Drawn, ax: Axes | None = None, *, sample: int | None = None, neurons: Chosen = None) -> Axes:
    r"""The watched activities against time, about their means in the last cycle, and the teaching signal (right axis).

    The last cycle, or all of them after `record=PerCycle(every_cycle=True)`. Zero is at the same height on both axes.

    Args:
        run: from `simulate`, with samples of some neurons; or from `periodic_orbit`.
        ax: where to draw; by default a new figure.
        sample: which of the watched samples; by default the first.
        neurons: which of the watched neurons, such as `{1: [0, 5]}` for two of the first layer; by default all.

    Raises:
        ValueError: the run holds no samples of these.

    Example:
        >>> ax = osc.plot.traces(run)
        >>> ax.figure.savefig("traces.png")
    """
    drawn = picture_of(run, "traces", sample, neurons)
    ax, time = axes_or_new(ax), drawn.time
    sampled = "." if drawn.teaching.shape[1] <= 24 else None
    reach = 0.0
    for style, label, samples in drawn.curves:
        s = (samples - samples[-1].mean()).real.ravel()
        ax.plot(time, s, label=label, marker=sampled, linewidth=1.2, **style)
        reach = max(reach, 1.1 * np.abs(s).max())
    right = ax.twinx()
    beta = np.real(drawn.teaching).ravel()
    right.plot(time, beta, color=DRIVE, linestyle=(0, (1, 1.5)), marker=sampled, linewidth=1.2, label=r"Re $\beta$")
    if reach > 0:
        ax.set_ylim(-reach, reach)
    if np.abs(beta).max() > 0:  # more room than the activities have, so that no curve hides this one
        right.set_ylim(-1.3 * np.abs(beta).max(), 1.3 * np.abs(beta).max())
    ax.set_xlim(time[0] - (time[1] - time[0] if len(time) > 1 else 1), time[-1])
    unit = r" (units of $\tau$)" if time_unit(run.network.time_constants) == "tau" else ""
    ax.set(xlabel=f"time{unit}", ylabel=r"Re $(s - c_0)$")
    right.set_ylabel(r"Re $\beta$ (dotted)")
    finish(ax)
    finish(right)
    right.spines["right"].set_visible(True)
    legend(ax, loc="upper left", bbox_to_anchor=(1.22, 1.02))
    return ax


@checked(run=as_drawn, ax=as_axes, sample=as_index, harmonics=as_count, neurons=as_chosen)
def spectrum(
    run: Drawn,
    ax: Axes | None = None,
    harmonics: int = 10,
    *,
    sample: int | None = None,
    neurons: Chosen = None,
) -> Axes:
    r"""The Fourier coefficients $|c_n|$ of the watched activities over the last cycle, on a logarithmic scale.

    A turning signal excites the harmonics $n \ge 0$ alone, with $c_n \propto A^n$; what stands at negative $n$ is
    rounding, or the error of the solver. Where that is so, a dashed line shows the decay $(A/R)^n$ fitted to the
    largest of them: $R$ is the convergence radius as these neurons show it (`suggest` looks at all of them, and at all
    samples).

    Args:
        run: from `simulate`, with samples of some neurons; or from `periodic_orbit`.
        ax: where to draw; by default a new figure.
        harmonics: how far to draw to either side; fewer where the cycle has not that many samples.
        sample: which of the watched samples; by default the first.
        neurons: which of the watched neurons, such as `{1: [0, 5]}` for two of the first layer; by default all.

    Raises:
        ValueError: the run holds no samples of these, or `harmonics` is not positive.

    Example:
        >>> osc.plot.spectrum(run, harmonics=5).get_yscale()
        'log'
    """
    drawn = picture_of(run, "spectrum", sample, neurons)
    ax, ticks = axes_or_new(ax), drawn.teaching.shape[1]
    most = min(harmonics, (ticks - 1) // 2)
    n = np.arange(-most, most + 1)
    sizes = []
    for style, label, samples in drawn.curves:
        sizes.append(np.abs(np.fft.fft(samples[-1].astype(complex)) / ticks)[n])
        ax.plot(n, sizes[-1], label=label, marker="o", markersize=3, linewidth=0.7, **style)
    ax.set_yscale("log")
    largest = np.max(sizes, axis=0)
    decay = _decay(n, largest)
    if decay is not None:
        ratio, last = decay
        amplitude = np.abs(np.fft.fft(drawn.teaching[-1])[1] / ticks)
        right = np.arange(1, last + 1)
        line = 3 * largest[n == 1] * ratio ** (right - 1.0)
        ax.plot(right, line, color=DRIVE, linestyle="dashed", linewidth=1)
        note = r"$\propto (A/R)^n$" + f"\n$A$ = {amplitude:.2g}\n$R$ ≈ {amplitude / ratio:.2g}"
        ax.text(0.99, 0.98, note, transform=ax.transAxes, ha="right", va="top", fontsize=NOTE_SIZE)
    ax.axvspan(n[0] - 0.5, -0.5, color="0.93", zorder=0, linewidth=0)
    ax.set_xlim(n[0] - 0.5, n[-1] + 0.5)
    ax.set_xticks(n[n % (1 if most <= 3 else 2 if most <= 6 else 4) == 0])
    ax.set_xticks(n, minor=True)
    ax.set(xlabel=r"harmonic $n$", ylabel=r"$|c_n|$")
    finish(ax)
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return ax


@checked(run=RUN, exact=as_known_gradient, ax=as_axes, discard=as_index)
def gradient_error(run: Run, exact: Gradient, ax: Axes | None = None, discard: int = 0) -> Axes:
    r"""Error of the running gradient: relative error and $1 - \cos$ to the exact one, against cycles.

    At cycle $n$ the gradient is that of the readings averaged over cycles `discard` + 1 to $n$. The band reaches up to
    the run's own error, which is measured without the exact gradient; where it is unknown there is no band.

    Args:
        run: from `simulate`, with the readings of every cycle.
        exact: the exact gradient, as `exact_gradient` gives it.
        ax: where to draw; by default a new figure.
        discard: how many cycles at the start to leave out.

    Raises:
        ValueError: the run holds one mean reading only, or nothing but nan; `discard` leaves nothing; `exact` is of
            another network.

    Example:
        >>> ax = osc.plot.gradient_error(run, osc.exact_gradient(net, x, y))
        >>> ax.get_xlabel(), ax.get_yscale()
        ('cycle', 'log')
    """
    cycle, errors, distances = running_errors(run, exact, discard)
    bars = running_bars(run, discard)
    ax = axes_or_new(ax)
    marked = len(cycle) <= 40
    style: dict[str, Any] = {"markersize": 4, "linewidth": 1.2}
    ax.plot(cycle, errors, marker="o" if marked else None, color=COLOURS[0], label="relative error", **style)
    ax.plot(cycle, distances, marker="s" if marked else None, color=COLOURS[1], label="1 − cosine", **style)
    ax.set_yscale("log")
    own_bar(ax, cycle, bars, _below(np.concatenate([errors, distances, bars])))
    whole_ticks(ax)
    first = run.first_cycle + discard + 1
    ax.set(
        xlabel="cycle", ylabel="error of the running gradient" + (f"\n(mean from cycle {first})" if first > 1 else "")
    )
    finish(ax)
    bottom, top = np.log10(ax.get_ylim())
    ax.set_ylim(top=10 ** (top + 0.32 * (top - bottom)))  # room for the legend
    legend(ax, loc="upper right")
    return ax


@checked(run=RUN, discard=as_index)
def running_bars(run: Run, discard: int = 0) -> np.ndarray:
    """The run's own error of its running gradient, for each number of kept cycles: the band of `gradient_error`.

    The contamination is that of the average so far; lag, steps and asymmetry are those of all cycles together. It is
    nan where it is unknown, and throughout where inputs change from cycle to cycle.

    Raises:
        ValueError: as `gradient_error`.

    Example:
        >>> osc.plot.running_bars(run).shape  # one for each number of cycles
        (3,)
    """
    whole = run.error(discard)
    readings = jax.tree.map(lambda a: np.asarray(a[discard:]), run.phasors)
    count = len(jax.tree.leaves(readings)[0])
    if run.changing or count < run.cycles - discard:
        return np.full(count, np.nan)
    rest = np.asarray([whole.lag, whole.steps, whole.asymmetry])
    contaminations = _contaminations(run.system, run.inputs, readings, run.lock_residual[-count:])
    return np.sqrt(np.asarray(contaminations) ** 2 + np.nansum(rest**2))


@eqx.filter_jit
def _contaminations(system: System, inputs: Inputs, readings: Reading, residuals: jax.Array | np.ndarray) -> jax.Array:
    """The contamination of the average of the first 1, 2, ... readings."""
    unchanged = jnp.full(len(inputs.x), jnp.nan, system.network.dtype)

    def one(average, numbered):
        age, reading, residual = numbered
        average = accumulated(average, reading, residual.astype(average.quality.dtype), age, 0)
        error = gradient_and_error(system, inputs, average, unchanged)[1]
        return average, error.contamination

    empty = Average.empty(jax.tree.map(lambda a: a[0], readings))
    return jax.lax.scan(one, empty, (jnp.arange(len(residuals)), readings, jnp.asarray(residuals)))[1]


def _below(values: np.ndarray) -> float:
    """The power of ten below all positive values."""
    positive = values[np.isfinite(values) & (values > 0)]
    return float(10.0 ** np.floor(np.log10(positive.min()))) if len(positive) else 1e-8


@checked(run=RUN, exact=as_known_gradient, discard=as_index)
def running_errors(run: Run, exact: Gradient, discard: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""What `gradient_error` draws: numbers of the cycles, relative errors, and $1 - \cos$, precise far below rounding.

    Raises:
        ValueError: as `gradient_error`.

    Example:
        >>> cycles, errors, angles = osc.plot.running_errors(run, osc.exact_gradient(net, x, y))
        >>> cycles.tolist(), bool(errors[-1] < 0.05)
        ([1, 2, 3], True)
    """
    running = run.gradient(discard=discard, cumulative=True)
    kept = len(jax.tree.leaves(running)[0])
    if kept < run.cycles - discard:
        raise BadValue(
            "the run holds the mean reading only, which has no course to draw: run simulate with record=PerCycle() "
            "instead of Mean()"
        )
    errors, distances = map(np.asarray, _errors_of_each(running, exact))
    if not np.any(np.isfinite(errors)):
        raise BadValue("every reading of the run is nan (the neurons diverged): run simulate with a lower amplitude")
    return run.first_cycle + discard + 1 + np.arange(kept), errors, distances


@checked(exact=as_known_gradient, ax=as_axes, metric=as_function)
def layers(
    estimates: Estimates,
    exact: Gradient,
    ax: Axes | None = None,
    metric: Callable = relative_error,
) -> Axes:
    """A metric of each parameter array on its own, as bars: one group per array, one colour per estimate.

    The scale is logarithmic where the values span more than a decade; a value of 0 then has no bar.

    Args:
        estimates: a gradient or an `Estimate`, or a dict from names to such.
        exact: the exact gradient, as `exact_gradient` gives it.
        ax: where to draw; by default a new figure.
        metric: `relative_error`, `cosine`, `norm_ratio`, or a function like them.

    Raises:
        ValueError: no estimate at all, or one of another network.

    Example:
        >>> estimates = {"lock-in": run.gradient(), "classic": osc.Classic(0.05)(net, x, y)}
        >>> ax = osc.plot.layers(estimates, osc.exact_gradient(net, x, y))
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['lock-in', 'classic']
    """
    named = as_estimates("estimates", estimates)
    values = {name: {k: float(v) for k, v in per_layer(metric, g, exact).items()} for name, g in named.items()}
    ax = axes_or_new(ax)
    arrays = list(next(iter(values.values())))
    height = 0.8 / len(named)
    for i, (name, of_array) in enumerate(values.items()):
        place = np.arange(len(arrays)) + (i - (len(named) - 1) / 2) * height
        hatch = (None, "////", "....")[i // len(COLOURS) % 3]
        ax.barh(place, list(of_array.values()), 0.9 * height, label=name, color=COLOURS[i % len(COLOURS)], hatch=hatch)
    drawn = np.asarray([v for of_array in values.values() for v in of_array.values()])
    positive = drawn[drawn > 0]
    if np.all(drawn >= 0) and len(positive) and positive.max() > 10 * positive.min():
        ax.set_xscale("log")
        ax.set_xlim(left=10.0 ** np.floor(np.log10(positive.min() / 2)))
    elif np.any(drawn < 0):
        ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(np.arange(len(arrays)), arrays)
    ax.invert_yaxis()
    ax.set(ylabel="parameters", xlabel=describe(metric).replace("_", " "))
    finish(ax)
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return ax


@checked(exact=as_known_gradient, ax=as_axes)
def components(estimates: Estimates, exact: Gradient, ax: Axes | None = None) -> Axes:
    """Every component of the gradient, estimated against exact; on the diagonal the two agree.

    The first estimate lies on top.

    Args:
        estimates: a gradient or an `Estimate`, or a dict from names to such.
        exact: the exact gradient, as `exact_gradient` gives it.
        ax: where to draw; by default a new figure.

    Raises:
        ValueError: no estimate at all, or one of another network.

    Example:
        >>> ax = osc.plot.components(run.gradient(), osc.exact_gradient(net, x, y))
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('exact component', 'estimated component')
    """
    named = as_estimates("estimates", estimates)
    for gradient in named.values():
        relative_error(gradient, exact)  # refuses a gradient of another network
    ax = axes_or_new(ax)
    (true,) = map(_flat, as_estimates("exact", exact).values())
    found = [_flat(gradient) for gradient in named.values()]
    reach = 1.08 * max(np.abs(values[np.isfinite(values)]).max(initial=0.0) for values in (true, *found))
    ax.plot([-reach, reach], [-reach, reach], color="0.6", linewidth=0.8, zorder=0)
    for i, (name, values) in enumerate(zip(named, found, strict=True)):
        style = {"color": COLOURS[i % len(COLOURS)], "marker": "os^vD"[i % 5], "zorder": 3 - i / len(named)}
        ax.plot(true, values, linestyle="none", markersize=3, markeredgewidth=0, label=name, rasterized=True, **style)
    square(ax, reach)
    ax.set(xlabel="exact component", ylabel="estimated component")
    finish(ax)
    legend(ax, loc="upper left", handletextpad=0.1, markerscale=2)
    return ax


@checked(run=RUN, exact=as_known_gradient, estimates=as_estimates, discard=as_index)
def summary(
    run: Run, exact: Gradient, estimates: Mapping[str, Gradient | Estimate] | None = None, discard: int | None = None
) -> np.ndarray:
    """All of it on one page: orbits, traces, spectrum; running error, error per layer, components.

    Args:
        run: from `simulate`, with samples of some neurons and the readings of every cycle.
        exact: the exact gradient, as `exact_gradient` gives it.
        estimates: gradients or `Estimate`s by name, for the last two panels; by default the run's own.
        discard: how many cycles at the start the run's gradient leaves out; by default those before the network
            locked, and the running error is of all cycles.

    Returns:
        The axes, (2, 3); `summary(...)[0, 0].figure.savefig(path)` writes the page.

    Raises:
        ValueError: as the functions that draw the panels.

    Example:
        >>> axes = osc.plot.summary(run, osc.exact_gradient(net, x, y))
        >>> axes.shape
        (2, 3)
        >>> axes[0, 0].figure.savefig("run.png")
    """
    import matplotlib.pyplot as plt

    estimates = {"this run": run.gradient(discard=discard, tolerance=math.inf)} if estimates is None else estimates
    picture_of(run, "summary")
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 6.2), layout="constrained")
    orbits(run, axes[0, 0])
    traces(run, axes[0, 1])
    spectrum(run, axes[0, 2])
    gradient_error(run, exact, axes[1, 0], discard=discard or 0)
    layers(estimates, exact, axes[1, 1])
    components(estimates, exact, axes[1, 2])
    above, below = (axes[0, 0], axes[0]), (axes[1, 1], axes[1, 1:])
    for place, (named, others) in {"outside upper center": above, "outside lower center": below}.items():
        handles, labels = named.get_legend_handles_labels()  # the same in these panels: named once
        for ax in others:
            if ax.get_legend() is not None:
                ax.get_legend().remove()
        if labels:
            columns = 8 if max(map(len, labels)) < 12 else 6
            style: dict[str, Any] = {"loc": place, "ncols": columns, "handlelength": 1.6, "columnspacing": 1.2}
            figure.legend(handles, labels, fontsize=NOTE_SIZE, frameon=False, **style)
    titles = ("orbits over one cycle", "activities in time", "spectrum")
    titles += ("gradient, cycle by cycle", "gradient, layer by layer", "gradient, number by number")
    for ax, letter, title in zip(axes.flat, "abcdef", titles, strict=True):
        ax.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left", fontsize=LABEL_SIZE)
    return axes


_errors_of_each = eqx.filter_jit(jax.vmap(errors_of, in_axes=(0, None)))


class Picture(NamedTuple):
    """What figures of watched neurons draw.

    Attributes:
        curves: of each neuron its style, its label and its activity, (cycles, ticks); many of them share colour and
            label by layer.
        teaching: the teaching signal, (cycles, ticks).
        time: the time of every sample of these, in order.
        closed: whether the last cycle ends where it began.
    """

    curves: list[tuple[dict, str, np.ndarray]]
    teaching: np.ndarray
    time: np.ndarray
    closed: bool


def picture_of(run: Drawn, figure: str, sample: int | None = None, neurons: Chosen = None) -> Picture:
    """What a figure draws of a run, as far as it was watched, or of an orbit, which holds all neurons."""
    if isinstance(run, PeriodicOrbit):
        watch, watched = watched_on(run, PerCycle(neurons=8 if neurons is None else neurons, samples=[sample or 0]))
        ticks = watched.teaching.shape[1]
        time, closed = float(run.teaching.period) * (1 + np.arange(ticks)) / ticks, True
    elif run.watched is None or run.watch is None:
        raise BadValue(
            f"the run holds no samples of neurons, so there is nothing to draw as {figure}: run simulate with "
            "record=PerCycle(neurons=8)"
        )
    else:
        watch, watched, time, closed = run.watch, run.watched, run.time, run.locked
    place = _place(watch, sample)
    return Picture(_curves(watch, watched, place, neurons), np.asarray(watched.teaching)[:, :, place], time, closed)


def _curves(watch: Watch, watched: Watched, place: int, neurons: Chosen) -> list[tuple[dict, str, np.ndarray]]:
    """Style, label and samples of the chosen neurons."""
    found = []
    wanted = None if neurons is None else {(layer, i) for layer, indices in neurons.items() for i in indices}
    held = {(n, int(i)) for n, indices in enumerate(watch.neurons, start=1) for i in indices}
    for layer, i in (wanted or set()) - held:
        raise BadValue(f"neurons: neuron {i} of layer {layer} was not watched; use record=PerCycle(neurons={{...}})")
    shown = held if wanted is None else wanted
    many, several = len(shown) > 2 * len(COLOURS), len({layer for layer, _ in shown}) > 1
    for number, (indices, samples) in enumerate(zip(watch.neurons, watched.activities, strict=True)):
        chosen = [i for i, neuron in enumerate(indices) if (number + 1, int(neuron)) in shown]
        for first, i in enumerate(chosen):
            names = [f"layer {number + 1}"] * several + [f"neuron {indices[i]}"] * (not many)
            hidden = many and (
                first > 0 or not names
            )  # matplotlib leaves out of legends what begins with an underscore
            style = curve_style(number if many else len(found))
            found.append((style, "_" if hidden else ", ".join(names), np.asarray(samples)[:, :, place, i]))
    return found


def _place(watch: Watch, sample: int | None) -> int:
    """Where among the watched samples this one is."""
    held = [int(i) for i in watch.samples]
    if sample is not None and sample not in held:
        raise BadValue(f"sample={sample} was not watched: use one of {held}, or record=PerCycle(samples=[{sample}])")
    return 0 if sample is None else held.index(sample)


def _decay(n: np.ndarray, sizes: np.ndarray) -> tuple[float, int] | None:
    """The ratio by which coefficients fall, and the last clear of the floor; None where the drive is two-sided."""
    floor = 10 * sizes[n < 0].max(initial=0.0)
    right = sizes[n > 0]
    clear = len(right) if np.all(right > floor) else int(np.argmin(right > floor))
    if clear < 3:
        return None
    slope = np.polyfit(np.arange(clear), np.log(right[:clear]), 1)[0]
    return (float(np.exp(slope)), clear) if slope < 0 else None


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
