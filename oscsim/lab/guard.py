"""Who may open the lab: every request passes here, before any handler of Panel or Bokeh sees it.

A web page of another site can send requests to a server on this machine, even under a name of its own that it lets
point here (DNS rebinding). So the `Host` of a request has to be one of this server's names, its `Origin`, where there
is one, has to be the same, and the browser has to show a cookie, which it gets for a secret: the token in the address
that the command prints, or a password.
"""

import asyncio
import hmac
import ipaddress
import logging
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from bokeh.core.types import ID
from bokeh.protocol import SPEC
from bokeh.protocol.messages.error import Error, error
from bokeh.server.server import Server
from tornado.httputil import HTTPServerRequest
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler

WRONG = 1.0
"""Seconds that a wrong word waits for its answer: passwords are not tried by the thousand."""

LONGEST, MOST = 300, 30
"""Characters of a line in the log; lines in a minute, at most."""

REPEATS = (
    "Bokeh Server internal error: server failed",
    "Exception in callback functools.partial(<bound method IOLoop._discard_future_result",
)
"""How lines begin that tell what the line before has told."""

PAGE = """<!doctype html><html lang="en"><title>oscsim lab</title><body style="font: 16px sans-serif; margin: 15vh auto;
max-width: 34em; line-height: 1.5; color: #1f2933"><h1 style="color: #0072b2; font-size: 22px">oscsim lab</h1>{words}"""
"""A page in words; it asks for nothing else."""

NO_TOKEN = "<p>This address lacks the token. Open the lab with the whole address that <code>oscsim lab</code> printed."
CROWDED = """<meta http-equiv="refresh" content="5"><p>Many visitors come at this moment. This page tries again by
itself, in five seconds."""
STRANGER = "<p>This server does not answer to that name."
NO_SUCH = "<p>There is no such page."
ASKS = """<form method="post" action="/"><p><label>Password <input type="password" name="password" autofocus></label>
<button>Open</button></form>"""


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address: all of 127.0.0.0/8, ::1, localhost."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def host_in_url(address: str) -> str:
    """An address as it stands in a URL: IPv6 in brackets, this machine's name for all of its addresses."""
    if address in ("0.0.0.0", "::"):
        return socket.gethostname().lower()
    return f"[{address}]" if ":" in address else address


class Guard(Matcher):
    """Decides about each request. `attach` puts it before the handlers of a server.

    Args:
        address: where the server listens.
        password: what to ask visitors for in place of the token in the address.
        everybody: let in whoever can reach the server.

    Attributes:
        token: the secret in the address that is printed; empty where none is needed.
    """

    def __init__(self, address: str, password: str | None = None, everybody: bool = False):
        self.local = is_loopback(address)
        self.names = {"localhost", host_in_url(address)} | ({"127.0.0.1", "[::1]"} if self.local else set())
        self.password = password
        self.open = everybody
        self.token = "" if everybody or password is not None else secrets.token_urlsafe(24)
        self.ticket = secrets.token_urlsafe(24)
        self.cookie = "oscsim-lab"

    def attach(self, server: Server, lets_in: Callable[[], bool] = lambda: True) -> None:
        """Have every request of the server pass here first; who asks for the page and is not let in now is to wait."""
        self.cookie += f"-{server.port}"  # cookies are shared by all ports of a host
        self._lets_in = lets_in
        server._tornado.default_router.rules.insert(0, Rule(self, _Answer))

    def match(self, request: HTTPServerRequest) -> dict[str, object] | None:
        """None lets the request through; else what `_Answer` is to answer."""
        said = self._refusal(request)
        return None if said is None else {"target_kwargs": {"guard": self, "status": said[0], "words": said[1]}}

    def _refusal(self, request: HTTPServerRequest) -> tuple[int, str] | None:
        origin = request.headers.get("Origin")
        if not self._is_own(request.host) or (origin is not None and urlsplit(origin).netloc != request.host):
            return 403, STRANGER
        if request.path.startswith("/components/"):  # Panel imports the module that the path names
            return 404, NO_SUCH
        if self.open or (
            self.cookie in request.cookies and self._same(request.cookies[self.cookie].value, self.ticket)
        ):
            return (503, CROWDED) if request.path == "/" and not self._lets_in() else None
        return 403, ASKS if self.password is not None else NO_TOKEN

    def _is_own(self, host: str) -> bool:
        """Whether a `Host` names this server; away from loopback any number does, since numbers cannot be rebound."""
        name = host.lower().rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host.lower()
        if name in self.names or self.local:
            return name in self.names
        try:
            return ipaddress.ip_address(name.strip("[]")) is not None
        except ValueError:
            return False

    def admits(self, word: str) -> bool:
        """Whether that is the token or the password."""
        secret = self.token or self.password
        return bool(secret) and self._same(word, str(secret))

    @staticmethod
    def _same(one: str, other: str) -> bool:
        return hmac.compare_digest(one.encode(), other.encode())


class _Answer(RequestHandler):
    """Refuses, or gives a cookie for the token or the password and sends on to the page."""

    def initialize(self, guard: Guard, status: int, words: str) -> None:
        self.guard, self.status, self.words = guard, status, words

    def prepare(self) -> None:
        if self.request.method not in ("GET", "POST") or self.words in (CROWDED, STRANGER, NO_SUCH):
            self._say()

    async def get(self) -> None:
        await self._enter(self.get_query_argument("token", ""))

    async def post(self) -> None:
        await self._enter(self.get_body_argument("password", ""))

    async def _enter(self, word: str) -> None:
        if self.request.path != "/" or not self.guard.admits(word):
            await asyncio.sleep(WRONG if word else 0)
            self._say()
            return
        self.set_cookie(self.guard.cookie, self.guard.ticket, httponly=True, samesite="Lax", expires_days=None)
        rest = [(key, value) for key, value in parse_qsl(self.request.query) if key != "token"]
        self.redirect("/" + ("?" + urlencode(rest) if rest else ""), status=303)

    def check_xsrf_cookie(self) -> None:
        """A password is asked for, and the origin was checked: there is nothing that another page could do."""

    def _say(self) -> None:
        self.set_status(self.status)
        self.set_header("Cache-Control", "no-store")
        self.finish(PAGE.format(words=self.words))


class OneLine(logging.Formatter):
    """A message on one line, escaped and cut, without a traceback: it may hold what a visitor sent."""

    def format(self, record: logging.LogRecord) -> str:
        said = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            said += f": {record.exc_info[1]!r}"
        if "Traceback (most recent" in said:  # as text, which ends with the error
            said = f"{said.split('Traceback')[0]} {said.strip().splitlines()[-1]}"
        said = " ".join(said.split()).encode("ascii", "backslashreplace").decode()
        said = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in said)
        return f"oscsim lab: {said[:LONGEST]}{'...' if len(said) > LONGEST else ''}"


class Few(logging.Filter):
    """Lets `MOST` lines a minute through: who sends nonsense by the thousand fills no disk."""

    def __init__(self):
        super().__init__()
        self._minute = self._lines = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().startswith(REPEATS):
            return False
        minute = int(time.monotonic() // 60)
        self._lines = self._lines + 1 if minute == self._minute else 1
        self._minute = minute
        if self._lines == MOST:
            record.msg, record.args, record.exc_info = "what else goes wrong in this minute is left out", (), None
        return self._lines <= MOST


class Refusal(error):
    """The answer to a message that failed, without a traceback: it names files of this machine."""

    @classmethod
    def create(cls, request_id: ID, text: str, **metadata: Any) -> "Refusal":
        return cls(cls.create_header(request_id=request_id), metadata, Error(text=text[:LONGEST], traceback=None))


def quiet_logs() -> None:
    """Have the log of the server tell errors alone, each as one line, and its answers tell no traceback."""
    SPEC["ERROR"] = Refusal
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    handler.addFilter(Few())
    for name in ("bokeh", "panel", "tornado", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.ERROR)
        logger.handlers, logger.propagate = [handler], False
