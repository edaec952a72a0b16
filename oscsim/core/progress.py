"""The progress bar: a widget in notebooks that have them, text at a terminal, a line now and then in a pipe."""

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import tqdm as _tqdm

with warnings.catch_warnings():
    warnings.simplefilter("ignore", _tqdm.TqdmWarning)  # without widgets it is text, which is nothing to warn of
    from tqdm.auto import tqdm

tqdm.set_lock(threading.RLock())  # no other process draws a bar, and its own lock is one of the system's

__all__ = ["Progress", "interactive", "say"]

FORMAT = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {unit}s, {remaining} left"
SECONDS, SHARE = 10.0, 0.01
"""In a pipe so long passes between two lines at least, and so much of the work is done."""


def interactive() -> bool:
    """Whether somebody is looking: a terminal, or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


class Progress:
    """How far a computation is, and how long it still takes, at the pace so far; gone when it is done.

    Args:
        total: how many units there are.
        unit: what they are called, one of them.
        done: how many are done already.
        shown: whether to show it; by default where somebody is looking. In a pipe it is a line now and then.
    """

    def __init__(self, total: int, unit: str, done: int = 0, shown: bool | None = None):
        self.watched = interactive() if shown is None else shown
        bar, self.lines = self.watched and interactive(), self.watched and not interactive()
        look = {"bar_format": FORMAT, "smoothing": 0, "miniters": 1, "leave": False, "disable": not bar}
        self.bar = tqdm(total=total, initial=done, unit=unit, **look)
        self.total, self.unit, self.done, self.first = total, unit, done, done
        self.began = self.said_at = time.perf_counter()
        self.said, self.compiled, self.busy = done, set[str](), False

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, done: int) -> None:
        """So many units are done, in all."""
        self.bar.update(done - self.done)
        self.done, now = done, time.perf_counter()
        if self.lines and not self.busy and now - self.said_at > SECONDS and done - self.said > SHARE * self.total:
            left = (now - self.began) * (self.total - done) / max(1, done - self.first)
            self.said_at, self.said = now, done
            print(f"{done} of {self.total} {self.unit}s, {tqdm.format_interval(left)} left", file=sys.stderr)

    @contextlib.contextmanager
    def compiling(self, what: str) -> Iterator[None]:
        """The first time, this compiles: the bar says so, and this time does not count for the time left.

        What comes later under the same name is compiled already.
        """
        if what in self.compiled:
            yield
            return
        self.compiled.add(what)
        began, before = time.perf_counter(), self.done
        self.bar.set_description("compiling")
        self.busy = True
        try:
            yield
        finally:
            self.busy = False
        seconds, units = time.perf_counter() - began, self.done - before
        self.began, self.first = self.began + seconds, self.first + units
        if not self.bar.disable:
            self.bar.start_t, self.bar.initial = self.bar.start_t + seconds, self.bar.initial + units
            self.bar.set_description()

    def aside(self) -> contextlib.AbstractContextManager[None]:
        """Within this context the bar makes room for what is printed."""
        return tqdm.external_write_mode()

    def show(self, numbers: dict[str, str]) -> None:
        """Numbers beside the bar."""
        self.bar.set_postfix(numbers)


def say(line: str) -> None:
    """Print a line on stderr, above the bar."""
    with tqdm.external_write_mode(sys.stderr):
        print(line, file=sys.stderr)
