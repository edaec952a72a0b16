"""Who may open the lab: the real server, asked by plain HTTP and websocket clients."""

import asyncio
import gc
import html
import http.client
import io
import logging
import threading
import time
import urllib.parse
from collections import Counter

import pytest

import oscsim as osc

pytest.importorskip("panel", reason="the lab needs the extra `lab`")

from bokeh.client import pull_session
from bokeh.document import Document
from bokeh.models import ColumnDataSource
from bokeh.server.session import ServerSession
from panel.models import HTML
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from oscsim.lab import server
from oscsim.lab.guard import MOST, Few, Guard, OneLine, is_loopback
from oscsim.lab.runner import Runner
from tests.helpers import Served

pytestmark = pytest.mark.filterwarnings("default")  # of Panel, Bokeh and tornado


def ask(lab, path="/", method="GET", body=None, **headers):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host="Host" in headers)
    if body is not None:
        headers |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(None if body is None else body.encode())
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def enter(lab):
    """The cookie of a visitor who has the address."""
    status, headers, _ = ask(lab, f"/?token={lab.guard.token}")
    assert status == 303
    return headers["Set-Cookie"].split(";")[0]


@pytest.fixture(scope="module")
def lab():
    opened = Served(running=False)
    yield opened
    opened.stop()


def connect(lab, **headers):
    """The status of an attempt to open the websocket; 101 where it opens."""

    async def attempt():
        request = HTTPRequest(f"ws://127.0.0.1:{lab.port}/ws", headers=headers)
        try:
            connection = await websocket_connect(request, subprotocols=["bokeh", "none"])
        except HTTPClientError as error:
            return error.code
        connection.close()
        return 101

    return asyncio.run(attempt())


def test_the_token_opens_the_lab_once_and_a_cookie_from_then_on(lab):
    assert ask(lab)[0] == 403
    assert ask(lab, "/?token=wrong")[0] == 403
    status, headers, _ = ask(lab, f"/?token={lab.guard.token}&amplitude=0.2")
    assert (status, headers["Location"]) == (303, "/?amplitude=0.2")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert lab.guard.token not in headers["Set-Cookie"]
    status, _, text = ask(lab, Cookie=headers["Set-Cookie"].split(";")[0])
    assert status == 200
    assert "oscsim lab" in text
    assert ask(lab, Cookie=f"{lab.guard.cookie}=wrong")[0] == 403
    for path in ("/static/js/bokeh.min.js", "/autoload.js?bokeh-autoload-element=1", "/metadata", "/ws"):
        assert ask(lab, path)[0] == 403, path


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", ""])
def test_another_name_is_refused_by_http_and_websocket(lab, host):
    cookie, port = enter(lab), lab.port
    named = f"{host}:{port}"
    assert ask(lab, Cookie=cookie, Host=named)[0] == 403
    assert ask(lab, f"/?token={lab.guard.token}", Host=named)[0] == 403
    assert connect(lab, Cookie=cookie, Host=named, Origin=f"http://{named}") == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "file://", "http://127.0.0.1:1"])
def test_another_origin_is_refused(lab, origin):
    cookie = enter(lab)
    assert ask(lab, Cookie=cookie, Origin=origin)[0] == 403
    assert connect(lab, Cookie=cookie, Origin=origin) == 403
    assert connect(lab, Origin=f"http://127.0.0.1:{lab.port}") == 403  # without the cookie


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_its_own_names_are_let_in(lab, name):
    assert ask(lab, "/metadata", Cookie=enter(lab), Host=f"{name}:{lab.port}")[0] == 200


def test_panels_components_import_nothing(lab):
    import sys

    assert "this" not in sys.modules
    assert ask(lab, "/components/this/x/_css/y", Cookie=enter(lab))[0] == 404
    assert "this" not in sys.modules


def test_a_password_opens_it_and_nothing_else_does():
    opened = Served(Guard("127.0.0.1", password="séame"), running=False)
    try:
        status, _, text = ask(opened)
        assert (status, 'type="password"' in text) == (403, True)
        assert ask(opened, "/", "POST", urllib.parse.urlencode({"password": "no"}))[0] == 403
        assert ask(opened, "/?token=")[0] == 403
        status, headers, _ = ask(opened, "/", "POST", urllib.parse.urlencode({"password": "séame"}))
        assert status == 303
        assert ask(opened, "/metadata", Cookie=headers["Set-Cookie"].split(";")[0])[0] == 200
    finally:
        opened.stop()


def test_a_name_that_can_be_rebound_is_refused_at_every_address():
    guard = Guard("0.0.0.0", everybody=True)
    assert guard._is_own("192.168.1.7:5006")
    assert not guard._is_own("evil.example:5006")


def test_all_of_loopback_is_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.0.0.2", "127.255.255.255", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "evil.example", "")))


def test_another_address_needs_a_password_or_allow_everybody():
    with pytest.raises(osc.BadValue, match="opens the lab to other machines: give a password"):
        osc.lab.serve(0, "0.0.0.0")
    with pytest.raises(osc.BadValue, match="password is empty"):
        osc.lab.serve(0, "0.0.0.0", password="")
    with pytest.warns(UserWarning, match="to everybody who can reach this machine, unencrypted"):
        server._check_access("192.0.2.1", None, True)


def test_what_a_visitor_sends_reaches_the_log_on_one_cut_line():
    out = io.StringIO()
    handler, logger = logging.StreamHandler(out), logging.getLogger("test_lab_guard")
    handler.setFormatter(OneLine())
    logger.addHandler(handler)
    logger.propagate = False
    try:
        raise ValueError("a\nERROR forged \x1b[31mred\u202e " + "x" * 100_000)
    except ValueError:
        logger.exception("failed on\r\n%s", "\x07")
    logger.removeHandler(handler)
    lines = out.getvalue().splitlines()
    assert len(lines) == 1
    assert len(lines[0]) < 330
    assert lines[0].isascii()
    assert lines[0].isprintable()
    assert "Traceback" not in lines[0]


def test_who_sends_nonsense_by_the_thousand_fills_no_disk():
    records = [logging.LogRecord("bokeh", logging.ERROR, "", 0, "%d", (i,), None) for i in range(1000)]
    few = Few()
    kept = [record.getMessage() for record in records if few.filter(record)]
    assert MOST <= len(kept) <= 2 * MOST  # the minute may end in between
    assert "what else goes wrong in this minute is left out" in kept


def test_one_visitor_too_many_gets_a_friendly_page_and_a_place_when_another_leaves():
    lab = Served(Guard("127.0.0.1", everybody=True), running=False, visitors=2)

    def visit():
        return pull_session(url=f"http://127.0.0.1:{lab.port}/")

    def words(visitor):
        return " ".join(html.unescape(model.text) for model in visitor.document.select({"type": HTML}))

    def threads():
        return sum(thread.name.startswith("oscsim-lab") for thread in threading.enumerate())

    def until_empty():
        deadline = time.monotonic() + 60
        while threads() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert threads() == 0

    until_empty()  # visitors of other tests leave
    visitors = [visit(), visit()]
    full = visit()
    assert "All 2 places of this lab are taken" in words(full)
    assert threads() == 4
    for visitor in (*visitors, full):
        visitor.close()
    until_empty()
    again = visit()
    assert "Show me" in words(again)
    again.close()
    lab.stop()


@pytest.mark.slow
def test_who_leaves_leaves_nothing_behind():
    lab = Served(Guard("127.0.0.1", everybody=True), running=False)
    kinds = (server.NoiseLab, Runner, Document, ServerSession, ColumnDataSource)

    def alive():
        gc.collect()
        return Counter(type(o).__name__ for o in gc.get_objects() if issubclass(type(o), kinds))

    before = alive()  # of servers that were stopped with visitors
    visitors = [pull_session(url=f"http://127.0.0.1:{lab.port}/") for _ in range(3)]
    assert alive()["Runner"] == before["Runner"] + 3
    for visitor in visitors:
        visitor.close()
    del visitor, visitors
    lab.labs.clear()
    deadline = time.monotonic() + 60
    while (left := alive() - before) and time.monotonic() < deadline:
        time.sleep(0.5)
    lab.stop()
    assert left == {}


def test_an_address_restores_the_settings():
    settings = osc.lab.Settings(amplitude=0.2, noise="none", realisations=3, learning=True)
    assert settings.link == "?amplitude=0.2&noise=none&realisations=3&learning=True"
    words = dict(urllib.parse.parse_qsl(settings.link[1:]))
    assert osc.lab.Settings().restored(words | {"utm": "1"}) == settings
    assert osc.lab.Settings().link == ""
    for name, word in (("amplitude", "big"), ("learning", "1"), ("period", "5.0"), ("realisations", "2.5")):
        with pytest.raises(osc.BadValue, match=f"{name}="):
            osc.lab.Settings().restored({name: word})
