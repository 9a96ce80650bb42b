"""The quality of joins: real speech cut up and put together again, against what it was."""

from contextlib import aclosing

import numpy as np

from server.audio import SAMPLE
from server.pipelines.engines import TTS, Voice
from server.pipelines.joins import Joiner, Seams
from server.pipelines.tts import espeak, flite

TEXTS = ["Ask not what your country can do for you,", "ask what you can do for your country.", "Sixty fat cats sat."]


async def quality() -> str:
    lines = [
        "Joins of three segments: the largest step at a seam, as a share of the largest that speech makes around it;",
        "the same where they are butted together at their loudest; the silence left between segments;",
        "and pieces that render 40 ms of context again, put together: the error against the original\n",
        f"{'':10}{'largest step':>14}{'butted':>10}{'pause ms':>12}{'again':>12}",
    ]
    for name, module in (("espeak", espeak), ("flite", flite)):
        engine: TTS = module.create()
        await engine.start()
        try:
            segments = [await _spoken(engine, text) for text in TEXTS]
        finally:
            await engine.stop()
        rate = engine.rate
        seams = Seams()
        steps, blunt = _steps(segments, rate, seams), _steps(_cut(segments), rate, None)
        lines.append(
            f"{name:10}{steps:14.2f}{blunt:10.2f}{_pause(segments, rate, seams):12.0f}{_again(segments[0], rate):>12}"
        )
    return "\n".join(lines)


async def _spoken(engine: TTS, text: str) -> bytes:
    async with aclosing(engine.open(Voice()).speak(text)) as pieces:
        return b"".join([piece.pcm async for piece in pieces])


def _wave(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float)


def _joined(segments: list[bytes], rate: int, seams: Seams) -> tuple[bytes, list[int]]:
    joiner, out, places = Joiner(rate, seams), b"", []
    for segment in segments:
        if joiner.made:
            out += joiner.cut()
            places.append(joiner.made // SAMPLE)
        out += joiner.push(segment)
    return out + joiner.finish(), places


def _cut(segments: list[bytes]) -> list[bytes]:
    """Each segment cut off where it is loudest: what butting them together would sound like at its worst."""
    ends = [int(np.abs(_wave(s)).argmax()) for s in segments]
    return [s[: SAMPLE * (end + 1)] for s, end in zip(segments, ends, strict=True)]


def _steps(segments: list[bytes], rate: int, seams: Seams | None) -> float:
    if seams is None:
        out, places = b"".join(segments), list(np.cumsum([len(s) // SAMPLE for s in segments])[:-1])
    else:
        out, places = _joined(segments, rate, seams)
    jumps, near = np.abs(np.diff(_wave(out))), rate * 12 // 1000
    found = []
    for place in places:
        around = np.concatenate([jumps[place - 40 * near : place - near], jumps[place + near : place + 40 * near]])
        found.append(jumps[place - near : place + near // 2].max() / around.max())
    return float(max(found))


def _pause(segments: list[bytes], rate: int, seams: Seams) -> float:
    out, places = _joined(segments, rate, seams)
    loud = np.flatnonzero(np.abs(_wave(out)) > 200)
    gaps = [loud[loud >= p].min() - loud[loud < p].max() for p in places]
    return float(np.mean(gaps)) / rate * 1000


def _again(original: bytes, rate: int) -> str:
    joiner, out, again, piece = Joiner(rate, Seams(40, 0, 1e9, 1e9)), b"", rate * 40 // 1000, 4_096
    for at in range(0, len(original), piece):
        context = min(again, at // SAMPLE)
        out += joiner.push(original[at - SAMPLE * context : at + piece], context)
    error = _wave(out + joiner.finish()) - _wave(original)
    return "none" if not error.any() else f"{10 * np.log10((error**2).mean() / (_wave(original) ** 2).mean()):.0f}"
