"""A speech server on loopback that answers as it is told, and an engine that asks it."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from server.pipelines.engines import TTS, Voice
from server.pipelines.loading import load

RATE = 24_000
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def tone(rate: int = RATE, seconds: float = 0.5) -> bytes:
    """A tone of 440 Hz."""
    t = np.arange(int(rate * seconds)) / rate
    return (np.sin(2 * np.pi * 440 * t) * 12_000).astype("<i2").tobytes()


def odd(data: bytes) -> list[bytes]:
    """`data` in pieces that respect no sample."""
    sizes, cut, at = (1, 3, 2, 7, 999, 1, 4097), [], 0
    while at < len(data):
        size = sizes[len(cut) % len(sizes)]
        cut.append(data[at : at + size])
        at += size
    return cut


def sse(events: Iterable[Any]) -> list[bytes]:
    return [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode() for event in events]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Server:
    """What the next request is answered with, and what the requests were."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "audio/pcm"})
    body: list[bytes] = field(default_factory=list)
    after: str = ""  # what follows the body: "die", "stall"
    url: str = ""
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: Request) -> Response:
        self.seen.append(await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        if self.status != 200:
            return Response(b"".join(self.body), self.status, headers=self.headers)
        return StreamingResponse(self.stream(), headers=self.headers)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        try:
            for data in self.body:
                yield data
            self.sent.set()
            if self.after == "die":
                raise ConnectionResetError("scripted death")
            if self.after == "stall":
                await asyncio.sleep(60)
        finally:
            self.gone.set()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    app = Starlette(routes=[Route("/v1/audio/speech", server.answer, methods=["POST"])])
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        running.config.load()
        running.lifespan = running.config.lifespan_class(running.config)
        await running.startup([sock])  # without the main loop, which looks up only ten times a second
        server.url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
        try:
            yield server
        finally:
            running.force_exit = True
            await running.shutdown([sock])


@asynccontextmanager
async def engine(**options: Any) -> AsyncIterator[TTS]:
    tts: TTS = load("tts", "openai", options)
    await tts.start()
    try:
        yield tts
    finally:
        await tts.stop()


PLAIN = Voice()


async def said(server: Server, voice: Voice = PLAIN, text: str = "Hello there.", **options: Any) -> bytes:
    async with serving(server), engine(base_url=server.url, **options) as tts:
        return b"".join([piece.pcm async for piece in tts.open(voice).speak(text)])


def sounds_like_the_tone(pcm: bytes, rate: int = RATE, seconds: float = 0.5) -> None:
    assert len(pcm) % 2 == 0
    samples = np.frombuffer(pcm, "<i2").astype(float)
    assert abs(len(samples) / rate - seconds) < 0.01
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert abs(spectrum.argmax() * rate / len(samples) - 440) < 5
    assert spectrum[spectrum.argmax() - 5 : spectrum.argmax() + 6].sum() > 0.9 * spectrum.sum()
