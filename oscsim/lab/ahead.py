"""What is compiled ahead, in the background, so that no preset waits when it is first clicked."""

import time

from oscsim.lab.engine import Engine
from oscsim.lab.forecast import forecast, maps
from oscsim.lab.programs import LAST, rank_of_this_thread
from oscsim.lab.settings import DEMODULATORS, NOISES, PRESETS, Settings

SETTLED = 2
"""Cycles with readings after which learning has changed the weights once."""


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
    for _ in range(settings.discarded + SETTLED if settings.learning else 1):
        engine.advance()
