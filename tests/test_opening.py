"""A reply begins with its first sound, and its words are where they sound."""

import gc
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np
import pytest

from server.audio import milliseconds
from server.pipelines.engines import Speech, Voice, Word
from server.pipelines.loading import load
from server.pipelines.opening import LONGEST_MS, Opening
from tests import speech

RATE = 16_000


def tone(ms: float, level: int = 3_000) -> bytes:
    return np.full(int(ms * 16), level, "<i2").tobytes()


class Scripted:
    """Says the same pieces whatever it is told."""

    def __init__(self, *pieces: Speech) -> None:
        self.pieces = pieces

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        for piece in self.pieces:
            yield piece

    async def close(self) -> None: ...


async def said(opening: Opening, text: str = "Hello.") -> list[Speech]:
    async with aclosing(opening.speak(text)) as speech:
        return [piece async for piece in speech]


def times(pieces: Sequence[Speech]) -> list[tuple[float, float]]:
    return [(w.start_ms, w.end_ms) for piece in pieces for w in piece.words]


async def test_silence_before_the_first_sound_is_dropped_and_the_words_move():
    words = (Word(0, 2, 200, 260), Word(3, 5, 260, 400))
    speaker = Scripted(Speech(tone(80, 0), words[:1]), Speech(tone(120, 0) + tone(100)), Speech(tone(100), words[1:]))
    pieces = await said(Opening(speaker, RATE))
    assert b"".join(p.pcm for p in pieces) == tone(25, 0) + tone(200)
    assert times(pieces) == [(25, 85), (85, 225)]
    assert len(pieces) == 2


async def test_a_word_that_was_to_begin_in_the_silence_begins_with_the_reply():
    words = (Word(0, 1, 10, 120), Word(2, 4, 120, 260))
    pieces = await said(Opening(Scripted(Speech(tone(200, 0) + tone(100), words)), RATE))
    assert times(pieces) == [(0, 0), (0, 85)]


async def test_only_the_first_utterance_of_a_reply_is_opened():
    speaker = Scripted(Speech(tone(200, 0) + tone(50), (Word(0, 2, 200, 250),)))
    opening = Opening(speaker, RATE)
    assert [milliseconds(p.pcm, RATE) for p in await said(opening)] == [75]
    assert await said(opening) == list(speaker.pieces)


@pytest.mark.parametrize("pcm", [b"", tone(3, 0), tone(400, 0), tone(400, 10)])
async def test_what_does_not_sound_comes_as_it_is(pcm: bytes):
    pieces = await said(Opening(Scripted(Speech(pcm, (Word(0, 2, 100, 200),))), RATE))
    assert b"".join(p.pcm for p in pieces) == pcm
    assert times(pieces) == ([(100, 200)] if pcm else [])


async def test_a_long_silence_is_meant():
    silence = Speech(tone(LONGEST_MS / 4, 0))
    pieces = await said(Opening(Scripted(*[silence] * 5, Speech(tone(50))), RATE))
    assert b"".join(p.pcm for p in pieces) == silence.pcm * 5 + tone(50)
    assert len(pieces) == 2  # given up on before it sounded


async def test_nothing_is_held_of_what_sounds_at_once():
    speaker = Scripted(Speech(tone(5), (Word(0, 2, 0, 5),)), Speech(tone(100)))
    assert await said(Opening(speaker, RATE)) == list(speaker.pieces)


async def test_whoever_is_cut_off_leaves_no_generator_behind():
    left: list[object] = []
    before = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=left.append)
    try:
        async with aclosing(Opening(Scripted(*[Speech(tone(50))] * 3), RATE).speak("Hello.")) as speech:
            await anext(speech)
        del speech
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*before)
    assert left == []


async def test_flite_is_heard_a_fifth_of_a_second_sooner():
    speech.say("Hello.")  # skips where flite is not installed
    engine = load("tts", "flite", {})
    await engine.start()
    opening = Opening(engine.open(Voice()), engine.rate)
    first, later = await said(opening), await said(opening)
    await engine.stop()

    def onset(pieces: list[Speech]) -> float:
        sound = np.abs(np.frombuffer(b"".join(p.pcm for p in pieces), "<i2").astype(int))
        return float(np.flatnonzero(sound > 300)[0]) / 16

    assert onset(first) < 60
    assert onset(later) > 150
    moved = [b[0] - a[0] for a, b in zip(times(first), times(later), strict=True)]
    assert moved == pytest.approx([onset(later) - onset(first)] * len(moved), abs=15)
