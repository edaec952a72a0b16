"""Paired timing: what is compared runs alternately in one process, and only ratios within a round count.

A machine that is busy, hot or throttled slows both sides of a round alike; medians of the rounds' ratios shed the rest.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Times(NamedTuple):
    """Seconds of each round, by name."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """The median time of one of the functions, in seconds."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times longer `name` takes than `to`: the median over rounds of the ratio within each."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[to], strict=True))


def paired(functions: dict[str, Callable[[], Any]], rounds: int) -> Times:
    """Time each function once per round, after two runs to warm up; the order turns around from round to round."""
    for function in functions.values():
        for _ in range(2):
            jax.block_until_ready(function())
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds):
        for name in list(functions)[:: 1 if number % 2 == 0 else -1]:
            began = time.perf_counter()
            jax.block_until_ready(functions[name]())
            seconds[name].append(time.perf_counter() - began)
    return Times(seconds)
