"""Compilation: one program at a time, what a visitor waits for first.

Two visitors who need the same program wait for one compilation instead of compiling it twice. Compilations of different
programs do not compete for the processor. A compiled program runs without waiting.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Hashable, Iterator

import equinox as eqx
import jax
from jaxtyping import PyTree

FIRST, LATER, LAST = range(3)
"""Ranks: cycles that a visitor waits for; predictions beside them; what is compiled ahead."""

_compiled: set[Hashable] = set()
_turn = threading.Condition()
_waiting: Counter[int] = Counter()  # by rank, the one that compiles included
_busy = False
_own = threading.local()
_at_work: set[int] = set()  # threads that compile, or wait to
_may_run = threading.Event()
_may_run.set()


@contextlib.contextmanager
def first_time(*program: Hashable) -> Iterator[None]:
    """Hold the others up while the block compiles this program; once it is compiled, nobody waits."""
    global _busy
    if program in _compiled:
        yield
        return
    rank, thread = getattr(_own, "rank", FIRST), threading.get_ident()
    with _turn:
        _waiting[rank] += 1
        _at_work.add(thread)
        _turn.wait_for(lambda: not _busy and not any(_waiting[before] for before in range(rank)))
        _busy = True
    try:
        yield
    finally:
        with _turn:
            _busy = False
            _waiting[rank] -= 1
            _at_work.discard(thread)
            _turn.notify_all()
    _compiled.add(program)


@contextlib.contextmanager
def cycles_wait() -> Iterator[None]:
    """Hold cycles up while the block makes a page: who comes is not to wait for all who are there."""
    _may_run.clear()
    try:
        yield
    finally:
        _may_run.set()


def wait_for_pages() -> None:
    """Return when no page is being made."""
    _may_run.wait()


def rank_of_this_thread(rank: int) -> None:
    """Let this thread wait until all of a lower rank have what they need."""
    _own.rank = rank


def compiles(thread: int | None) -> bool:
    """Whether that thread compiles a program, or waits to."""
    return thread in _at_work


def layout(*trees: PyTree) -> Hashable:
    """Structure, shapes and types of arguments: a program is compiled once for each."""
    leaves, structure = jax.tree.flatten(eqx.filter(trees, eqx.is_array))
    return structure, tuple((a.shape, a.dtype) for a in leaves)
