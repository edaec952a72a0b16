"""The server of the lab: each visitor has a network of their own, which stops when they leave."""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import threading
import time
import webbrowser
from collections import deque
from typing import Any

import panel as pn
from panel.io.resources import LOCAL_DIST
from panel.io.server import Server
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

import oscsim as osc
from oscsim.core import warn
from oscsim.lab.ahead import prepare
from oscsim.lab.guard import Guard, host_in_url, is_loopback, quiet_logs
from oscsim.lab.programs import cycles_wait
from oscsim.lab.view import NoiseLab
from oscsim.lab.words import FULL_HOUSE

LEFT, CHECKED = 3000, 1000
"""Milliseconds after which a visitor whose connection is gone counts as gone, and between two checks."""

VISITORS = max(4, min(16, 4 * (os.cpu_count() or 1)))
"""Visitors at once, at most: each has threads that compute, so four for each core, and no more than 16."""

SPAN, MAKING = 5.0, 3.0
"""While pages took more than so many of the last seconds to make, the next visitor is asked to wait."""

AHEAD, LOST = 2, 30.0
"""Pages that may be asked for before they are made; seconds after which one that was never made is forgotten."""

OFTEN = 50_000, 20, 100
"""After how many new objects garbage is looked for: tracing a program makes a million."""

TIDIED = 2.0
"""Seconds after which what a visitor left is cleared away."""

LARGEST = 2**20
"""Bytes of a message from a visitor, at most."""


class _House:
    """Who is there, and what they leave behind."""

    def __init__(self, places: int, options: dict[str, Any]):
        self.places, self.options = places, options
        self._present: set[NoiseLab] = set()
        self._made: deque[tuple[float, float]] = deque(maxlen=VISITORS)  # when pages were made, and how long it took
        self._coming: deque[float] = deque()  # when those were let in whose pages are still to be made
        self._tidying = False

    def lets_in(self) -> bool:
        """Whether one more page may be asked for now: few are to be made, and those before it did not take long."""
        now = time.monotonic()
        while self._coming and now - self._coming[0] > LOST:
            self._coming.popleft()
        recent = [took for when, took in self._made if now - when < SPAN]
        if len(self._coming) >= AHEAD or sum(recent) > MAKING:
            return False
        self._coming.append(now)
        return True

    def page(self) -> pn.viewable.Viewable:
        """A page for one more visitor; cycles of the others wait meanwhile."""
        began = time.monotonic()
        with cycles_wait():
            found = self._new_page()
        self._made.append((time.monotonic(), time.monotonic() - began))
        if self._coming:
            self._coming.popleft()
        return found

    def _new_page(self) -> pn.viewable.Viewable:
        if pn.state.curdoc is not None:  # what is made before the page is rendered is to come from this server, too
            pn.state.curdoc.template_variables["dist_url"] = LOCAL_DIST
        if len(self._present) >= self.places:
            return pn.pane.HTML(FULL_HOUSE.format(visitors=self.places))
        lab = NoiseLab(**self.options)
        self._present.add(lab)
        pn.state.on_session_destroyed(lambda _: self._leave(lab))
        lab.restore({name: values[-1].decode("utf-8", "replace") for name, values in pn.state.session_args.items()})
        return lab.__panel__()

    def _leave(self, lab: NoiseLab) -> None:
        lab.close()
        self._present.discard(lab)
        if not self._tidying:
            self._tidying = True
            IOLoop.current().call_later(TIDIED, self._tidy)

    def _tidy(self) -> None:
        """Give memory back: a page is full of cycles, and large."""
        self._tidying = False
        frozen = gc.get_freeze_count() > 0
        if frozen and not self._present:  # nobody waits while all is looked through, compiled programs too
            gc.unfreeze()
        gc.collect()
        if frozen and not self._present:
            gc.freeze()
        with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps what was freed
            ctypes.CDLL(None).malloc_trim(0)


def make_server(
    port: int = 0,
    address: str = "127.0.0.1",
    *,
    guard: Guard | None = None,
    loop: IOLoop | None = None,
    visitors: int = VISITORS,
    **options: Any,
) -> Server:
    """The server, bound to its port, not yet serving: a `NoiseLab` for each visitor, which stops when they leave.

    Args:
        port: where to listen; 0 takes a free one (`server.port` says which).
        address: loopback by default; any other opens the lab to others.
        guard: who may open it; by default who knows the token of a new one.
        loop: the event loop, by default the present thread's.
        visitors: how many at once, at most.
        **options: of `NoiseLab`.
    """
    guard = guard or Guard(address)
    house = _House(visitors, options)
    pn.config.notifications = False
    pn.config.raw_css = [*pn.config.raw_css, "html, body { margin: 0; height: 100%; overflow: hidden; }"]
    in_main_thread = threading.current_thread() is threading.main_thread()
    on_interrupt = signal.getsignal(signal.SIGINT)
    server = pn.io.server.get_server(
        {"/": house.page},
        port=port,
        address=address,
        loop=loop,
        title="oscsim lab",
        websocket_origin=["*"],  # the guard has held the origin to the host, and the host to the server's names
        websocket_max_message_size=LARGEST,
        check_unused_sessions_milliseconds=CHECKED,
        unused_session_lifetime_milliseconds=LEFT,
        keep_alive_milliseconds=10_000,
        threaded=False,
    )
    if in_main_thread and on_interrupt is not None:  # Panel's would end the process as if all were done
        signal.signal(signal.SIGINT, on_interrupt)
    guard.attach(server, house.lets_in)
    return server


def serve(
    port: int = 5006,
    address: str = "127.0.0.1",
    *,
    browser: bool = True,
    password: str | None = None,
    allow_everybody: bool = False,
    visitors: int = VISITORS,
    **options: Any,
) -> None:
    """Serve the lab until interrupted, and print its address, which holds a token: who lacks it is refused.

    Args:
        port: where to listen; 0 takes a free one.
        address: loopback by default; any other opens the lab to other machines, with a warning, and needs `password` or
            `allow_everybody`.
        browser: whether to open a browser.
        password: what visitors are asked for, in place of the token.
        allow_everybody: let in whoever can reach the server, without token or password.
        visitors: how many at once, at most.
        **options: of `NoiseLab`, such as `network`, `data`, `amplitude`.

    Raises:
        OSError: the port is taken.
        ValueError: bad options; another address without `password` or `allow_everybody`.

    Example:
        >>> osc.lab.serve(port=5006, amplitude=0.4)  # doctest: +SKIP
    """
    _check_access(address, password, allow_everybody)
    if visitors < 1:
        raise osc.BadValue(f"visitors={visitors}: use 1 or more")
    quiet_logs()
    gc.freeze()  # what is imported stays: looking through it took a sixth of the time until the first picture
    gc.set_threshold(*OFTEN)
    guard = Guard(address, password, allow_everybody)
    try:
        server = make_server(port, address, guard=guard, visitors=visitors, **options)
    except OSError as error:
        raise OSError(
            f"port={port} at {address} cannot be opened ({error}): use another, or 0 for a free one"
        ) from error
    try:
        NoiseLab(running=False, **options).close()  # says what is wrong with the options now, not to the first visitor
    except Exception:
        server.stop()
        raise
    stopped = threading.Event()
    ahead = threading.Thread(target=prepare, args=(stopped,), name="oscsim-lab-prepare", daemon=True)
    ahead.start()
    try:
        url = f"http://{host_in_url(address)}:{server.port}/" + (f"?token={guard.token}" if guard.token else "")
        print(f"The lab is at {url}  (Ctrl-C stops it)", flush=True)
        server.start()
        server.io_loop.add_callback(_ignore_departures)
        if browser:
            server.io_loop.add_callback(webbrowser.open, url)
        server.io_loop.start()
    except KeyboardInterrupt:
        pass
    finally:
        stopped.set()
        server.stop()
        ahead.join()
        print("\nStopped.")


def _check_access(address: str, password: str | None, allow_everybody: bool) -> None:
    if password is not None and (allow_everybody or not password):
        raise osc.BadValue("password is empty, or given with allow_everybody: give one of the two")
    if is_loopback(address):
        return
    if password is None and not allow_everybody:
        raise osc.BadValue(
            f"address={address} opens the lab to other machines: give a password, or allow_everybody; or tunnel the "
            "port through SSH and leave the address out"
        )
    who = "everybody who can reach this machine" if allow_everybody else "everybody who knows the password"
    warn(
        f"address={address} opens the lab to {who}, unencrypted: use it in a network that you trust, or tunnel the "
        "port through SSH instead"
    )


def _ignore_departures() -> None:
    """Report no error when a visitor leaves while something is being sent to them."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if isinstance(context.get("exception"), (WebSocketClosedError, StreamClosedError)):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(handle)
