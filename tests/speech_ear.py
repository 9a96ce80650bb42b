"""A client of `/ws/tts/stream` for tests, and servers of it to point it at."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from server.pipelines.studio import Studio
from server.ws import speech
from tests.fakes import FakeTTS
from tests.services import serving


class Ear:
    """What one socket hears. `events`: everything in order, audio as bytes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any] | bytes] = []

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of `types`."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.recv()
                event = frame if isinstance(frame, bytes) else json.loads(frame)
                self.events.append(event)
                if isinstance(event, dict) and event["type"] in types:
                    return event

    async def first_audio(self) -> bytes:
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.recv()
                self.events.append(frame if isinstance(frame, bytes) else json.loads(frame))
                if isinstance(frame, bytes):
                    return frame

    async def quiet(self, seconds: float = 0.15) -> list[dict[str, Any] | bytes]:
        """Everything that comes within `seconds`."""
        begin = len(self.events)
        try:
            async with asyncio.timeout(seconds):
                await self.until("never")
        except TimeoutError:
            pass
        return self.events[begin:]

    @property
    def audio(self) -> bytes:
        return b"".join(e for e in self.events if isinstance(e, bytes))

    @property
    def types(self) -> list[str]:
        return [e["type"] for e in self.events if isinstance(e, dict)]


@asynccontextmanager
async def ear(url: str, **options: Any) -> AsyncIterator[Ear]:
    async with connect(url, compression=None, **options) as socket:
        yield Ear(socket)


@asynccontextmanager
async def fake(streams: int = 100, speed: float = 5, **options: Any) -> AsyncIterator[tuple[FakeTTS, Studio, str]]:
    """An engine that makes speech `speed` times faster than real time."""
    engine = FakeTTS(speed=speed, rate=options.pop("rate", 16_000))
    engine.streams = streams
    studio = Studio({"fake": engine}, waiting=options.pop("waiting", 32))
    async with serving(speech.routes(studio, **options)) as address:
        yield engine, studio, address.replace("http", "ws") + "/ws/tts/stream"
