"""What is compiled ahead, in the background, so that no preset waits when it is first clicked."""

import time

import oscsim as osc
from oscsim.lab.engine import Engine
from oscsim.lab.forecast import forecast, maps
from oscsim.lab.programs import LAST, first_time, layout, rank_of_this_thread
from oscsim.lab.settings import DEMODULATORS, NOISES, PRESETS, Settings

MOST = 12
"""Cycles until learning has changed the weights once, at most."""


def prepare(settings: Settings | None = None) -> float:
    """Compile what the presets need, then every kind of noise and demodulator; the seconds that it took.

    First all cycles, then the predictions: the pictures of the neurons are what a visitor waits for.
    """
    began = time.monotonic()
    rank_of_this_thread(LAST)
    engine = Engine(settings)
    presets = [Settings().changed(**preset.changes) for preset in PRESETS.values()]
    kinds = [Settings(noise=noise) for noise in NOISES.values()]
    kinds += [Settings(demodulator=demodulator) for demodulator in DEMODULATORS.values()]
    kinds += [Settings(signal="adaptive"), Settings(learning=True, signal="adaptive")]
    for each in (engine.settings, *presets):
        _run(engine, each)
    for each in presets:
        engine.change(**vars(each))
        net, x, y = engine.predicted_from()
        for _ in maps(net, x, y, forecast(net, x, y, each).radius):
            break
    for each in kinds:
        _run(engine, each)
    return time.monotonic() - began


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
