"""A user: one client on a real socket, with a microphone that never stops, ears, and a stopwatch."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import websockets

FRAME_MS = 20
RATE = 16_000  # Hz of the microphone
FRAME = RATE * FRAME_MS // 1000 * 2  # bytes
QUIET = bytes(FRAME)
VOICE = np.full(FRAME // 2, 6_000, "<i2").tobytes()
ACK_S = 0.1


def now() -> float:
    return time.perf_counter() * 1000


@dataclass
class Heard:
    """One reply, as it arrived: when each frame did, and how much of it there was. Times in ms."""

    frames: list[float] = field(default_factory=list)
    received_ms: float = 0.0
    started: float = 0.0  # when the player began, moved on by the pauses
    paused: float = 0.0  # since when; 0: it plays
    over: bool = False
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def position(self, at: float) -> float:
        """How much has sounded."""
        return min(self.received_ms, (self.paused or at) - self.started) if self.frames else 0.0

    def gaps(self) -> list[float]:
        """Times between two frames, pauses apart."""
        pairs = zip(self.frames, self.frames[1:], strict=False)
        return [b - a for a, b in pairs if not any(a <= end and begin <= b for begin, end in self.pauses)]


class User:
    """`async with User(address) as user`: connected, the microphone on. `events`: all that was told, and when."""

    def __init__(self, address: str, query: str = "") -> None:
        self._url = f"ws://{address}/ws{query}"
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.replies: dict[int, Heard] = {}
        self.strays = 0  # frames of a reply that was over
        self.acked: dict[int, float] = {}
        self._rate = 24_000
        self._now: Heard | None = None
        self._reply = 0
        self._speech: list[bytes] = []
        self._spoke_at = 0.0
        self._news = asyncio.Event()

    async def __aenter__(self) -> "User":
        self.socket = await websockets.connect(self._url, compression=None, max_size=None)
        self._jobs = [asyncio.create_task(job()) for job in (self._listen, self._record, self._acknowledge)]
        await self.told("session.created")
        return self

    async def __aexit__(self, *_: object) -> None:
        for job in self._jobs:
            job.cancel()
        await asyncio.wait(self._jobs)
        await self.socket.close()

    async def send(self, type: str, **fields: Any) -> float:
        """When it was sent."""
        at = now()
        await self.socket.send(json.dumps({"type": type, **fields}))
        return at

    async def say(self, pcm: bytes) -> float:
        """Speak; returns, when the last of it has left, the time at which the first of it did."""
        frames = [pcm[i : i + FRAME].ljust(FRAME, b"\0") for i in range(0, len(pcm), FRAME)]
        self._spoke_at, self._speech = 0.0, frames
        while self._speech:  # noqa: ASYNC110
            await asyncio.sleep(FRAME_MS / 1000)
        return self._spoke_at

    async def told(self, type: str, since: int = 0, when: Callable[[dict[str, Any]], bool] = bool) -> tuple[float, Any]:
        """The first event of `type` from the `since`th on, and when it came."""
        async with asyncio.timeout(30):
            while True:
                for at, event in self.events[since:]:
                    if event["type"] == type and when(event):
                        return at, event
                self._news.clear()
                await self._news.wait()

    async def heard(self, ms: float) -> Heard:
        """The reply that sounds, once `ms` of it have."""
        async with asyncio.timeout(30):
            while not (self._now and not self._now.over and self._now.position(now()) >= ms):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self._now

    async def _record(self) -> None:
        due = time.perf_counter()
        while True:
            speaking = bool(self._speech)
            frame = self._speech.pop(0) if speaking else QUIET
            if speaking and not self._spoke_at:
                self._spoke_at = now()
            await self.socket.send(frame)
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    async def _acknowledge(self) -> None:
        while True:
            await asyncio.sleep(ACK_S)
            if self._now and self._now.frames and not self._now.over:
                self.acked[self._reply] = ms = round(self._now.position(now()), 1)
                await self.send("playback", reply=self._reply, ms=ms)

    async def _listen(self) -> None:
        async for message in self.socket:
            if isinstance(message, bytes):
                self._sound(message)
                continue
            event = json.loads(message)
            self._heed(event, now())
            self.events.append((now(), event))
            self._news.set()

    def _sound(self, pcm: bytes) -> None:
        if self._now is None or self._now.over:
            self.strays += 1
            return
        at = now()
        if not self._now.frames or self._now.position(at) >= self._now.received_ms:
            self._now.started = at - self._now.received_ms
        self._now.frames.append(at)
        self._now.received_ms += len(pcm) / 2 / self._rate * 1000

    def _heed(self, event: dict[str, Any], at: float) -> None:
        heard = self.replies.get(event.get("reply", -1))
        match event["type"]:
            case "reply.audio":
                self._rate, self._reply = event["rate"], event["reply"]
                self._now = self.replies[self._reply] = Heard()
            case "reply.paused" if heard and not heard.paused:
                heard.paused = at
            case "reply.resumed" if heard and heard.paused:
                heard.started += at - heard.paused
                heard.pauses.append((heard.paused, at))
                heard.paused = 0.0
            case "reply.interrupted" | "reply.done" if heard:
                heard.over = True
