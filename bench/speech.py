"""The speech and chunked-LLM services over real sockets: `python -m bench.speech`. See docs/services.md.

Time to first byte for each way to ask, alone and with others at the same time; whether every listener kept hearing
without a gap; the chunks of a model of known speed; and both together, from the question to the first sound.
"""

import argparse
import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager

import numpy as np

from bench import real_model
from bench.house import opened
from bench.joins import quality
from bench.listeners import RATES, TEXT, WAYS, Cell, measure
from server.clients import Answers, Speech
from server.clients.answers import FIRST, SENTENCE
from server.clients.speech import Done
from tests.llm_server import LLMServer

FIRST_TOKEN_S, TOKEN_S = 0.1, 0.02


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
    return "\n".join(
        [
            f"first chunk of 10 tokens: {np.median(first):.1f} ms, with the model's own time",
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
    async with LLMServer(TEXT, delay=TOKEN_S, first=FIRST_TOKEN_S) as model, _house(f"{model.host}/v1") as address:
        table, targets = await voices(address, levels, rounds)
        told = await chunks(address, rounds)
    speed = f"a model of {FIRST_TOKEN_S * 1000:.0f} ms to its first token, {TOKEN_S * 1000:.0f} to each other"
    told = f"The chunked model, before {speed}\n\n{told}\n\nBefore llama.cpp with a tiny model"
    if real_model.present():
        async with real_model.served() as url, _house(url) as address:
            told += f"\n\n{await chunks(address, rounds)}"
    else:
        told += f": {real_model.NEEDS}"
    return f"{table}\n\n{told}\n\n{await quality()}", targets


def _house(model: str) -> AbstractAsyncContextManager[str]:
    """The services before the model at `model`."""
    environment = {"OPENAI_BASE_URL": model, "OPENAI_API_KEY": "none", "PARLEY_LLM_ENGINE": "openai"}
    return opened("bench.speech_house", environment=environment)


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
