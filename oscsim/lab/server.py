"""The server of the lab: each visitor has a network of their own, which stops when they leave."""

import asyncio
import logging
import socket
import threading
import warnings
import webbrowser
from typing import Any

import panel as pn
from panel.io.resources import LOCAL_DIST
from panel.io.server import Server
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from oscsim.lab.engine import Engine
from oscsim.lab.forecast import forecast, maps
from oscsim.lab.settings import PRESETS, Settings
from oscsim.lab.view import NoiseLab

LEFT, CHECKED = 3000, 1000
"""Milliseconds after which a visitor whose connection is gone counts as gone, and between two checks."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def make_server(port: int = 0, address: str = "127.0.0.1", *, loop: IOLoop | None = None, **options: Any) -> Server:
    """The server, bound to its port, not yet serving: a `NoiseLab` for each visitor, which stops when they leave.

    Args:
        port: where to listen; 0 takes a free one (`server.port` says which).
        address: loopback by default; any other opens the lab to others.
        loop: the event loop, by default the present thread's.
        **options: of `NoiseLab`.
    """
    if address not in LOOPBACK:
        warnings.warn(
            f"address={address} opens the lab to everybody who can reach this machine, without a password: use it in a "
            "network that you trust, or tunnel the port through SSH instead",
            stacklevel=2,
        )

    def page() -> NoiseLab:
        lab = NoiseLab(**options)
        pn.state.on_session_destroyed(lambda _: lab.close())
        if pn.state.curdoc is not None:  # what is made before the page is rendered is to come from this server, too
            pn.state.curdoc.template_variables["dist_url"] = LOCAL_DIST
        return lab

    pn.config.notifications = False
    pn.config.raw_css = [*pn.config.raw_css, "html, body { margin: 0; height: 100%; overflow: hidden; }"]
    origins = ["*"] if address not in LOOPBACK else None
    return pn.io.server.get_server(
        {"/": page},
        port=port,
        address=address,
        loop=loop,
        title="oscsim lab",
        websocket_origin=origins,
        check_unused_sessions_milliseconds=CHECKED,
        unused_session_lifetime_milliseconds=LEFT,
        keep_alive_milliseconds=10_000,
        threaded=False,
    )


def serve(port: int = 5006, address: str = "127.0.0.1", *, browser: bool = True, **options: Any) -> None:
    """Serve the lab until interrupted, and print its address.

    Args:
        port: where to listen; 0 takes a free one.
        address: loopback by default; any other opens the lab to others, with a warning.
        browser: whether to open a browser.
        **options: of `NoiseLab`, such as `network`, `data`, `amplitude`.

    Raises:
        OSError: the port is taken.
        ValueError: bad options.

    Example:
        >>> osc.lab.serve(port=5006, amplitude=0.4)  # doctest: +SKIP
    """
    for name in ("bokeh", "panel", "tornado.access"):
        logging.getLogger(name).setLevel(logging.ERROR)
    NoiseLab(running=False, **options).close()  # says what is wrong with the options now, not to the first visitor
    try:
        server = make_server(port, address, **options)
    except OSError as error:
        raise OSError(
            f"port={port} at {address} cannot be opened ({error}): use another, or 0 for a free one"
        ) from error
    host = socket.gethostname() if address in ("0.0.0.0", "::") else address
    url = f"http://{host}:{server.port}/"
    print(f"The lab is at {url}  (Ctrl-C stops it)", flush=True)
    server.start()
    server.io_loop.add_callback(_ignore_departures)
    threading.Thread(target=_warm_up, name="oscsim-lab-warm-up", daemon=True).start()
    if browser:
        server.io_loop.add_callback(webbrowser.open, url)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        print("\nStopped.")
    finally:
        server.stop()


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


def _warm_up() -> None:
    """Compile what the presets need, before a visitor does."""
    engine = Engine(Settings())
    for preset in PRESETS.values():
        engine.change(**preset.changes)
        engine.advance()
        net, x, y = engine.predicted_from()
        for _ in maps(net, x, y, forecast(net, x, y, engine.settings).radius):
            break
