"""A conversation over `/ws`: audio and text in, typed events out; taken up again where it was when the line drops."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection

from server import events as e
from server.audio import milliseconds
from server.clients.link import ConnectionLost, Link, Refused


def _kinds(base: type[e.Event] = e.Event) -> Iterator[tuple[str, type[e.Event]]]:
    for kind in base.__subclasses__():
        if "type" in vars(kind):
            yield kind.type, kind
        yield from _kinds(kind)


KINDS = dict(_kinds())
CAST = {"character", "characters"}


class Conversation:
    """Use as a block, and read it: `async for event in conversation`. Events are those of `server.events`; audio comes
    as `Audio`. After a lost connection, or a restart of the server, the next event is a new `SessionCreated`, whose
    `resumed` tells whether the server still knew the conversation; audio that was spoken in between is lost.

    `url` is like `ws://localhost:8000/ws`; `query` goes with it (`character`, `greet`)."""

    def __init__(self, url: str, *, token: str = "", attempts: int = 5, **query: str) -> None:
        self.session = ""
        self._url, self._query = url, query
        self._update: dict[str, Any] = {}  # what was asked for, to be asked for again
        self._reply, self._at_ms, self._rate = 0, 0.0, 16_000
        self._link = Link(self._address, token=token, attempts=attempts, greet=self._greet)

    async def __aenter__(self) -> "Conversation":
        await self._link.socket()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._link.close()

    def __aiter__(self) -> AsyncIterator[e.Event]:
        return self

    async def __anext__(self) -> e.Event:
        """Raises `ConnectionLost` when it cannot be opened again, `Refused` when the server will not have us."""
        while True:
            try:
                event = self._event(await self._link.receive())
            except ConnectionLost:
                await self._link.socket()
                continue
            except Refused:
                await self._link.close()  # the next try is a new connection
                raise
            if event is not None:
                return event

    async def hear(self, pcm: bytes) -> None:
        """What the microphone heard, at the session's input rate. Lost while there is no connection."""
        if self._link.open:
            try:
                await self._link.send(pcm)
            except ConnectionLost:
                return

    async def send(self, type: str, **given: Any) -> None:
        """Any command, as in `server.commands`: `send("user.text", text="Hello")`."""
        if type == "session.update":
            self._update = _both(self._update, given)
        await self._link.send({"type": type, **given})

    async def write(self, text: str) -> None:
        """A typed turn."""
        await self.send("user.text", text=text)

    async def say(self, text: str, character: str | None = None) -> None:
        """Have `text` spoken as it stands."""
        await self.send("say", text=text, **({"character": character} if character else {}))

    async def interrupt(self) -> None:
        await self.send("reply.interrupt")

    async def played(self, reply: int, ms: float) -> None:
        """How much of `reply` has sounded."""
        await self.send("playback", reply=reply, ms=ms)

    def _address(self) -> str:
        query = self._query | ({"session": self.session} if self.session else {})
        return f"{self._url}?{urlencode(query)}" if query else self._url

    async def _greet(self, socket: ClientConnection) -> None:
        if self._update:
            await socket.send(json.dumps({"type": "session.update", **self._update}))

    def _event(self, frame: dict[str, Any] | bytes) -> e.Event | None:
        if isinstance(frame, bytes):
            begin, self._at_ms = self._at_ms, self._at_ms + milliseconds(frame, self._rate)
            return e.Audio(self._reply, begin, frame)
        event = read(frame)
        match event:
            case e.Error(fatal=True, code="restart"):
                return None  # the line is about to be lost, and that is mended
            case e.SessionCreated(session=session):
                self.session = session
            case e.ReplyAudio(reply=reply, rate=rate):
                self._reply, self._at_ms, self._rate = reply, 0.0, rate
            case e.Error(fatal=True, code=code, message=message, retry_after=later):
                raise Refused(message, code=code, retry_after=later)
        return event


def _both(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Two updates as one: of tables the later wins field by field, of characters as a whole, under either name."""
    if given.keys() & CAST:
        before = {name: value for name, value in before.items() if name not in CAST}
    tables = [name for name, value in given.items() if isinstance(value, dict) and isinstance(before.get(name), dict)]
    return before | given | {name: before[name] | given[name] for name in tables}


def read(body: dict[str, Any]) -> e.Event | None:
    """A message as the event it is; None for one that this client does not know."""
    kind = KINDS.get(body.get("type", ""))
    if kind is None:
        return None
    known = {f.name for f in fields(kind)}
    given = {key: value for key, value in body.items() if key in known}
    if kind is e.TurnMetrics:
        given["stages"] = {key: value for key, value in body.items() if key not in (*known, "type")}
    return kind(**given)
