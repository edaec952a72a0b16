"""The command `oscsim`: what ends it is heard from its first moment, before the package is imported, which takes long.

Ctrl-C (SIGINT), SIGTERM and SIGHUP end it at once, wherever it is, also while XLA compiles: a thread hears of them,
saves what would be lost, says in one line on stderr how to go on, and ends the process with the status 130, 143 or 129.
No exception is raised at a random place, and nothing is torn down under threads that still run.
"""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable

__all__ = ["main"]

SIGNALS = {signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__}


def nothing_begun() -> str:
    """What is said before the package is there."""
    return "the same command starts again"


last_words: Callable[[], str] = nothing_begun

ENDING = threading.Lock()
"""Taken for good by what comes first: a signal, or the command's own end."""

CLOSING = 3
"""Seconds that Python has to close a command that was done when the signal came."""


def listen() -> None:
    """Hear of signals from now on, but of those that whoever started the process had it ignore, as `nohup` does."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    threading.Thread(target=_end, args=(heard,), name="oscsim-end", daemon=True).start()


def _end(heard: int) -> None:
    number = 0
    while number not in SIGNALS:
        number = os.read(heard, 1)[0]
    ENDING.acquire(timeout=CLOSING)
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    clear = "\r\x1b[2K" if os.isatty(2) else ""  # of a progress bar, and of ^C
    try:
        os.write(2, f"{clear}oscsim: stopped by {name}; {last_words()}\n".encode())
    except OSError:
        pass  # the terminal is gone
    finally:
        os._exit(128 + number)


ADDRESS_SPACE = 2.5e9
"""Bytes of address space without which loading and compiling end in a crash, or in a library that tries for ever."""


def require_address_space() -> None:
    """End in one line where `ulimit -v` leaves too little."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY and most < ADDRESS_SPACE:
        sys.exit(
            f"oscsim: error: this process may use {most / 1e9:.2g} GB of address space (ulimit -v), and needs "
            f"{ADDRESS_SPACE / 1e9:.2g}: raise the limit"
        )


def main() -> None:
    """Run the command."""
    global last_words
    listen()
    require_address_space()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # nothing printed is lost, and a pipe gets each line at once
    # XLA would call a kept program one of another machine, since it knows two flags of its own by no processor's name.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from oscsim.cli import commands
    from oscsim.core import ending, keep_compiled

    last_words = ending.last_words
    keep_compiled()
    try:
        commands.main()
    finally:
        if not ENDING.acquire(blocking=False):
            threading.Event().wait()  # a signal was first: its thread ends the process


if __name__ == "__main__":
    main()
