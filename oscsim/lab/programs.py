"""Compilation: one program at a time, what a visitor waits for first.

Two visitors who need the same program wait for one compilation instead of compiling it twice. Compilations of different
programs do not compete for the processor. A compiled program runs without waiting.
"""

import contextlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from pathlib import Path

import equinox as eqx
import jax
from jax.experimental.compilation_cache import compilation_cache
from jaxtyping import PyTree

FIRST, LATER, LAST = range(3)
"""Ranks: cycles that a visitor waits for; predictions beside them; what is compiled ahead."""

MOST = 2**29
"""Bytes of compiled programs that are kept on disk; beyond it they are begun anew."""

_compiled: set[Hashable] = set()
_turn = threading.Condition()
_waiting: Counter[int] = Counter()  # by rank, the one that compiles included
_busy = False
_own = threading.local()
_at_work: set[int] = set()  # threads that compile, or wait to


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


def keep_compiled() -> None:
    """Keep compiled programs on disk, for the next start of the lab; in JAX's own folder where the user has set one."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oscsim" / "programs"
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies there is run: nobody else may write to it
        if sum(file.stat().st_size for file in cache.iterdir()) > MOST:
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir(mode=0o700)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # JAX looks for the folder once, perhaps before it was named
