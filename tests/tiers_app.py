"""Servers on loopback for the tiers' tests: a Parley of just the tiers, and an upstream that answers byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from server.app import create_app
from server.errors import ConfigError
from server.http.tiers.routes import routes
from server.pipelines.admission import Admission
from server.pipelines.codec._engine import BatchedCodec
from server.pipelines.engines import Voice
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.relay import Relay
from server.pipelines.tiers.services import TierRules
from server.settings import Settings
from tests import fakes
from tests.tones import ToneTTS


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """`app` under uvicorn on a port of the system's choice: its address."""
    config = uvicorn.Config(app, port=0, log_level="critical", loop="asyncio", timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()  # without its loop, whose ticks would make every test wait
    assert server.started, "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.force_exit = True
        await server.shutdown()
        await server.lifespan.shutdown()  # which it leaves out when forced


def pick_of(tts: ToneTTS) -> Any:
    def pick(voice: str, engine: str, options: Any) -> tuple[ToneTTS, Voice]:
        name = "" if voice == "default" else voice
        if name not in ("", "flute", "bell"):
            raise ConfigError(f"voice: no {name!r}")
        return tts, Voice(name=name, **options)

    return pick


def mounted(rules: TierRules, relay: Relay, back: Backend | None, token: str = "") -> Starlette:
    """An application of only the tiers."""
    made = routes(
        rules,
        relay,
        back,
        lambda c: c.headers.get("origin") in (None, f"http://{c.headers.get('host')}"),
        lambda c: not token or c.headers.get("authorization") == f"Bearer {token}",
    )
    return Starlette(routes=made)


@asynccontextmanager
async def parley(
    tts: ToneTTS | None = None,
    codec: BatchedCodec | None = None,
    token: str = "",
    queue: Admission | None = None,
    **rules: Any,
) -> AsyncIterator[str]:
    """A Parley with only the tiers."""
    made = TierRules(**rules)
    back = Backend(pick_of(tts), codec, queue=(lambda voice: queue) if queue else None) if tts else None
    async with client() as http, serving(mounted(made, Relay(made, http, codec, back), back, token)) as url:
        yield url


Script = Callable[["Answer"], Awaitable[None]]


class Answer:
    """One request to the upstream, and what it is answered, piece by piece as the network sees them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: Any, path: str) -> None:
        self.reader, self.writer, self.body, self.path = reader, writer, body, path
        self.headers: dict[str, str] = {}

    async def head(self, status: str = "200 OK", kind: str = "application/x-ndjson", **more: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-type: {kind}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def piece(self, data: bytes) -> None:
        """One read of the other side."""
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()
        await asyncio.sleep(0.002)

    async def line(self, message: Any) -> None:
        await self.piece(json.dumps(message).encode() + b"\n")

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def left(self) -> None:
        """Until the other side has gone."""
        await self.reader.read()

    def die(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[str]:
    """A server that does as `script` says, for every request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            answer = Answer(reader, writer, json.loads(body) if body else None, head.split(" ")[1])
            answer.headers = fields
            await script(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def asked(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=20)


async def until(true: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for something that another task or process will do."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def application(tts: Any, codec: BatchedCodec | None, **settings: Any) -> Starlette:
    """The whole application, with this voice and this codec."""
    made = Settings(**settings)
    characters = made.characters.model_copy(update={"directory": Path("configs/characters")})
    rack = fakes.rack(tts=tts, codec=codec)
    return create_app(made.model_copy(update={"characters": characters}), rack)
