"""What is still done when a process is told to end: files are finished, what would be lost is saved.

The command calls `last_words` in a thread of its own, when a signal comes (`oscsim/cli/entry.py`).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

WRITING = threading.RLock()
"""Held while a file is written, which then is finished before the process ends."""

SECONDS = 10
"""So long an end waits for that: a share that does not answer must not keep the process alive."""

_saves: list[Callable[[], object]] = []
_remedy = "the same command starts again"
_begun = threading.Event()


@contextlib.contextmanager
def saving(save: Callable[[], object]) -> Iterator[None]:
    """If the process is told to end within this context, call `save` first; in another thread, at any moment.

    Where nobody listens for signals, as in notebooks, Ctrl-C is an exception, and `save` is called too.
    """
    _saves.append(save)
    try:
        yield
    except KeyboardInterrupt:
        save()
        raise
    finally:
        _saves.remove(save)


def go_on_by(remedy: str) -> None:
    """From now on, this is said of how to go on."""
    global _remedy
    _remedy = remedy


def begun() -> bool:
    """Whether the process was told to end."""
    return _begun.is_set()


def last_words() -> str:
    """Save what is to be saved, and say how to go on. The lock stays taken, so that no other file is begun."""
    _begun.set()
    WRITING.acquire(timeout=SECONDS)
    for save in _saves:
        try:
            save()
        except Exception as error:
            return f"what was not saved yet is lost ({' '.join(str(error).split())}); {_remedy}"
    return _remedy
