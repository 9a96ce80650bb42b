"""The ear: a semantic end of turn, a microphone that is too fast, one that stalls, and one that changes its rate."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from server import events as e
from server.ear import BUFFER_MS, JUDGED_FRAMES, Ear
from server.errors import EngineError
from server.limits import BURST_MS
from server.pipelines.engines import FRAME
from server.pipelines.turn import Started, Stopped, TurnRules
from server.transcriber import BEHIND_MS, Transcriber
from tests import fakes
from tests.talk import Talk


class Opinion:
    """A semantic end-of-turn model with one answer."""

    def __init__(self, complete: float) -> None:
        self.complete_, self.asked = complete, list[int]()

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def complete(self, samples) -> float:
        self.asked.append(len(samples))
        return self.complete_


@pytest.mark.parametrize(("complete", "wait"), [(0.9, 0.25), (0.1, 1.5)])
def test_a_semantic_model_is_asked_in_the_lull(complete: float, wait: float):
    model = Opinion(complete)
    it = Talk(fakes.rack(turnend=model), turn={"speculative": False})
    it.say("hello there")
    began = it._now
    _, told = it.quiet(3).go()
    assert told.at(e.TranscriptFinal) - began == pytest.approx(wait, abs=0.06)
    assert model.asked[0] >= 16_000 * 0.4


def test_of_a_long_turn_a_semantic_model_gets_the_end():
    model = Opinion(0.9)
    it = Talk(fakes.rack(turnend=model), turn={"speculative": False})
    it.say(" ".join(["hello"] * 60)).quiet(3).go()
    assert model.asked == [JUDGED_FRAMES * FRAME]


def test_a_semantic_model_gets_the_turn_it_is_asked_about():
    model = Opinion(0.9)
    it = Talk(fakes.rack(turnend=model), turn={"speculative": False})
    it.say("hello there").quiet(2).say("hello there").quiet(2).go()
    assert model.asked[1] == pytest.approx(model.asked[0], abs=2 * FRAME)


def test_without_its_opinion_the_silence_decides():
    class Broken(Opinion):
        async def complete(self, samples) -> float:
            raise EngineError("no opinion")

    it = Talk(fakes.rack(turnend=Broken(0)), turn={"speculative": False})
    it.say("hello there")
    began = it._now
    _, told = it.quiet(3).go()
    assert told.at(e.TranscriptFinal) - began == pytest.approx(0.5, abs=0.06)


def test_a_microphone_that_comes_faster_than_it_is_heard_loses_the_oldest_and_counts():
    class Slow(fakes.FakeVAD):
        async def push(self, frame) -> float:
            await asyncio.sleep(1)
            return 0.0

    it = Talk(fakes.rack(vad=Slow()))
    session, _ = it.quiet(20).go()
    assert session.hearing.dropped_ms == pytest.approx(20_000 - BUFFER_MS - 20 * 32, abs=500)


def manual_ear(on: Callable[[object], Awaitable[None]]) -> tuple[Ear, Transcriber]:
    transcriber = Transcriber(fakes.FakeSTT().open("en"), lambda text: None)
    return Ear(fakes.FakeVAD(), transcriber, TurnRules(mode="manual"), on), transcriber


async def nothing(event: object) -> None: ...


def test_what_may_come_at_once_is_heard_whole():
    ear, _ = manual_ear(nothing)
    for _ in range(10):
        ear.hear(fakes.silence(BURST_MS / 10))
    assert ear.dropped_ms == 0


async def test_the_end_of_a_turn_is_not_dropped_with_the_audio_after_it():
    told: list[type] = []

    async def on(event: object) -> None:
        told.append(type(event))

    ear, _ = manual_ear(on)
    ear.hear(fakes.voice("hello"))
    await ear._look()
    ear.commit()
    for _ in range(30):
        ear.hear(fakes.silence(1_000))
    await ear._look()
    assert ear.dropped_ms == 30_000 - BUFFER_MS
    assert told == [Started, Stopped, Started]


async def test_what_was_said_before_the_rate_changed_is_heard_at_its_own():
    ear, transcriber = manual_ear(nothing)
    ear.hear(fakes.voice("hello there"))
    ear.set_rate(48_000)
    ear.hear(fakes.voice("you two", 48_000))
    await ear._look()
    assert ear.now_ms == pytest.approx(800, abs=32)
    assert fakes.words(b"".join(piece for piece in transcriber._work if isinstance(piece, bytes)))[:2] == [
        "hello",
        "there",
    ]


async def test_a_recogniser_that_lags_far_behind_loses_the_oldest_and_counts():
    _, transcriber = manual_ear(nothing)
    transcriber.feed(fakes.voice("first"))
    for _ in range(40):
        transcriber.feed(fakes.silence(1_000))
    assert transcriber.dropped_ms == 40_200 - BEHIND_MS
    assert len(transcriber._work) == 30


async def test_what_was_received_and_not_yet_looked_at_can_be_forgotten():
    told: list[type] = []

    async def on(event: object) -> None:
        told.append(type(event))

    ear, _ = manual_ear(on)
    ear.hear(fakes.voice("hello there"))
    ear.commit()
    ear.clear()
    await ear._look()
    assert told == []
    assert ear.now_ms == 400  # it was received all the same
    ear.hear(fakes.silence(BUFFER_MS))
    assert ear.dropped_ms == 0


async def test_a_turn_that_is_cleared_is_over():
    ear, _ = manual_ear(nothing)
    ear.hear(fakes.voice("hello there"))
    await ear._look()
    assert ear.talking
    ear.clear()
    assert not ear.talking
