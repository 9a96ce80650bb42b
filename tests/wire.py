"""A server on a real socket, and a raw client that keeps everything it was told."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import websockets

from server.app import create_app
from server.rack import Rack
from server.serve import Server, build
from server.settings import Settings
from tests import fakes

ROOT = Path(__file__).parent.parent
PATIENCE = 30.0  # seconds; an event that takes longer will not come


@asynccontextmanager
async def serving(rack: Rack | None = None, **settings: Any) -> AsyncIterator[Server]:
    """The application with engines of known delay, in this process."""
    table = {"host": "127.0.0.1", "port": 0, "drain_s": 3, **settings.pop("server", {})}
    characters = {"directory": ROOT / "configs" / "characters", **settings.pop("characters", {})}
    made = Settings(server=table, characters=characters, **settings)
    server = build(made, create_app(made, rack or fakes.rack()))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    try:
        while not server.started:
            assert not task.done(), task.exception()
            await asyncio.sleep(0.01)
        yield server
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 15)


@asynccontextmanager
async def running(*arguments: str, **environment: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`python -m server serve` in a process of its own: its address, and the process."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PARLEY_", "OPENAI_"))} | environment
    command = [sys.executable, "-m", "server", "serve", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=env, stderr=asyncio.subprocess.PIPE)
    assert process.stderr
    log: list[str] = []
    try:
        while not (found := re.search(r"open http://(\S+?)/?$", log[-1] if log else "")):
            line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode().rstrip()
            assert line or process.returncode is None, "\n".join(log)
            log.append(line)
        drain = asyncio.create_task(_drain(process.stderr))
        yield found[1], process
        drain.cancel()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            raise


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.readline():
        pass


class Client:
    """One conversation's client. `events` and `pcm` grow as the server tells; binary frames by reply in `audio`."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []
        self.audio: dict[int, bytes] = {}
        self.arrivals: list[tuple[float, int, int]] = []  # time, reply, bytes
        self.closed: tuple[int, str] | None = None
        self._announced = 0
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            async for frame in self.socket:
                self._take(frame)
                async with self._news:
                    self._news.notify_all()
        except websockets.ConnectionClosed:
            pass
        self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")
        async with self._news:
            self._news.notify_all()

    def _take(self, frame: str | bytes) -> None:
        now = asyncio.get_running_loop().time()
        if isinstance(frame, bytes):
            self.audio[self._announced] = self.audio.get(self._announced, b"") + frame
            self.arrivals.append((now, self._announced, len(frame)))
            return
        event = json.loads(frame) | {"_at": now}
        if event["type"] == "reply.audio":
            self._announced = event["reply"]
        self.events.append(event)

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type]

    async def until(self, type: str, count: int = 1, *, patience: float = PATIENCE) -> dict[str, Any]:
        """The `count`th event of `type`."""
        return await self.when(lambda: self.of(type)[count - 1 : count], patience=patience, what=type)

    async def when(self, there: Callable[[], Any], *, patience: float = PATIENCE, what: str = "it") -> Any:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: there() or self.closed), patience)
            except TimeoutError:
                raise AssertionError(f"{what} did not come; told: {self.summary()}") from None
        assert there(), f"closed {self.closed} before {what}; told: {self.summary()}"
        found = there()
        return found[0] if isinstance(found, list) else found

    def summary(self) -> str:
        return ", ".join(f"{e['type']}({e.get('text', e.get('code', ''))})" for e in self.events[-20:])

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def speak(self, pcm: bytes, *, rate: int = 16_000, pace: float = 1.0) -> None:
        """`pcm` as a microphone would give it, in frames of 20 ms."""
        size = rate // 50 * 2
        clock = asyncio.get_running_loop().time
        due = clock()
        for i in range(0, len(pcm), size):
            await self.socket.send(pcm[i : i + size])
            due += 0.02 / pace
            await asyncio.sleep(max(0.0, due - clock()))

    async def close(self) -> None:
        await self.socket.close()
        with suppress(asyncio.CancelledError):
            await self._task


@asynccontextmanager
async def connected(address: str, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A client of the server at `host:port`, greeted by `session.created` unless it is refused."""
    async with websockets.connect(f"ws://{address}/ws{query}", compression=None, max_size=None, **options) as socket:
        client = Client(socket)
        try:
            yield client
        finally:
            await client.close()


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


Body = Callable[[Client], Awaitable[None]]
