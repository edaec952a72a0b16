"""The knobs of the page: one for each setting, grey where it has no effect now."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import panel as pn

from oscsim.lab.settings import (
    DEMODULATORS,
    LONGEST,
    MOST_REALISATIONS,
    NOISES,
    SHORTEST,
    SIGNALS,
    Settings,
)

GATHERED = 5
"""Milliseconds that a turned knob waits for further turns; Panel's own 50 are a third of what the eye allows."""

E24 = "1.0 1.1 1.2 1.3 1.5 1.6 1.8 2.0 2.2 2.4 2.7 3.0 3.3 3.6 3.9 4.3 4.7 5.1 5.6 6.2 6.8 7.5 8.2 9.1"
"""Steps of logarithmic knobs: the preferred numbers of IEC 60063."""


def _grid(low: float, high: float) -> list[float]:
    return [value for e in range(-4, 3) for digits in E24.split() if low <= (value := float(f"{digits}e{e}")) <= high]


GRIDS = {
    "amplitude": _grid(0.001, 5.1),
    "intensity": [0.0, *_grid(0.001, 1.0)],
    "correlation_time": _grid(0.5, 51.0),
    "learning_rate": _grid(0.01, 3.0),
}
"""What logarithmic knobs can be turned to."""

GROUPS = {
    "Teaching signal": ("signal", "amplitude", "period"),
    "Noise": ("noise", "intensity", "correlation_time"),
    "Reading": ("demodulator", "discard", "realisations"),
    "Network": ("network", "sample", "learning", "learning_rate"),
}
"""The knobs below each heading."""


def make_knobs(settings: Settings, networks: list[str], samples: int, **look: Any) -> dict[str, pn.widgets.Widget]:
    """A knob for each setting, by its name.

    Args:
        settings: what they stand at.
        networks: to choose from.
        samples: of the present network's data.
        **look: of every widget.
    """
    choice, grid, count = pn.widgets.Select, _logarithmic, pn.widgets.IntSlider
    kinds = {
        "signal": partial(choice, label="Signal", options=SIGNALS),
        "amplitude": partial(grid, label="Amplitude A", grid=GRIDS["amplitude"]),
        "period": partial(pn.widgets.FloatSlider, label="Period T (τ)", start=SHORTEST, end=LONGEST, step=2.0),
        "noise": partial(choice, label="Noise", options=NOISES),
        "intensity": partial(grid, label="Intensity q", grid=GRIDS["intensity"]),
        "correlation_time": partial(grid, label="Correlation time (τ)", grid=GRIDS["correlation_time"]),
        "demodulator": partial(choice, label="Demodulator", options=DEMODULATORS),
        "discard": partial(count, label="Discarded cycles", start=0, end=20),
        "realisations": partial(count, label="Realisations", start=1, end=MOST_REALISATIONS),
        "network": partial(choice, label="Network", options=networks),
        "sample": partial(count, label="Input sample", start=0, end=samples - 1),
        "learning": partial(pn.widgets.Checkbox, label="Weights learn"),
        "learning_rate": partial(grid, label="Learning rate", grid=GRIDS["learning_rate"]),
    }
    knobs = {name: make(value=vars(settings)[name], margin=(1, 6), **look) for name, make in kinds.items()}
    for name, knob in knobs.items():
        knob.css_classes = [f"knob-{name}", f"help-{name}"]
        for part in knob.select():
            part._debounce = GATHERED
            part.stylesheets = knob.stylesheets
    set_knobs(knobs, settings)
    return knobs


def set_knobs(knobs: dict[str, pn.widgets.Widget], settings: Settings, but: tuple[str, ...] = ()) -> None:
    """Set the knobs to the settings; those without effect turn grey."""
    grey = without_effect(settings)
    for name, knob in knobs.items():
        value = vars(settings)[name]
        knob.disabled = name in grey
        if name in but:
            continue
        if name in GRIDS and value not in knob.param.values()["options"].values():
            knob.param.update(options=_named([*GRIDS[name], value]))
        knob.param.update(value=value)


def without_effect(settings: Settings) -> set[str]:
    """Names of the settings that change nothing at the present ones."""
    grey = {"sample", "realisations"} if settings.learning else {"learning_rate"}
    if settings.signal == "two-phase":
        grey.add("demodulator")
    if settings.noise not in ("ornstein-uhlenbeck", "teaching"):
        grey.add("correlation_time")
    if settings.noise == "none":
        grey |= {"intensity", "realisations"}
    return grey


def _logarithmic(value: float, grid: list[float], **kwargs: Any) -> pn.widgets.DiscreteSlider:
    return pn.widgets.DiscreteSlider(options=_named([*grid, value]), value=value, **kwargs)


def _named(values: Iterable[float]) -> dict[str, float]:
    return {f"{v:.4g}": v for v in sorted(set(values))}
