"""What is compiled ahead, in the background, so that no preset waits when it is first clicked."""

import threading
from collections.abc import Iterator
from itertools import islice

import oscsim as osc
from oscsim.lab.engine import Engine
from oscsim.lab.forecast import forecast, maps
from oscsim.lab.programs import LAST, first_time, layout, rank_of_this_thread
from oscsim.lab.settings import DEMODULATORS, NOISES, PRESETS, Settings

MOST = 12
"""Cycles until learning has changed the weights once, at most."""


def prepare(stopped: threading.Event) -> None:
    """Compile what the presets need, then every kind of noise and demodulator, until it is stopped.

    First all cycles, then the predictions: the pictures of the neurons are what a visitor waits for.
    """
    rank_of_this_thread(LAST)
    for _ in _programs():
        if stopped.is_set():
            return


def _programs() -> Iterator[None]:
    """One after another."""
    engine = Engine()
    presets = [Settings().changed(**preset.changes) for preset in PRESETS.values()]
    kinds = [Settings(noise=noise) for noise in NOISES.values()]
    kinds += [Settings(demodulator=demodulator) for demodulator in DEMODULATORS.values()]
    kinds += [Settings(signal="adaptive"), Settings(learning=True, signal="adaptive")]
    for each in (engine.settings, *presets):
        yield _run(engine, each)
    for each in presets:
        engine.change(**vars(each))
        net, x, y = engine.predicted_from()
        yield from (None for _ in islice(maps(net, x, y, forecast(net, x, y, each).radius), 1))
    for each in kinds:
        yield _run(engine, each)


def _run(engine: Engine, settings: Settings) -> None:
    """As many cycles as compile all that these settings need."""
    engine.change(**vars(settings))
    engine.reset()
    for _ in range(MOST):
        engine.advance()
        if not settings.learning or engine.updates:
            break
    if settings.learning:
        net, _, _, x, y = engine.example
        with first_time("evaluate", layout(net), x.shape):
            osc.evaluate(net, x, y)
