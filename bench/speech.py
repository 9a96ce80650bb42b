"""The speech and chunked-LLM services over real sockets: `python -m bench.speech`. See docs/services.md.

Time to first byte for each way to ask, alone and with others at the same time; whether every listener kept hearing
without a gap; the chunks of a model of known speed; and both together, from the question to the first sound.
"""

import argparse
import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from bench.house import opened
from bench.joins import quality
from server.clients import Answers, HTTPSpeech, Speech
from server.clients.answers import FIRST, SENTENCE
from server.clients.speech import Created, Done
from tests.llm_server import LLMServer

TEXT = (
    "Good evening, and welcome to the evening news. The river has risen by a foot since this morning, "
    "and the old bridge is closed. Tomorrow will be dry."
)
RATES = {"espeak": 22_050, "flite": 16_000}
FIRST_TOKEN_S, TOKEN_S = 0.1, 0.02


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


async def listen(chunks: AsyncGenerator[bytes, None], rate: int, began: float) -> Heard:
    """Play what comes, as it comes."""
    heard, dry = Heard(), 0.0
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
            heard = await asyncio.gather(*(listen(ask(), RATES[engine], began) for ask in askers))
            if number:  # the first one warms up
                cell.heard += heard
                cell.wall_s += time.perf_counter() - began
    return cell


WAYS = ("http batch", "http stream", "adaptive", "websocket batch", "websocket")


async def voices(address: str, levels: list[int], rounds: int) -> tuple[str, list[tuple[str, bool]]]:
    """The table, and the targets with whether they were met."""
    lines, targets = [], []
    for engine in RATES:
        lines.append(f"\n{engine}: first byte ms, p50 / p95; longest gap a listener heard ms; audio s per wall s\n")
        lines.append(f"{'':17}" + "".join(f"{f'{n} stream' + 's' * (n > 1):>30}" for n in levels))
        for way in WAYS:
            cells = [await measure(address, way, engine, n, rounds) for n in levels]
            lines.append(f"{way:17}" + "".join(f"{shown(c):>30}" for c in cells))
            if way == "websocket":
                targets += kept(engine, dict(zip(levels, cells, strict=True)))
    return "\n".join(lines), targets


def shown(cell: Cell) -> str:
    return f"{cell.first(50):6.0f} /{cell.first(95):5.0f} {cell.gap_ms:5.0f} {cell.speed:6.0f}x"


def kept(engine: str, cells: dict[int, Cell]) -> list[tuple[str, bool]]:
    alone, four = cells.get(1), cells.get(4)
    found = []
    if alone:
        p50 = alone.first(50)
        found.append((f"{engine}: first byte over the WebSocket {p50:.0f} ms p50 (under 60)", p50 < 60))
    if alone and four:
        ratio = four.first(50) / alone.first(50)
        found.append((f"{engine}: at four streams {ratio:.1f} times that of one (under 2)", ratio < 2))
        found.append((f"{engine}: at four streams the longest gap is {four.gap_ms:.0f} ms (none)", four.gap_ms < 5))
    return found


async def chunks(address: str, rounds: int) -> str:
    """The chunked model, and the first sound of an answer, against what the model itself takes."""
    first, later, sounds = list[float](), list[float](), dict[str, list[float]]({engine: [] for engine in RATES})
    async with Answers(f"ws://{address}/ws/llm") as answers:
        for _ in range(rounds):
            answer = await answers.start([{"role": "user", "content": "Speak."}])
            began = time.perf_counter()
            while not answer.done:
                begun = bool(answer.text)
                async for _ in answer.chunk(SENTENCE):
                    pass
                took, began = (time.perf_counter() - began) * 1000, time.perf_counter()
                if begun:
                    later.append(took - answer.last.elapsed_ms)
                else:
                    first.append(took)
            await answer.end()
        for engine in RATES:
            async with Speech(f"ws://{address}/ws/tts/stream", model=engine) as speech:
                for _ in range(rounds):
                    sounds[engine].append(await _sound(answers, speech))
    own = (FIRST_TOKEN_S + 9 * TOKEN_S) * 1000
    return "\n".join(
        [
            f"first chunk of 10 tokens: {np.median(first):.0f} ms (the model's own {own:.0f})",
            f"continuations: {np.median(later):.1f} ms beyond what the server takes for the chunk",
            *(
                f"from the question to the first sound, {engine}: {np.median(ms):.0f} ms p50, {max(ms):.0f} at worst"
                for engine, ms in sounds.items()
            ),
        ]
    )


async def _sound(answers: Answers, speech: Speech) -> float:
    """From the start of an answer to the first byte of its first chunk's speech."""
    began = time.perf_counter()
    answer = await answers.start([{"role": "user", "content": "Speak."}], FIRST)
    text = "".join([delta async for delta in answer.chunk()])
    await speech.say(text, preset="aggressive")
    await speech.close()
    took = 0.0
    async for event in speech:
        if isinstance(event, bytes) and not took:
            took = (time.perf_counter() - began) * 1000
        if isinstance(event, Done):
            break
    await answer.cancel()
    return took


async def figures(levels: list[int], rounds: int) -> tuple[str, list[tuple[str, bool]]]:
    """Everything, as one text, and the targets."""
    async with LLMServer(TEXT, delay=TOKEN_S, first=FIRST_TOKEN_S) as model:
        environment = {"OPENAI_BASE_URL": f"{model.host}/v1", "OPENAI_API_KEY": "none", "PARLEY_LLM_ENGINE": "openai"}
        async with opened("bench.speech_house", environment=environment) as address:
            table, targets = await voices(address, levels, rounds)
            told = await chunks(address, rounds)
    speed = f"a model of {FIRST_TOKEN_S * 1000:.0f} ms to its first token and {1 / TOKEN_S:.0f} tokens a second"
    joins = await quality()
    return f"{table}\n\nThe chunked model, before {speed}\n\n{told}\n\n{joins}", targets


async def printed(levels: list[int], rounds: int) -> int:
    """Everything on standard output; how many targets were missed."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; a text of {len(TEXT.split())} words")
    text, targets = await figures(levels, rounds)
    print(text, "\n\nTargets")
    for target, met in targets:
        print(f"{'met   ' if met else 'MISSED'}  {target}")
    return sum(not met for _, met in targets)


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.speech", description=__doc__)
    parser.add_argument("--streams", default="1,2,4,8", help="how many at once, one level after the other")
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    missed = asyncio.run(printed([int(n) for n in given.streams.split(",")], given.rounds))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
