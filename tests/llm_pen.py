"""A client of `/ws/llm` for tests, and servers of it to point it at."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from server.pipelines.engines import LLM
from server.pipelines.llm import openai
from server.ws import chunked_llm
from tests.llm_server import LLMServer
from tests.services import serving

ASK = [{"role": "user", "content": "Good evening?"}]
FIRST = {"max_tokens": 10, "sentence_boundary": False}
SENTENCE = {"sentence_boundary": True}


class Pen:
    """One client."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def send(self, action: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"action": action, **fields}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            self.frames.append(json.loads(await self.socket.recv()))
        return self.frames[-1]

    async def until(self, *types: str) -> dict[str, Any]:
        """The next frame whose `type` or `status` is one of `types`; "error" for errors."""
        while True:
            frame = await self.next()
            if frame.get("type") in types or frame.get("status") in types or ("error" in types and "error" in frame):
                return frame

    async def start(self, id: str = "s1", *, pause: Any = None, **fields: Any) -> None:
        await self.send("start_stream", stream_id=id, messages=ASK, pause=pause, **fields)

    @property
    def text(self) -> str:
        return "".join(frame["content"] for frame in self.frames if frame.get("type") == "token")


@asynccontextmanager
async def scene(llm: LLM, **options: Any) -> AsyncIterator[str]:
    await llm.start()
    try:
        async with serving(chunked_llm.routes(llm, **options)) as url:
            yield url.replace("http", "ws") + "/ws/llm"
    finally:
        await llm.stop()


@asynccontextmanager
async def pen(url: str) -> AsyncIterator[Pen]:
    async with connect(url, compression=None) as socket:
        yield Pen(socket)


@asynccontextmanager
async def scripted(flavour: str = "openai", **options: Any) -> AsyncIterator[tuple[LLMServer, Pen, str]]:
    slots = options.pop("slots", 8)
    async with LLMServer(flavour=flavour, **options) as server:
        llm = openai.create(base_url=f"{server.host}/v1")
        async with scene(llm, slots=slots) as url, pen(url) as p:
            yield server, p, url
