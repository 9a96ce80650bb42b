"""Conversations and services on one engine: the former count in its load and wait for nobody, the latter wait."""

import asyncio
from contextlib import aclosing

import pytest

from server import services
from server.errors import TTSError
from server.pipelines.admission import Admission
from server.pipelines.counted import Counted
from server.pipelines.engines import Voice
from server.settings import Settings
from tests.fakes import FakeTTS, rack, words
from tests.virtual_time import run


async def said(speaker: Counted, text: str) -> list[str]:
    async with aclosing(speaker.speak(text)) as pieces:
        return words(b"".join([piece.pcm async for piece in pieces]))


def test_a_conversation_does_not_wait_for_a_service_that_has_every_turn() -> None:
    async def scene() -> None:
        engine, admission = FakeTTS(), Admission(1)
        async with admission.stream("batch") as batch, batch.turn(), asyncio.timeout(5):
            assert await said(Counted(engine.open(Voice()), admission), "at once") == ["at", "once"]
        assert admission.running == 0

    run(scene())


def test_a_service_waits_while_a_conversation_s_piece_is_made_and_not_while_it_is_heard() -> None:
    async def scene() -> None:
        engine, admission = FakeTTS(delay=3), Admission(1)  # 3 s to its first piece
        clock = asyncio.get_running_loop().time

        async def service() -> float:
            async with admission.stream("batch") as batch, batch.turn():
                return clock()

        async with aclosing(Counted(engine.open(Voice()), admission).speak("one two")) as pieces:
            first = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(1)
            waiting = asyncio.ensure_future(service())
            await first
            assert await waiting == pytest.approx(3)
        assert engine.speaking == 0

    run(scene())


def test_a_voice_that_breaks_or_is_cut_off_leaves_no_turn_behind() -> None:
    async def scene() -> None:
        engine, admission = FakeTTS(delay=3), Admission(1)
        speaker = Counted(engine.open(Voice()), admission)
        with pytest.raises(TTSError):
            await said(speaker, "EXPLODE")
        cut = asyncio.create_task(said(speaker, "one two"))
        await asyncio.sleep(1)
        assert admission.running == 1
        cut.cancel()
        await asyncio.wait([cut])
        assert admission.running == engine.speaking == 0
        await speaker.close()
        assert engine.open_now == 0

    run(scene())


def test_the_conversation_s_speakers_and_the_services_share_their_engine_s_load() -> None:
    async def scene() -> None:
        engines = rack(tts=FakeTTS(delay=3), voices={"other": FakeTTS()})
        studio = services.studio(Settings(services={"waiting": 5, "patience_s": 7}), engines, {})  # type: ignore[arg-type]
        for name in ("fake", "other"):
            assert studio.booths[name].admission is engines.admissions[name]
        assert (studio.default.admission.waiting, studio.default.admission.patience_s) == (5, 7)
        speaker, _ = engines.open(Voice())
        async with aclosing(speaker.speak("one two")) as pieces:
            first = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(1)
            assert studio.default.admission.running == 1
            assert studio.booths["other"].admission.running == 0
            await first

    run(scene())
