# ruff: noqa: E402
"""Higgs speakers as a conversation uses them: the real engine on the tiny model, its thread, the event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

import pytest_asyncio

from server.audio import milliseconds
from server.errors import EngineBusy, EngineUnavailable, TTSError
from server.pipelines.engines import TTS, Voice
from tests.higgs.speaking import LONG, PATIENCE, RATE, TEXT, said, started, until


@pytest_asyncio.fixture(loop_scope="function")
async def engine() -> AsyncIterator[Any]:
    made = await started()
    yield made
    await made.stop()


async def test_it_is_an_engine_that_speaks(engine: Any) -> None:
    assert isinstance(engine, TTS)
    assert (engine.rate, engine.streams, engine.active, engine.waiting) == (RATE, 4, 0, 0)
    assert engine.row_ms > 0
    assert "streams in real time" in engine.about
    speaker = engine.open(Voice(name="slate", seed=1))
    pieces = await said(speaker)
    total = milliseconds(b"".join(piece.pcm for piece in pieces), RATE)
    assert total > 0
    assert total % 40 == 0
    words = pieces[-1].words
    assert [TEXT[w.start : w.end] for w in words] == TEXT.split()
    assert 0 <= words[0].start_ms <= words[-1].end_ms <= total + 10
    assert await said(speaker, "  ") == []
    await speaker.close()
    with pytest.raises(TTSError, match="closed"):
        await said(speaker)


async def test_a_seeded_voice_says_the_same_again_and_in_company(engine: Any) -> None:
    async def pcm(seed: int) -> bytes:
        return b"".join([piece.pcm for piece in await said(engine.open(Voice(seed=seed)))])

    def alike(a: bytes, b: bytes) -> bool:
        """The same sound but for the seams, which lie where the time of day put them."""
        x, y = np.frombuffer(a, "<i2").astype(float), np.frombuffer(b, "<i2").astype(float)
        return len(x) == len(y) and float(np.corrcoef(x, y)[0, 1]) > 0.8

    alone = [await pcm(seed) for seed in (1, 2, 3, 4)]
    together = await asyncio.gather(*(pcm(seed) for seed in (1, 2, 3, 4)))
    assert all(alike(a, b) for a, b in zip(alone, together, strict=True))
    assert not alike(alone[0], alone[1])


async def test_closing_the_generator_frees_the_slot(engine: Any) -> None:
    speaker = engine.open(LONG)
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
        await anext(speech)
        assert engine.active == 1
    await until(lambda: engine.active == 0)
    assert await said(speaker, "And it goes on.")


async def test_cancelling_a_task_that_speaks_frees_the_slot(engine: Any) -> None:
    task = asyncio.create_task(said(engine.open(LONG)))
    await until(lambda: engine.active == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await until(lambda: engine.active == 0)


async def test_a_slow_listener_holds_its_stream_and_nobody_elses() -> None:
    engine = await started(ahead_s=0.2, max_seconds=20.0)
    try:
        slow = engine.open(LONG)
        async with asyncio.timeout(PATIENCE), aclosing(slow.speak(TEXT)) as speech:
            await anext(speech)
            stream = engine._machine.scheduler.voiced[0]
            await until(lambda: stream.outlet.full)
            rows = len(stream.said)
            await said(engine.open(Voice(seed=2)))
            assert len(stream.said) <= rows + 1, "rows were made that nobody takes"
            assert stream.outlet._put_ms <= 200 + 1_000
            rest = [piece async for piece in speech]
        assert len(stream.said) > rows
        assert rest[-1].words
    finally:
        await engine.stop()


async def test_one_utterance_at_a_time_and_its_context_grows(engine: Any) -> None:
    speaker = engine.open(Voice(seed=5))
    first, second = await asyncio.gather(said(speaker, "The first."), said(speaker, "The second."))
    assert first
    assert second
    assert len(speaker._rolling.ask("x").tokens) > len(speaker._rolling._head) + 100


async def test_an_interrupted_first_utterance_anchors_the_voice_as_far_as_it_was_taken() -> None:
    engine = await started(max_seconds=20.0)
    try:
        speaker = engine.open(LONG)
        taken = 0.0
        async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
            async for piece in speech:
                taken += milliseconds(piece.pcm, RATE)
                if taken > 1_500:
                    break
        asked = speaker._rolling.ask("x")
        sound = int((asked.tokens[: asked.context, 0] == speaker._machine.prompts.audio_id).sum())
        assert sound == int(taken / 40) + 9
        assert await said(speaker, "And it goes on.")
    finally:
        await engine.stop()


async def test_who_is_too_many_waits_and_then_is_told() -> None:
    engine = await started(streams=1, wait_s=0.1, ahead_s=60.0, max_seconds=20.0)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
            await anext(speech)
            with pytest.raises(EngineBusy):
                await said(engine.open(Voice(seed=1)))
            assert engine.waiting == 0
        assert await said(engine.open(Voice(seed=1)))
    finally:
        await engine.stop()


async def test_a_listener_who_takes_nothing_keeps_nobody_waiting() -> None:
    engine = await started(streams=1, ahead_s=0.1, max_seconds=20.0)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
            first = await anext(speech)
            assert await said(engine.open(Voice(seed=1)))
            rest = [piece async for piece in speech]
        total = milliseconds(first.pcm + b"".join(piece.pcm for piece in rest), RATE)
        assert total > 10_000
        assert [TEXT[w.start : w.end] for w in rest[-1].words] == TEXT.split()
    finally:
        await engine.stop()


async def test_stopping_the_engine_tells_who_speaks() -> None:
    engine = await started(ahead_s=0.1, max_seconds=20.0)
    speaker = engine.open(LONG)
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
        await anext(speech)
        await engine.stop()
        with pytest.raises(TTSError, match="stopped"):
            async for _ in speech:
                pass
    with pytest.raises(TTSError, match="stopped"):
        await said(speaker)
    with pytest.raises(EngineUnavailable, match="not been started"):
        engine.open(Voice())
    await engine.stop()


async def test_what_nobody_foresaw_costs_those_who_speak_and_not_the_engine() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: something")

    engine = await started(step="eager")
    try:
        handle = engine._machine.step.model.audio_lm_head.register_forward_pre_hook(broken)
        with pytest.raises(TTSError, match="something"):
            await said(engine.open(Voice(seed=1)))
        handle.remove()
        assert await said(engine.open(Voice(seed=1)))
    finally:
        await engine.stop()
