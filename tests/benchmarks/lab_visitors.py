"""Many visitors of one lab. `python tests/benchmarks/lab_visitors.py`.

One visitor comes and leaves, then 20 come at once, then 100 one after another. Prints how long each waits for the page
and how many are refused, and the resident memory of the server when all have left. A visitor does what a browser
does: asks for the page, opens the websocket, pulls the document, says of each frame that it was drawn.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bokeh.protocol import Protocol
from bokeh.protocol.receiver import Receiver
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClosedError, websocket_connect

TOGETHER, IN_TURN = 20, 100
STAYS, STAYS_SHORTLY = 30.0, 1.0
"""Seconds that visitors stay who come together, and one after another."""

READY = {"type": "event", "name": "document_ready", "values": {"type": "map"}}
"""What a browser says when it has drawn the page."""

LONGEST = 120.0
"""Seconds that a visitor waits for an answer."""


class Lab:
    """`oscsim lab` in a process of its own; what it says in its log is in `log`."""

    def __init__(self, *options):
        code = "from oscsim.cli.entry import main; main()"
        command = [sys.executable, "-c", code, "lab", "--port", "0", "--no-browser", *options]
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 (it is kept as long as the process)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.pid, line = self._process.pid, self._process.stdout.readline()
        assert " at " in line, self.log
        self.url = line.split(" at ")[1].split()[0]

    @property
    def log(self):
        return Path(self._log.name).read_text()

    @property
    def memory(self):
        """Resident, in megabytes."""
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())[1]) / 1024

    @property
    def worked(self):
        """Seconds of processor time."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def at_rest(self):
        """Wait until it computes nothing: nobody is there, and nothing is left to compile ahead."""
        quiet = 0
        while quiet < 4:
            before = self.worked
            await asyncio.sleep(1)
            quiet = quiet + 1 if self.worked - before < 0.1 else 0

    def close(self):
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._process.stdout.close()
        self._log.close()


def models(found):
    """All models in a document's JSON, each after those that contain it."""
    if isinstance(found, dict) and found.get("type") == "object" and "id" in found:
        yield found
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    for part in parts:
        yield from models(part)


class Visitor:
    """One page. `page` is its document, `frames` counts what was sent to be drawn, `status` says what of."""

    def __init__(self, url):
        self.url, token = url.split("?token=")
        self._token, self._turn = token, asyncio.Lock()
        self.frames, self.status, self.named, self.page, self._number = 0, {}, {}, None, 0

    async def come(self):
        """Ask for the page as a browser does; the seconds until its document is there."""
        began = time.monotonic()
        ask = {"request_timeout": LONGEST, "connect_timeout": LONGEST}
        client = AsyncHTTPClient(force_instance=True, defaults=ask)
        answer = await client.fetch(f"{self.url}?token={self._token}", follow_redirects=False, raise_error=False)
        headers = {"Cookie": answer.headers["Set-Cookie"].split(";")[0], "Origin": self.url.rstrip("/")}
        answer = await client.fetch(HTTPRequest(self.url, headers=headers), raise_error=False)
        client.close()
        if answer.code == 503:
            return time.monotonic() - began
        self._where = self.url.replace("http", "ws") + "ws", headers
        self._session = re.search(r'"token":"([^"]+)"', answer.body.decode())[1]
        await self.connect()
        reply = await self.ask("PULL-DOC-REQ", {})
        self.page = reply.content["doc"]
        found = list(models(self.page))
        self.named = {m["attributes"]["name"]: m["id"] for m in found if m.get("attributes", {}).get("name")}
        self._carrier = next((m["id"] for m in found if m.get("attributes", {}).get("tags") == [0]), None)
        took = time.monotonic() - began
        await self.patch({"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": READY})  # else no change comes
        return took

    async def connect(self):
        """Open the websocket that the page names; again, where the server has closed it."""
        url, headers = self._where
        where = HTTPRequest(url, headers=headers, request_timeout=LONGEST)
        self._receiver, self._answers = Receiver(Protocol()), {}
        self._socket = await websocket_connect(where, subprotocols=["bokeh", self._session], max_message_size=2**27)
        self._reading = asyncio.create_task(self._read())
        await self._answered("ACK")

    @property
    def connected(self):
        return not self._reading.done()

    @property
    def refused(self):
        """In words: the places are taken, or many come at this moment."""
        return self.page is None or "places of this lab are taken" in json.dumps(self.page, default=str)

    async def send(self, kind, content):
        """One message, without waiting."""
        self._number += 1
        await self.write(*(json.dumps(part) for part in ({"msgid": str(self._number), "msgtype": kind}, {}, content)))
        return str(self._number)

    async def write(self, *fragments):
        """Fragments as they are, with none of another message between them."""
        async with self._turn:
            for fragment in fragments:
                await self._socket.write_message(fragment, binary=isinstance(fragment, bytes))

    async def ask(self, kind, content):
        """One message, and its answer; None where the server closes the connection instead."""
        return await self._answered(await self.send(kind, content))

    async def _answered(self, number):
        self._answers[number] = answer = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait({answer, self._reading}, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
        assert done, f"no answer in {LONGEST:g} s"
        return done.pop().result()

    async def patch(self, *events):
        """Change the document, as a turned knob does."""
        return await self.ask("PATCH-DOC", {"events": list(events)})

    async def _read(self):
        while (fragment := await self._socket.read_message()) is not None:
            message = await self._receiver.consume(fragment)
            if message is None:
                continue
            answer = self._answers.pop(message.header.get("reqid", message.msgtype), None)
            if answer is not None:
                answer.set_result(message)
            elif message.msgtype == "PATCH-DOC":
                await self._draw(message.content["events"])

    async def _draw(self, events):
        for event in events:
            if event.get("model", {}).get("id") == self.named.get("status") and "data" in event.values():
                self.frames += 1
                self.status = dict(event.get("new", event.get("data"))["entries"])
                drawn = {"kind": "ModelChanged", "model": {"id": self._carrier}, "attr": "tags"}
                with contextlib.suppress(WebSocketClosedError):
                    await self.send("PATCH-DOC", {"events": [drawn | {"new": self.status["drawing"]}]})

    async def leave(self):
        self._socket.close()
        await self._reading


async def visit(url, seconds):
    """Come, stay, leave; the seconds until the page was there, whether it was refused, the frames drawn."""
    visitor = Visitor(url)
    took = await visitor.come()
    if visitor.page is not None:
        await asyncio.sleep(seconds)
        await visitor.leave()
    return took, visitor.refused, visitor.frames


def report(name, visits):
    times = [took for took, _, _ in visits]
    refused, frames = sum(r for _, r, _ in visits), median(f for _, r, f in visits if not r)
    print(
        f"{name}: page after {min(times):.1f} s, median {median(times):.1f} s, at most {max(times):.1f} s; "
        f"{refused} of {len(visits)} refused; {frames:.0f} frames drawn",
        flush=True,
    )


async def main():
    lab = Lab()
    try:
        await lab.at_rest()
        print(f"before anybody came: {lab.memory:.0f} MB", flush=True)
        report("the first", [await visit(lab.url, STAYS)])
        await lab.at_rest()
        first = lab.memory
        print(f"after the first left: {first:.0f} MB", flush=True)
        together = asyncio.gather(*(visit(lab.url, STAYS) for _ in range(TOGETHER)))
        await asyncio.sleep(STAYS / 2)
        print(f"while {TOGETHER} are there: {lab.memory:.0f} MB", flush=True)
        report(f"{TOGETHER} at once", await together)
        await lab.at_rest()
        print(f"after they left: {lab.memory:.0f} MB, {lab.memory / first - 1:+.1%}", flush=True)
        report(f"{IN_TURN} in turn", [await visit(lab.url, STAYS_SHORTLY) for _ in range(IN_TURN)])
        await lab.at_rest()
        print(f"after they left: {lab.memory:.0f} MB, {lab.memory / first - 1:+.1%}", flush=True)
    finally:
        lab.close()


if __name__ == "__main__":
    asyncio.run(main())
