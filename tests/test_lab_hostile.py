"""What a visitor may send: the real server in a process of its own, with one who sends nonsense and one who works."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from itertools import takewhile

import pytest

pytest.importorskip("panel", reason="the lab needs the extra `lab`")

from tornado.websocket import WebSocketClosedError

from oscsim.lab.guard import LONGEST
from tests.benchmarks.lab_visitors import Lab, Visitor, models

pytestmark = pytest.mark.filterwarnings("default")  # of Bokeh and tornado

ESCAPES = "a\nERROR forged \x1b[31mred\u202e"
VALUES = [
    *({"type": "number", "value": word} for word in ("nan", "+inf", "-inf", "\x1b")),
    *(1e308, -1e308, 10**400, -1, 0, 2**63, True, None),
    *("", ESCAPES, "x" * 100_000, ESCAPES * 10_000, "../../etc/passwd", "{{7*7}}", "\x00"),
    *([], [1, [2, [3]]], {}, {"type": "map", "entries": [["a"]]}, {"id": ESCAPES}, {"type": ESCAPES}),
    {"type": "object", "name": "os.system", "id": "z"},
    {"type": "ndarray", "array": {"id": "none"}, "dtype": "float64", "shape": [2**40], "order": "little"},
    {"type": "bytes", "data": "!"},
    {"type": "slice", "start": ESCAPES},
]
KINDS = ("ColumnDataChanged", "ColumnsStreamed", "ColumnsPatched", "RootAdded", ESCAPES)

HEAD, NONE, DEEP = '{"msgid": "1", "msgtype": "PATCH-DOC"}', "{}", "[" * 100_000
FRAGMENTS = [
    ("", "", ""),
    (b"\x00\xff\x1b", NONE, NONE),
    (HEAD, b"\xff" * 1000, NONE),
    (HEAD, NONE, '{"events": [{"kind": "ModelCh'),
    (HEAD, NONE, DEEP),
    (DEEP, NONE, NONE),
    (HEAD, NONE, NONE),
    (HEAD, NONE, "null"),
    ("[]", NONE, NONE),
    ("null", NONE, NONE),
    (json.dumps({"msgid": ESCAPES, "msgtype": ESCAPES}), NONE, NONE),
    (json.dumps({"msgid": ["x"], "msgtype": ["x"]}), NONE, NONE),
    ('{"msgid": "1", "msgtype": "PULL-DOC-REPLY"}', NONE, NONE),
    ('{"msgid": "1", "msgtype": "PUSH-DOC"}', NONE, '{"doc": {"roots": "none"}}'),
    ('{"msgid": "1", "msgtype": "PATCH-DOC", "num_buffers": 1000000000}', NONE, NONE, '{"id": "x"}', b"junk", "junk"),
    (HEAD, NONE, "x" * 2**21),
]
"""No messages: malformed, cut, of an unknown kind, too deep, too large."""


def wrong_events(page):
    """Every wrong value for every control, and events of other kinds, mixed."""
    controls = [m["id"] for m in models(page) if {"value", "active"} & set(m.get("attributes", {}))]
    assert len(controls) > 10
    sent = {"kind": "MessageSent", "msg_type": "bokeh_event"}
    events = []
    for value in VALUES:
        for name in (*controls, "p0", ESCAPES):
            model = {"kind": "ModelChanged", "model": {"id": name}, "new": value}
            events += [model | {"attr": attribute} for attribute in ("value", "active", "options", ESCAPES)]
        events += [{"kind": kind, "model": {"id": controls[0]}, "attr": "value", "data": value} for kind in KINDS]
        events += [sent | {"msg_data": value}, sent | {"msg_data": {"type": "event", "name": value, "values": value}}]
        events += [{"kind": value}, value, {"kind": "TitleChanged", "title": value}]
    random.Random(0).shuffle(events)
    return events


async def disturb(url, messages):
    """Send so many wrong messages; the answers, None where the server closed the connection instead."""
    visitor = Visitor(url)
    await visitor.come()
    answers, events, fragments = [], iter(wrong_events(visitor.page)), iter(FRAGMENTS * messages)
    for number in range(messages):
        if number % 10 == 9:
            with contextlib.suppress(WebSocketClosedError):
                await visitor.write(*next(fragments))
            await visitor.leave()
        else:
            answers.append(await visitor.patch(next(events)))
        if not visitor.connected:
            await visitor.connect()
    answers.append(await visitor.ask("PUSH-DOC", {"doc": {"version": "3", "title": "", "roots": []}}))
    await visitor.leave()
    return answers


async def turn(visitor, periods):
    """Set the period to one after another; asks each time until the picture is of it."""
    slider = next(m["id"] for m in models(visitor.page) if "Period" in str(m.get("attributes", {}).get("title")))
    for period in periods:
        answer = await visitor.patch({"kind": "ModelChanged", "model": {"id": slider}, "attr": "value", "new": period})
        assert answer.msgtype == "OK"
        while visitor.status.get("period") != [period]:
            assert visitor.connected
            await asyncio.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("messages", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_hostile_messages_are_refused_in_one_line_and_disturb_no_other_visitor(messages):
    lab = Lab()

    async def meet():
        other = Visitor(lab.url)
        await other.come()
        await turn(other, [50, 60])
        disturbing = asyncio.create_task(disturb(lab.url, messages))
        turned = [10 + n % 300 for n in range(2 * messages)]
        periods = takewhile(lambda _: not disturbing.done(), turned)
        beside = 0
        for period in periods:
            await turn(other, [period])
            beside += 1
        answers = await disturbing
        await turn(other, [50, 60])
        await other.leave()
        return answers, beside

    try:
        answers, beside = asyncio.run(meet())
        lines = lab.log.splitlines()
    finally:
        lab.close()
    kinds = Counter("closed" if answer is None else answer.msgtype for answer in answers)
    print(f"\n{messages} messages: {dict(kinds)}, {len(lines)} lines in the log, {beside} turns of the other visitor")
    print(*lines, sep="\n")
    assert beside > 1
    assert kinds["ERROR"] > messages / 4
    for answer in answers:
        if answer is not None and answer.msgtype == "ERROR":
            assert answer.content["traceback"] is None
            assert len(answer.content["text"]) <= LONGEST
    assert 0 < len(lines) <= messages
    for line in lines:
        assert line.startswith("oscsim lab: ")
        assert len(line) < 330
        assert line.isascii()
        assert line.isprintable()
        assert "Traceback" not in line
