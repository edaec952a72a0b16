"""Running the blocks of a sweep on a `dask.distributed` cluster."""

import contextlib
import hashlib
import itertools
import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import jax

from oscsim.core import ending
from oscsim.core.checks import as_count
from oscsim.core.errors import BadType, BadValue, MissingPackage
from oscsim.core.progress import Progress
from oscsim.sweeps.store import Store

if TYPE_CHECKING:
    from distributed import Client

SECONDS_TO_CONNECT = 10
IN_FLIGHT = 4
"""Tasks that are submitted ahead, for each thread of the cluster."""

ALONE = {"NPROC": "1", "OMP_NUM_THREADS": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""The environment of a worker: one thread each, and no device memory taken in advance."""


@runtime_checkable
class Work(Protocol):
    """What is run on workers: block by block, each into the store."""

    def run(self, store: Store, number: int) -> None: ...


@contextlib.contextmanager
def connected(client: "Client | str | None", workers: int | None) -> "Iterator[Client | None]":
    """The client to run on: the one given, one of the scheduler at that address, or one of new processes here; or None.

    Raises:
        ValueError: both are given, or nobody answers at the address.
        ImportError: no dask.
    """
    if client is None and workers is None:
        yield None
        return
    if client is not None and workers is not None:
        raise BadValue(f"client and workers={workers} exclude each other: give one of them")
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingPackage("sweeps on workers need dask: pip install '.[sweep]' in a clone of oscsim") from error
    if workers is not None:
        count = as_count("workers", workers)
        options: dict = {"threads_per_worker": 1, "dashboard_address": None, "env": ALONE}
        with _deaf_to_the_terminal(), _heard_through_us():
            cluster = LocalCluster(n_workers=count, **options)
        nannies = logging.getLogger("distributed.nanny")
        with contextlib.ExitStack() as stack:
            stack.callback(nannies.removeFilter, _not_of_slow_ends)
            connection = stack.enter_context(Client(stack.enter_context(cluster)))
            stack.callback(nannies.addFilter, _not_of_slow_ends)  # when all else is to end: the last is called first
            yield connection
    elif isinstance(client, str):
        try:
            connection = Client(client, timeout=SECONDS_TO_CONNECT)
        except (OSError, ValueError) as error:
            raise BadValue(
                f"scheduler={client}: nobody answers there ({error}); start one with dask scheduler, and "
                "give the address that it prints"
            ) from error
        with connection:
            yield connection
    elif isinstance(client, Client):
        yield client
    else:
        raise BadType(f"client={client!r}: use a dask.distributed.Client, or the address of a scheduler")


def _not_of_slow_ends(record: logging.LogRecord) -> bool:
    """Not dask's warning that it kills a worker that ends slowly: what it computed is in the store by then."""
    return "Worker process still alive" not in record.getMessage()


@contextlib.contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes that threads begun here start do not hear Ctrl-C: they end with the process that has them."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _heard_through_us() -> Iterator[None]:
    """What processes that are begun here say on stderr passes through this one: when it ends, none has the last word.

    Told to end, workers and what watches over them complain of each other for a second.
    """
    heard, said = os.pipe()
    own = os.dup(2)
    os.dup2(said, 2)
    threading.Thread(target=_pass_on, args=(heard, own), name="oscsim-workers", daemon=True).start()
    try:
        with ending.saving(lambda: os.dup2(own, 2)):  # what this process itself says in the end is heard
            yield
    finally:
        os.dup2(own, 2)
        os.close(said)


def _pass_on(heard: int, own: int) -> None:
    with contextlib.suppress(OSError):
        while words := os.read(heard, 2**16):
            if not ending.begun():
                os.write(own, words)
    os.close(heard)
    os.close(own)


def run_on(client: "Client", task: Work, store: Path | None, numbers: list[int], bar: Progress) -> None:
    """Run these blocks there. Each writes its own results, and is tried again where its worker dies.

    Raises:
        RuntimeError: a block whose workers died again and again; all others are finished by then.
    """
    from distributed import KilledWorker, as_completed

    try:
        import cloudpickle

        content = cloudpickle.dumps(task)
    except Exception as error:
        raise BadType(f"the study cannot be sent to workers: {error}") from error
    # A task of its own, so that it is made anew where the worker that holds it dies.
    payload = client.submit(_content, content, pure=False)
    precision = bool(jax.config.read("jax_enable_x64"))
    waiting = iter(numbers)

    def submit(number):
        return client.submit(_run, payload, precision, str(store), number, key=f"block-{number}-{payload.key}")

    lost: list[str] = []
    running, done = as_completed(), bar.done

    def fill():  # workers come and go
        threads = client.nthreads().values()  # pyright: ignore[reportAttributeAccessIssue]
        ahead = IN_FLIGHT * max(1, sum(threads))
        running.update([submit(number) for number in itertools.islice(waiting, max(0, ahead - running.count()))])

    fill()
    while running.count():
        with bar.compiling("a block"):
            future = next(running)
            try:
                future.result()
                done += 1
                bar.update(done)
            except KilledWorker as error:
                lost.append(str(error))
        future.release()
        fill()
    if lost:
        raise RuntimeError(
            f"{len(lost)} of the blocks were given up, since their workers died each time (out of memory?): {lost[0]}; "
            "the others are in the store, and the same call goes on from there"
        )


def _content(content: bytes) -> bytes:
    return content


def _run(content: bytes, precision: bool, store: str, number: int) -> int:
    """One block, on a worker: computed, written, and only its number sent back."""
    for name, value in ALONE.items():  # before jax first computes here
        os.environ.setdefault(name, value)
    with jax.enable_x64(precision):
        _task(hashlib.sha256(content).digest(), content).run(Store.open(store, checked=True), number)
    return number


_TASKS: dict[bytes, Work] = {}
_MAKING = threading.Lock()


def _task(digest: bytes, content: bytes) -> Work:
    """The task of this content, made once per process, so that it is compiled once."""
    with _MAKING:  # a worker may have several threads
        if digest not in _TASKS:
            _TASKS.clear()
            _TASKS[digest] = pickle.loads(content)
        return _TASKS[digest]
