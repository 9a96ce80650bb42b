"""A server that speaks the native protocol by the test's word: it serves the page, and records what arrives."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

STATIC = Path(__file__).resolve().parent.parent / "static"
RATE = 24_000  # Hz, of the replies
CAST = [
    {"id": "ada", "name": "Ada", "description": "A quick, curious engineer", "picture": "pictures/ada.svg"},
    {"id": "finn", "name": "Finn", "description": "An old ship's captain", "picture": "pictures/finn.svg"},
]


def tone(ms: float, rate: int = RATE, start: int = 0) -> bytes:
    """A ramp of small steps that never repeats within a second and is never zero: every sample tells its place."""
    places = start + np.arange(int(rate * ms / 1000))
    return (2_000 + places % 24_000).astype("<i2").tobytes()


class ScriptedServer:
    """One client at a time. `received`: its JSON messages, `heard`: its audio, `queries`: what connections asked."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.heard: list[bytes] = []
        self.queries: list[dict[str, str]] = []
        self.port = 0
        self.created: dict[str, Any] = {}
        self._client: WebSocket | None = None
        self._news = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def tell(self, type: str, **fields: Any) -> None:
        assert self._client is not None, "no client is connected"
        await self._client.send_text(json.dumps({"type": type, **fields}))

    async def play(self, reply: int, pcm: bytes, rate: int = RATE, *, announce: bool = True) -> None:
        """`pcm` as 20 ms frames, all at once."""
        assert self._client is not None
        if announce:
            await self.tell("reply.audio", reply=reply, rate=rate, format="pcm_s16le")
        step = rate // 50 * 2
        for at in range(0, len(pcm), step):
            await self._client.send_bytes(pcm[at : at + step])

    async def speak(self, reply: int, text: str, pcm: bytes, character: str = "ada") -> None:
        """A reply of one sentence, up to but without `reply.done`."""
        await self.tell("reply.started", reply=reply, turn=reply, character=character)
        await self.tell("reply.text", reply=reply, text=text)
        await self.tell("reply.sentence", reply=reply, index=0, text=text, start_ms=0)
        await self.play(reply, pcm)

    async def drop(self, code: int = 1011, reason: str = "") -> None:
        client, self._client = self._client, None
        assert client is not None
        await client.close(code, reason)

    def sent(self, type: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["type"] == type]

    async def got(self, type: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th message of `type`, once it is there."""
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: len(self.sent(type)) >= count)
        return self.sent(type)[count - 1]

    async def connected(self, count: int = 1) -> None:
        """Once the client has connected for the `count`-th time and was greeted."""
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: len(self.queries) >= count and self._client is not None)

    async def serve(self, client: WebSocket) -> None:
        self.queries.append(dict(client.query_params))
        await client.accept("parley.v1")
        self._client = client
        await self.tell("session.created", **self._greeting(client))
        await self._note()
        with contextlib.suppress(WebSocketDisconnect, KeyError):
            while True:
                await self._take(await client.receive())
        if self._client is client:
            self._client = None
        await self._note()

    async def _take(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        if message.get("bytes") is not None:
            self.heard.append(message["bytes"])
        else:
            self.received.append(json.loads(message["text"]))
        await self._note()

    def _greeting(self, client: WebSocket) -> dict[str, Any]:
        wanted = client.query_params.get("session")
        told: dict[str, Any] = {
            "session": wanted or "s1",
            "protocol": 1,
            "resumed": bool(wanted),
            "input_rate": 16_000,
            "output_rate": RATE,
            "characters": CAST[:1],
            "available": CAST,
            "engines": {"vad": "x", "stt": "x", "llm": "x", "tts": "x"},
            "turn": {"mode": "auto", "silence_ms": 500, "speculative": True},
            "interrupt": {"speaking": True, "thinking": True, "min_ms": 400, "min_words": 2, "backchannels": []},
            "lead_ms": 300,
        }
        return told | self.created

    async def _note(self) -> None:
        async with self._news:
            self._news.notify_all()


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield  # the test runner keeps its own


@contextlib.asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """The server, on a port of the system's choosing."""
    scripted = ScriptedServer()
    routes = [WebSocketRoute("/ws", scripted.serve), Mount("/", StaticFiles(directory=STATIC, html=True))]
    config = uvicorn.Config(
        Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1, ws_per_message_deflate=False
    )
    server = _Quiet(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        scripted.port = listener.getsockname()[1]
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield scripted
        finally:
            server.should_exit = True
            await asyncio.wait([task])
