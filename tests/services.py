"""The services on a real socket, for tests: `serving(routes)` gives their address."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from server.pipelines.engines import TTS
from server.pipelines.studio import Studio


@asynccontextmanager
async def serving(routes: Sequence[BaseRoute]) -> AsyncIterator[str]:
    """A server of `routes` on loopback: "http://127.0.0.1:PORT". Whatever is left of it at the end is cancelled."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        Starlette(routes=routes),
        log_level="critical",
        lifespan="off",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for listening in server.servers:
            listening.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        if running := list(server.server_state.tasks):
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        listener.close()


@asynccontextmanager
async def studio(**engines: TTS) -> AsyncIterator[Studio]:
    """A studio of `engines`, started and stopped."""
    for engine in engines.values():
        await engine.start()
    try:
        yield Studio(engines)
    finally:
        for engine in engines.values():
            await engine.stop()


async def until(condition: object, seconds: float = 5) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.005)
