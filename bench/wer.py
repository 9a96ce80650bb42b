"""How well and how fast the embedded recogniser hears: `python -m bench.wer`.

Twenty sentences in three voices of flite, as they would come from a microphone: in real time, several speakers at
once. Prints the word error rate by voice, the recogniser's share of a core, how long the final text takes after the
last audio, and how late the event loop was meanwhile.
"""

import argparse
import asyncio
import os
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from server.audio import frames, resample, size, to_float, to_pcm
from server.pipelines.engines import FRAME, HEARING_RATE, Voice
from server.pipelines.loading import load

SENTENCES = (Path(__file__).parent / "sentences.txt").read_text(encoding="utf-8").split("\n")[:-1]
VOICES = ("slt", "rms", "awb")
PIECE = FRAME * 2  # bytes
PIECE_S = FRAME / HEARING_RATE


@dataclass
class Figures:
    words: dict[str, int] = field(default_factory=dict)  # by voice
    errors: dict[str, int] = field(default_factory=dict)
    audio_s: float = 0.0
    first_ms: list[float] = field(default_factory=list)  # from the first sound to the first word
    final_ms: list[float] = field(default_factory=list)  # from the last audio to the final text
    lag_ms: list[float] = field(default_factory=list)
    misheard: list[str] = field(default_factory=list)


def word_errors(said: str, heard: str) -> int:
    """Words to insert, delete or replace (Levenshtein's distance)."""
    target, source = said.split(), heard.split()
    row = list(range(len(source) + 1))
    for i, word in enumerate(target, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(source, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


async def speech(voices: tuple[str, ...], sentences: list[str]) -> dict[tuple[str, str], bytes]:
    """Every sentence in every voice, with a breath of room noise before and after."""
    engine = load("tts", "flite", {})
    await engine.start()
    made = {}
    for voice in voices:
        speaker = engine.open(Voice(name=voice))
        for text in sentences:
            async with aclosing(speaker.speak(text)) as pieces:
                pcm = b"".join([piece.pcm async for piece in pieces])
            made[voice, text] = roomy(resample(pcm, engine.rate, HEARING_RATE))
        await speaker.close()
    await engine.stop()
    return made


def roomy(pcm: bytes) -> bytes:
    padded = np.pad(to_float(pcm), (size(300, HEARING_RATE) // 2, size(200, HEARING_RATE) // 2))
    return to_pcm(padded + np.random.default_rng(len(pcm)).normal(0, 2.5e-4, len(padded)))


async def listen(recogniser, voice: str, said: str, pcm: bytes, figures: Figures) -> None:
    loop = asyncio.get_running_loop()
    begin, words_at = loop.time(), None
    for i, piece in enumerate(frames(pcm, PIECE)[0]):
        await asyncio.sleep(max(0.0, begin + (i + 1) * PIECE_S - loop.time()))
        if await recogniser.feed(piece) and words_at is None:
            words_at = loop.time()
    ended = loop.time()
    heard = (await recogniser.finish()).text
    figures.final_ms.append((loop.time() - ended) * 1000)
    if words_at is not None:
        figures.first_ms.append((words_at - begin) * 1000 - 300)
    figures.audio_s += len(pcm) / 2 / HEARING_RATE
    errors = word_errors(said, heard)
    figures.words[voice] = figures.words.get(voice, 0) + len(said.split())
    figures.errors[voice] = figures.errors.get(voice, 0) + errors
    if errors:
        figures.misheard.append(f"{voice}: {said}\n     {heard}")


async def speakers(engine, made: dict[tuple[str, str], bytes], at_once: int, figures: Figures) -> None:
    """Each speaker is one voice that says its share of the sentences with one recogniser."""
    voices = sorted({voice for voice, _ in made})
    parts = -(-at_once // len(voices))
    shares: list[list[tuple[str, str]]] = []
    for voice in voices:
        mine = [key for key in made if key[0] == voice]
        shares += [mine[i::parts] for i in range(parts)]
    room = asyncio.Semaphore(at_once)

    async def speaker(share: list[tuple[str, str]]) -> None:
        async with room:
            recogniser = engine.open("en")
            for voice, text in share:
                await listen(recogniser, voice, text, made[voice, text], figures)
            await recogniser.close()

    await asyncio.gather(*map(speaker, shares))


async def watch(figures: Figures) -> None:
    """How late the loop wakes from a sleep of 5 ms."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        figures.lag_ms.append((time.perf_counter() - before) * 1000 - 5)


def processor_s(pids: list[int]) -> float:
    """Processor time these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int]) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def spread(values: list[float]) -> str:
    return "{:.0f} / {:.0f} / {:.0f}".format(*np.percentile(values, [50, 95, 100])) if values else "-"


def table(figures: Figures, used_s: float, wall_s: float, memory: float, at_once: int) -> str:
    rows = [(f"word error rate, {v}", f"{figures.errors[v] / n:.1%}") for v, n in figures.words.items()]
    total = sum(figures.errors.values()) / sum(figures.words.values())
    rows += [
        ("word error rate", f"{total:.1%} of {sum(figures.words.values())} words"),
        ("real-time factor", f"{used_s / figures.audio_s:.3f}"),
        ("first word after speech begins, ms, p50 / p95 / max", spread(figures.first_ms)),
        ("final text after speech ends, ms, p50 / p95 / max", spread(figures.final_ms)),
        ("lateness of the event loop, ms, p50 / p95 / max", spread(figures.lag_ms)),
        ("memory of the workers, MB", f"{memory:.0f}"),
    ]
    head = f"{at_once} speakers at once, {figures.audio_s:.0f} s of speech in {wall_s:.0f} s"
    width = max(len(name) for name, _ in rows)
    return "\n".join([head, *(f"{name:{width}}  {value}" for name, value in rows)])


async def run(at_once: int, sentences: int, options: dict[str, int]) -> tuple[str, Figures]:
    made = await speech(VOICES, SENTENCES[:sentences])
    engine = load("stt", "pocketsphinx", options)
    await engine.start()
    try:
        pids = [worker.pid for worker in engine.pool.workers]
        figures, began, used = Figures(), time.perf_counter(), processor_s(pids)
        watching = asyncio.create_task(watch(figures))
        await speakers(engine, made, at_once, figures)
        watching.cancel()
        wall = time.perf_counter() - began
        return table(figures, processor_s(pids) - used, wall, memory_mb(pids), at_once), figures
    finally:
        await engine.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.wer", description=__doc__.split("\n")[0])
    parser.add_argument("--at-once", type=int, default=3, help="how many speak at the same time")
    parser.add_argument("--sentences", type=int, default=len(SENTENCES), help="how many of the twenty")
    parser.add_argument("--workers", type=int, default=0, help="worker processes")
    parser.add_argument("--streams", type=int, default=3, help="decoders in each")
    parser.add_argument("--misheard", action="store_true", help="print what was misheard")
    given = parser.parse_args()
    options = {"workers": given.workers, "streams": given.streams}
    printed, figures = asyncio.run(run(given.at_once, given.sentences, options))
    print(printed)
    if given.misheard:
        print("\n".join(figures.misheard))


if __name__ == "__main__":
    main()
