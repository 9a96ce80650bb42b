"""A transcription server on loopback that answers what a test wants it to."""

import asyncio
import io
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class TranscriptionServer:
    """Says how many ms of audio it got; `answers` are given first, one a request."""

    url: str = ""
    answers: list[Response] = field(default_factory=list)
    hold: asyncio.Event | None = None  # requests wait for it
    die: bool = False  # in the middle of an answer
    asked: list[dict[str, object]] = field(default_factory=list)
    left: int = 0  # clients that hung up while they waited

    async def transcriptions(self, request: Request) -> Response:
        async with request.form() as form:
            content = await form["file"].read()
            rest = {key: value for key, value in form.items() if key != "file"}
        with wave.open(io.BytesIO(content)) as file:
            ms = file.getnframes() * 1000 // file.getframerate()
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        self.asked.append(rest | {"ms": ms, "key": request.headers["authorization"]})
        if self.hold:
            await self._wait(request, self.hold)
        if self.answers:
            return self.answers.pop(0)
        return JSONResponse({"text": f" heard {ms} ms "})

    async def _wait(self, request: Request, hold: asyncio.Event) -> None:
        waiting, leaving = asyncio.ensure_future(hold.wait()), asyncio.ensure_future(request.receive())
        await asyncio.wait([waiting, leaving], return_when=asyncio.FIRST_COMPLETED)
        self.left += leaving.done()
        for task in (waiting, leaving):
            task.cancel()

    async def app(self, scope, receive, send):
        if self.die and scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
            await send({"type": "http.response.body", "body": b'{"text": "half', "more_body": True})
            raise ConnectionAbortedError
        await Starlette(routes=[Route("/v1/audio/transcriptions", self.transcriptions, methods=["POST"])])(
            scope, receive, send
        )


async def until(true: Callable[[], object]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@asynccontextmanager
async def serving(server: TranscriptionServer) -> AsyncIterator[TranscriptionServer]:
    config = uvicorn.Config(server.app, "127.0.0.1", 0, log_level="critical", lifespan="off", interface="asgi3")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    await until(lambda: running.started)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        running.should_exit = True
        await task
