"""Listeners: who asks for speech in one of the five ways, plays it as it comes, and notes when."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from server.clients import HTTPSpeech, Speech
from server.clients.speech import Created, Done

TEXT = (
    "Good evening, and welcome to the evening news. The river has risen by a foot since this morning, "
    "and the old bridge is closed. Tomorrow will be dry."
)
RATES = {"espeak": 22_050, "flite": 16_000}
WAYS = ("http batch", "http stream", "adaptive", "websocket batch", "websocket")


@dataclass
class Heard:
    """One stream: when its first byte came after it was asked for, and how long its listener waited in between, ms."""

    first_ms: float = 0.0
    late_ms: float = 0.0
    audio_s: float = 0.0


@dataclass
class Cell:
    """Streams at the same time, over several rounds."""

    heard: list[Heard] = field(default_factory=list)
    wall_s: float = 0.0

    def first(self, percent: float) -> float:
        return float(np.percentile([h.first_ms for h in self.heard], percent))

    @property
    def gap_ms(self) -> float:
        return max(h.late_ms for h in self.heard)

    @property
    def speed(self) -> float:
        return sum(h.audio_s for h in self.heard) / self.wall_s


async def listen(chunks: AsyncGenerator[bytes, None], rate: int) -> Heard:
    """Ask, and play what comes, as it comes."""
    heard, dry, began = Heard(), 0.0, time.perf_counter()
    async with aclosing(chunks) as source:
        async for chunk in source:
            now, seconds = time.perf_counter(), len(chunk) / 2 / rate
            if not heard.audio_s:
                heard.first_ms, dry = (now - began) * 1000, now
            heard.late_ms = max(heard.late_ms, (now - dry) * 1000)
            dry = max(dry, now) + seconds
            heard.audio_s += seconds
    return heard


async def batch(http: HTTPSpeech, engine: str) -> AsyncGenerator[bytes, None]:
    pcm, _ = await http.whole(TEXT, model=engine)
    yield pcm


async def streamed(http: HTTPSpeech, engine: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(http.stream(TEXT, model=engine, preset="aggressive")) as chunks:
        async for chunk in chunks:
            yield chunk


async def adaptive(http: HTTPSpeech, engine: str) -> AsyncGenerator[bytes, None]:
    async with http.adaptive(model=engine) as stream:
        await stream.append(TEXT)
        await stream.close()
        async with aclosing(stream.audio()) as chunks:
            async for chunk in chunks:
                yield chunk


async def socket(speech: Speech, preset: str) -> AsyncGenerator[bytes, None]:
    await speech.say(TEXT, preset=preset)
    await speech.close()  # so that each text has a listener of its own, who hears nothing yet
    async for event in speech:
        if isinstance(event, bytes):
            yield event
        elif isinstance(event, Done):
            return


@asynccontextmanager
async def asker(address: str, way: str, engine: str) -> AsyncIterator[Callable[[], AsyncGenerator[bytes, None]]]:
    """A client of one of the four ways, its connection open."""
    if way in ("websocket", "websocket batch"):
        mode = "batch" if way.endswith("batch") else "stream"
        url = f"ws://{address}/ws/tts/stream"
        async with Speech(url, model=engine, mode=mode) as speech:  # type: ignore[arg-type]
            while not isinstance(await anext(speech), Created):
                pass
            yield lambda: socket(speech, "aggressive")
    else:
        ask = {"http batch": batch, "http stream": streamed, "adaptive": adaptive}[way]
        async with HTTPSpeech(f"http://{address}") as http:
            await http.whole("Ready.", model=engine)  # the connection is made
            yield lambda: ask(http, engine)


async def measure(address: str, way: str, engine: str, streams: int, rounds: int) -> Cell:
    cell = Cell()
    async with AsyncExitStack() as stack:
        askers = [await stack.enter_async_context(asker(address, way, engine)) for _ in range(streams)]
        for number in range(rounds + 1):
            began = time.perf_counter()
            heard = await asyncio.gather(*(listen(ask(), RATES[engine]) for ask in askers))
            if number:  # the first one warms up
                cell.heard += heard
                cell.wall_s += time.perf_counter() - began
    return cell
