"""What the page says: captions that follow what is measured, the tour, and the help of every knob and picture."""

import html
import math
from typing import NamedTuple

import numpy as np

from oscsim.core import percent
from oscsim.dynamics import TOLERANCE
from oscsim.lab.engine import BATCH, Frame, known_mean
from oscsim.lab.settings import TOY, Preset, Settings, Value

GREETING = "A teaching signal turns at the output, and the response of the neurons is read as a gradient. Turn a knob."
"""What is said without a preset, or once its settings were changed."""

BUSY = "Compiling the equations of these neurons, once: a few seconds. The pictures come by themselves …"

FULL_HOUSE = """<div style="font: 16px sans-serif; margin: 15vh auto; max-width: 34em; line-height: 1.5">
<h1 style="color: #0072b2; font-size: 22px">oscsim lab</h1><p>All {visitors} places of this lab are taken: each visitor
has a network that computes. Try again in a minute, or run a lab of your own: <code>oscsim lab</code>.</div>"""


class Step(NamedTuple):
    """One step of the tour: what to set, which picture to look at."""

    title: str
    words: str
    changes: dict[str, Value]
    picture: str


TOUR = (
    Step(
        "The teaching signal",
        "β pulls the output towards the target. It turns in the complex plane with amplitude A, once in a period T, "
        "and never stops: there is no free phase. The dot is where it is at the end of the cycle.",
        {**TOY, "noise": "none"},
        "plane",
    ),
    Step(
        "What is read",
        "Every neuron answers at the frequency of the signal. Its first harmonic, divided by A, is how its activity "
        "changes with β; the gradient of a weight takes this number from the neurons at its two ends, and no other.",
        {**TOY, "noise": "none"},
        "spectrum",
    ),
    Step(
        "What noise does",
        "Noise moves the neurons at all frequencies, but only what falls on the first harmonic counts. It averages "
        "out: over four times as many cycles the error is half as large.",
        TOY,
        "error",
    ),
    Step(
        "The amplitude",
        "The same noise with a signal 39 times smaller: the response drowns. Turn A up, and the error falls as 1/A, "
        "along the curve. The star is the best amplitude that theory predicts.",
        {**TOY, "amplitude": 0.01},
        "snr",
    ),
    Step(
        "The convergence radius",
        "Past the dashed circle the free state has no analytic continuation. The neurons leave it, negative harmonics "
        "appear, and the error stays however long one averages.",
        {**TOY, "amplitude": 3.0, "intensity": 0.02},
        "plane",
    ),
    Step(
        "Learning",
        "Now the weights move down the gradient while the signal turns. The radius moves with them, so each of 20 "
        "digits tunes an amplitude of its own. Watch that the error stays small while the loss falls.",
        {**TOY, "network": "digits", "signal": "adaptive", "amplitude": 0.051, "intensity": 0.01}
        | {"learning": True, "learning_rate": 0.3},
        "learning",
    ),
)
"""Six steps from the signal to learning."""

KNOBS = {
    "signal": "How the network is taught: a signal that turns, one that also tunes its amplitude, or two phases",
    "amplitude": "How strongly the signal pulls: large against noise, but below the convergence radius",
    "period": "How long one turn takes, in time constants: a short one makes the neurons lag behind",
    "noise": "Where noise enters: on the potentials, on the signal, in the readout",
    "intensity": "How strong the noise is",
    "correlation_time": "How long Ornstein–Uhlenbeck noise and noise on the signal remember, in time constants",
    "demodulator": "How the first harmonic is taken out of the activities",
    "discard": "Cycles left out of the average after each change, until the neurons follow the signal again",
    "realisations": "How many networks run with noise of their own; curves are means over them",
    "network": "Which network runs, and with which data",
    "sample": "Which input of the data is shown",
    "learning": "Let the weights move down the measured gradient, 20 inputs at a time",
    "learning_rate": "How far the weights move in each update",
    "neurons": "Which neurons are drawn; hold Ctrl (or Cmd) to choose several",
    "run": "Let cycles follow one another, or pause",
    "single": "Run one cycle, then pause",
    "reset": "Neurons at rest, weights as they were at the start",
    "reseed": "Other random numbers for the noise",
    "tour": "Six steps: the signal, the reading, noise, amplitude, radius, learning",
    "large": "Larger letters, for a projector",
    "copy": "A Python script that repeats these settings",
    "save": "All curves as CSV files, with the settings",
    "keep": "The network with its weights of now, for osc.load",
}
"""What each knob and button does; shown where one points at it."""

PICTURES = {
    "plane": "The teaching signal over the last cycle. Pale blue: the free state continues to there. Beige: it does "
    "not. White: not computed. Dashed: the convergence radius",
    "orbits": "The activities of the chosen neurons over the last cycle, about their mean, in the complex plane",
    "traces": "The activities of the chosen neurons over two cycles, real parts; dotted: the signal",
    "spectrum": "How strongly each neuron moves at each frequency; dots: the harmonics; dashed: the predicted noise",
    "cosine": "The cosine between the measured gradient and the exact one, by parameter array; 1 is the same direction",
    "error": "The distance of the measured gradient from the exact one, relative to its size; orange: the error that "
    "the gradient measures on itself; grey: predicted",
    "snr": "The size of the gradient over its error, against the amplitude; star: the best; shaded: past the radius",
    "learning": "The loss, and while weights learn the accuracy of each batch and of held-out data",
}
"""What each picture shows; said where one points at its title."""


def said(
    frame: Frame | None,
    settings: Settings,
    preset: Preset | None,
    radius: float,
    *,
    busy: bool = False,
    note: str = "",
    refused: str = "",
) -> tuple[str, str]:
    """The kind of box, and what stands in it as HTML.

    Args:
        frame: the last one.
        settings: of the knobs; the frame may still be of others.
        preset: whose explanation may be said, if what is measured bears it out; None for none.
        radius: the convergence radius of the network that is shown; inf where it is not known.
        busy: whether the next frame waits for a compilation.
        note: what is not predicted.
        refused: what was refused last.
    """
    if refused:
        return "problem", f"<b>Refused:</b> {html.escape(refused)}"
    explained = html.escape(preset.explanation) if preset is not None else ""
    if busy or frame is None:
        return "busy", BUSY
    if frame.diverged and frame.settings.amplitude == settings.amplitude:
        turn = f"below {radius:.2g}, the convergence radius" if math.isfinite(radius) else "or the intensity"
        what = frame.diverged.split(", under")[0]
        what = html.escape(what[0].upper() + what[1:])
        return (
            "problem",
            f"{explained} <b>Diverged.</b> {what}. Turn the amplitude back {turn}: it starts again from rest.",
        )
    current = frame.settings == settings
    measured = relative_error(frame) if current else math.nan
    if preset is None or not (math.isnan(measured) or preset.error[0] <= measured <= preset.error[1]):
        explained = html.escape(GREETING)
    own = bar_in_words(frame, radius) if current else ""
    parts = [explained]
    if not math.isnan(measured):
        parts.append(f"<b>Measured:</b> {percent(measured)} off the exact gradient.")
    if own:
        parts.append(f"<b>It says of itself:</b> {html.escape(own)}.")
    if note:
        parts.append(f"<i>Note: {html.escape(note)}.</i>")
    return "saying", " ".join(parts)


def relative_error(frame: Frame) -> float:
    """The mean relative error of the realisations; nan while nothing is read."""
    return known_mean(frame.errors["all"])


def numbers(frame: Frame, rate: float, held_out: float | None) -> str:
    """The line below the pictures, as HTML.

    Args:
        frame: the last one.
        rate: cycles a second; 0 while paused.
        held_out: accuracy in percent.
    """
    s = frame.settings
    parts = [
        f"cycle <b>{frame.number}</b>",
        f"{rate:.0f} cycles/s" if rate else "paused",
        f"averaged over {frame.averaged}",
        f"loss {frame.loss:.3f}" if np.isfinite(frame.loss) else "no loss",
        f"|∇L| {frame.norm:.3g}",
    ]
    if np.isfinite(frame.errors["all"]).any():
        parts.append(f"relative error {relative_error(frame):.2g}")
        parts.append(f"its own bar {np.mean(frame.bars):.2g}")
    if s.signal == "adaptive":
        low, high = frame.amplitudes.min(), frame.amplitudes.max()
        spread = f" ({low:.2g} to {high:.2g})" if low < high else ""
        parts.append(f"median amplitude <b>{frame.amplitude:.2g}</b>{spread}")
    if s.learning or frame.updates:
        parts.append(f"{frame.updates} updates of {BATCH} samples")
        if held_out is not None:
            parts.append(f"held-out accuracy {held_out:.1f} %")
    parts.append(f"seed {s.seed}")
    return " &nbsp;·&nbsp; ".join(parts)


def bar_in_words(frame: Frame, radius: float = math.inf) -> str:
    """What the gradient says of its own error, with the cause where the radius tells it; empty while it is not read."""
    if frame.error is None:
        return ""
    if frame.settings.signal != "two-phase":
        total = float(frame.error.total)
        if total > TOLERANCE and frame.amplitude > radius:
            return (
                f"gradient off by {percent(total)}: outside the analytic regime, past the convergence radius; "
                "lower the amplitude, or let it tune itself"
            )
        return str(frame.error)
    scatter = float(frame.error.contamination)
    if not np.isfinite(scatter):
        return "nothing after one cycle of two phases"
    return f"from cycle to cycle it scatters by {percent(scatter)}; the bias of its amplitude it cannot know"
