"""The threads beside the page: one runs the cycles, one computes predictions. The page waits for neither."""

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import oscsim as osc
from oscsim.lab.engine import Engine, Frame, Weights
from oscsim.lab.forecast import Forecast, Map, Memory, Replay, forecasts, maps, relevant
from oscsim.lab.programs import LATER, compiles, first_time, layout, rank_of_this_thread, wait_for_pages
from oscsim.lab.settings import Settings, Value
from oscsim.networks import Data

FASTEST = 0.06
"""Least seconds from one cycle to the next: the eye follows no faster."""

ABANDONED = 30.0
"""A runner pauses after so many seconds in which nobody asked for frames."""

HISTORY = 512
"""Frames that are kept until the page asks for them."""

RESTS = 0.3
"""Seconds without a change of settings before predictions are computed: they would delay the picture."""


class Runner:
    """Runs an engine in a thread of its own; every method returns at once.

    Args:
        engine: what to run; only the thread may use it afterwards.
        pace: least seconds from one cycle to the next.
        predict: whether to compute predictions.

    Attributes:
        running: whether cycles follow one another.
        problem: why the last request was refused, or what failed; empty if nothing did.
    """

    def __init__(self, engine: Engine, pace: float = FASTEST, predict: bool = True):
        self.engine, self.pace, self.predict = engine, pace, predict
        self.running, self.problem = False, ""
        self._changes: dict[str, Value] = {}
        self._once, self._reset, self._closed = 0, False, False
        self._frames: deque[Frame] = deque(maxlen=HISTORY)
        self._looked = time.monotonic()
        self._wake = threading.Condition()
        self._rate: deque[float] = deque(maxlen=20)
        self.forecaster = Forecaster()
        self._thread = threading.Thread(target=self._work, name="oscsim-lab", daemon=True)
        self._thread.start()
        atexit.register(self.close, wait=True)  # a thread inside XLA at Python's end would abort the process

    def change(self, **changes: Value) -> None:
        """Change settings before the next cycle."""
        with self._wake:
            self._changes.update(changes)
            self._wake.notify_all()

    def run(self, running: bool = True) -> None:
        """Let cycles follow one another, or pause."""
        with self._wake:
            self.running, self._looked = running, time.monotonic()
            self._rate.clear()
            self._wake.notify_all()

    def single(self) -> None:
        """One cycle, then pause."""
        with self._wake:
            self.running, self._once = False, self._once + 1
            self._wake.notify_all()

    def reset(self) -> None:
        """Neurons at rest, weights as they were at the start."""
        with self._wake:
            self._reset = True
            self._wake.notify_all()

    def frames(self) -> list[Frame]:
        """The frames since the last call."""
        with self._wake:
            self._looked = time.monotonic()
            new, self._frames = list(self._frames), deque(maxlen=HISTORY)
        return new

    @property
    def rate(self) -> float:
        """Cycles per second, over the last 20."""
        times = list(self._rate)
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    @property
    def compiling(self) -> bool:
        """Whether the next cycle waits for a compilation."""
        return compiles(self._thread.ident)

    @property
    def alive(self) -> bool:
        """Whether the thread is still there."""
        return self._thread.is_alive()

    def close(self, wait: bool = False) -> None:
        """Stop all work for good."""
        with self._wake:
            self._closed, self.running = True, False
            self._wake.notify_all()
        self.forecaster.close()
        if wait:
            self._thread.join()

    def _work(self) -> None:
        due = 0.0
        asked = False
        while True:
            with self._wake:
                while not (self._closed or self._changes or self._reset or self._once):
                    if self.running and time.monotonic() - self._looked > ABANDONED:
                        self.running = False
                    left = due - time.monotonic()
                    if self.running and left <= 0:
                        break
                    self._wake.wait(left if self.running else None)
                if self._closed:
                    break
                changes, self._changes = self._changes, {}
                reset, self._reset = self._reset, False
                advance = self.running or self._once > 0
                self._once = max(0, self._once - 1) if not self.running else 0
            try:
                if changes:
                    self.engine.change(**changes)
                if reset:
                    self.engine.reset()
                if advance:
                    wait_for_pages()
                    due = time.monotonic() + self.pace
                    self._cycle()
                if self.predict and (changes or reset or not asked):  # after the cycle: no knob waits for a prediction
                    asked = True
                    self.forecaster.ask(self.engine, self.engine.settings)
                self.problem = ""
            except Exception as error:  # the visitor reads it, and the thread goes on
                self.problem, self.running = _in_words(error), False
        self.forecaster.close(wait=True)
        atexit.unregister(self.close)

    def _cycle(self) -> None:
        frame = self.engine.advance()
        if frame.settings.learning and frame.updates % 20 == 0 and frame.averaged:
            self.forecaster.judge(self.engine)
        with self._wake:
            self._frames.append(frame)
            self._rate.append(time.monotonic())
        if frame.diverged:
            self.running = False


def _in_words(error: Exception) -> str:
    """On one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Judged(NamedTuple):
    """Held-out data at some weights."""

    era: int
    updates: int
    accuracy: float


class Forecaster:
    """Computes predictions in a thread of its own; a newer question replaces an older one.

    Attributes:
        problem: why the last answer failed; empty if it did not.
        judged: the last answer of `judge`.
    """

    def __init__(self):
        self.problem = ""
        self.judged: Judged | None = None
        self._answer: tuple[Weights, Forecast | None, Map | None] | None = None
        self._memory, self._map_memory = Memory[Replay[Forecast]](64), Memory[Replay[Map]](8)
        self._question: tuple[osc.AbstractNetwork, Data, Data, Settings, Weights] | None = None
        self._asked = 0.0
        self._to_judge: tuple[osc.AbstractNetwork, Data, Data, int, int] | None = None
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="oscsim-lab-forecast", daemon=True)
        self._thread.start()

    def of(self, weights: Weights) -> tuple[Forecast | None, Map | None]:
        """What is known of these weights: of others nothing is said."""
        answer = self._answer
        return answer[1:] if answer is not None and answer[0] == weights else (None, None)

    def ask(self, engine: Engine, settings: Settings) -> None:
        """Predict for these settings; the answer appears in `of`."""
        if settings.learning:  # the weights move faster than predictions can follow
            return
        with self._wake:
            self._asked = time.monotonic() + (RESTS if self._answer is not None else 0)
            self._question = (*engine.predicted_from(), settings, engine.weights)
            self._wake.notify_all()

    def judge(self, engine: Engine) -> None:
        """Accuracy on held-out data; the answer appears in `judged`."""
        with self._wake:
            example = engine.example
            self._to_judge = engine.net, example.x_test, example.y_test, engine.era, engine.updates
            self._wake.notify_all()

    def close(self, wait: bool = False) -> None:
        """Stop all work for good."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if wait:
            self._thread.join()

    def _work(self) -> None:
        rank_of_this_thread(LATER)
        while True:
            with self._wake:
                while not (self._closed or self._to_judge or (self._question and time.monotonic() >= self._asked)):
                    self._wake.wait(max(0.0, self._asked - time.monotonic()) if self._question else None)
                if self._closed:
                    return
                question = None
                if self._question and time.monotonic() >= self._asked:
                    question, self._question = self._question, None
                judged, self._to_judge = self._to_judge, None
            if judged is not None:
                self._safely(partial(self._judge, *judged))
            if question is not None:
                self._safely(partial(self._predict, *question))

    def _safely(self, compute: Callable[[], None]) -> None:
        try:
            self.problem = ""
            compute()
        except Exception as error:
            self._answer, self.problem = None, _in_words(error)

    def _judge(self, net: osc.AbstractNetwork, x: Data, y: Data, era: int, updates: int) -> None:
        with first_time("evaluate", layout(net), x.shape):
            found = osc.evaluate(net, x, y)
        if "error" in found:
            self.judged = Judged(era, updates, 100 - found["error"])

    def _predict(self, net: osc.AbstractNetwork, x: Data, y: Data, settings: Settings, weights: Weights) -> None:
        known, plane = self.of(weights)
        for answer in self._memory.get((weights, relevant(settings)), lambda: Replay(forecasts(net, x, y, settings))):
            if known is None or answer.note is not None:  # half an answer is better than none, and worse than the last
                self._answer = weights, answer, plane
            if self._closed or self._question is not None:  # something newer to do
                return
        known, _ = self.of(weights)
        radius = known.radius if known is not None else 1.0
        for found in self._map_memory.get(weights, lambda: Replay(maps(net, x, y, radius))):
            self._answer = weights, known, found
            if self._closed or self._question is not None:  # the map is taken up where it was left
                return
