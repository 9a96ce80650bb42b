"""How a spoken turn begins and ends: the microphone, push to talk, and a recogniser that breaks."""

import asyncio

import numpy as np
import pytest

from server import events as e
from server.errors import EngineError, STTError
from tests import fakes
from tests.talk import COUNT, Talk, talk

TURN = (e.UserStarted, e.UserStopped, e.TranscriptFinal)


def test_what_came_before_the_voice_was_noticed_is_recognised_too():
    class Late(fakes.FakeVAD):
        """Notices a word when most of it has gone by."""

        voiced = 0

        async def push(self, frame) -> float:
            self.voiced = self.voiced + 1 if await super().push(frame) else 0
            return float(self.voiced > 5)

    llm = fakes.FakeLLM("Fine.")
    it = Talk(fakes.rack(llm, vad=Late()), turn={"confirm_ms": 32})
    _, told = it.quiet(0.5).say("hello").quiet(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello"]


def test_nothing_of_a_false_start_is_in_the_next_turn():
    it, _ = talk("Fine.", turn={"confirm_ms": 300})
    _, told = it.quiet(0.3).say("click").quiet(1).say("hello there").quiet(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]


def test_a_recogniser_that_breaks_while_it_listens_is_told_once():
    class Broken(fakes.FakeSTT):
        def open(self, language):
            recogniser = super().open(language)

            async def feed(pcm: bytes) -> None:
                raise STTError("the recogniser broke")

            recogniser.feed = feed
            return recogniser

    it, llm = talk("Fine.", stt=Broken())
    _, told = it.say("hello there").quiet(2).go()
    assert [x.code for x in told.of(e.Error)] == ["stt_failed"]
    assert llm.seen == []


def test_a_microphone_may_change_its_rate():
    it, _ = talk("Fine.")
    it.send("session.update", input_rate=48_000)
    pcm = fakes.voice("hello there", 48_000) + bytes(96_000)
    for at in range(0, len(pcm), 1_920):
        it.raw(pcm[at : at + 1_920]).wait(0.02)
    _, told = it.wait(2).go()
    assert told.last(e.SessionUpdated).input_rate == 48_000
    assert [x.at_ms for x in told.of(e.UserStarted, e.UserStopped)] == pytest.approx([0, 400], abs=40)


def test_push_to_talk_ends_with_commit_only():
    it, llm = talk("Fine.", turn={"mode": "manual"})
    it.say("hello").quiet(2).say("there")
    _, told = it.send("user.commit").wait(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert [x.at_ms for x in told.of(e.UserStarted)] == [0]
    assert llm.seen[0][-1].content == "hello there"


def test_commit_ends_a_turn_at_once_in_auto_mode_too():
    it, _ = talk("Fine.")
    it.say("hello")
    at = it._now
    _, told = it.send("user.commit").quiet(1).go()
    assert told.at(e.TranscriptFinal) - at < 0.05
    assert [type(x) for x in told.of(*TURN)] == list(TURN), "and once"


@pytest.mark.parametrize("mode", ["auto", "manual"])
def test_a_commit_of_nothing_is_nothing(mode: str):
    it, _ = talk("Fine.", turn={"mode": mode})
    _, told = it.send("user.commit").quiet(1 if mode == "auto" else 0).go()
    assert told.of(*TURN) == []


def test_after_a_clear_one_can_push_to_talk_again():
    it, llm = talk("Fine.", turn={"mode": "manual"})
    it.say("hello").send("user.clear").wait(0.1).say("there").send("user.commit")
    _, told = it.wait(2).go()
    assert len(told.of(e.UserStarted)) == 2
    assert llm.seen[0][-1].content == "there"


def test_clear_forgets_the_turn():
    it, llm = talk("Fine.")
    _, told = it.say("hello").send("user.clear").quiet(2).go()
    assert llm.seen == []
    assert [type(x) for x in told.of(*TURN)] == list(TURN)
    assert told.last(e.TranscriptFinal).text == ""


@pytest.mark.parametrize(("before", "after"), [("auto", "manual"), ("manual", "auto")])
def test_a_turn_does_not_go_from_one_mode_into_the_other(before: str, after: str):
    it, _ = talk(COUNT, turn={"mode": before})
    it.send("user.text", text="count").quiet(1 if before == "auto" else 0).say("um and")
    it.send("session.update", turn={"mode": after})
    it.wait(4)
    _, told = it.go()
    assert [type(x) for x in told.of(*TURN)] == [e.TranscriptFinal, *TURN]
    assert told.last(e.TranscriptFinal).text == "", "the client waits for nothing"
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["cleared"] * (before == "auto")
    assert told.last(e.ReplyDone).text == COUNT


def test_a_microphone_that_stalls_in_mid_speech_ends_the_turn():
    it, _ = talk("Fine.")
    stalled = it.say("hello there")._now
    _, told = it.wait(4).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert 0.5 < told.at(e.TranscriptFinal) - stalled < 0.7


def test_a_recogniser_that_breaks_is_told_and_the_next_turn_works():
    stt = fakes.FakeSTT()
    stt.fails = True
    it, _ = talk("Fine.", stt=stt)
    it.say("hello").quiet(1.5).raw(lambda: setattr(stt, "fails", False) or fakes.silence(20))
    _, told = it.say("hello").quiet(2).go()
    assert told.last(e.Error).code == "stt_failed"
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello"]
    assert fakes.words(told.audio()) == ["fine"]


@pytest.mark.parametrize("frame_ms", [10, 100, 1_000])
def test_a_turn_is_one_turn_however_long_the_frames_are(frame_ms: int):
    it, _ = talk("Fine.")
    text = "one two three four five six seven eight"
    pcm = fakes.silence(300) + fakes.voice(text) + fakes.silence(2_000)
    for at in range(0, len(pcm), frame_ms * 32):
        it.raw(pcm[at : at + frame_ms * 32]).wait(frame_ms / 1000)
    _, told = it.wait(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == [text]


def test_an_open_microphone_does_not_hold_the_answer_to_a_committed_turn():
    it, _ = talk("Fine.", turn={"mode": "manual"}, stt=fakes.FakeSTT(delay=0.2))
    it.say("hello there").send("user.commit").quiet(3)
    _, told = it.go()
    assert told.of(e.ReplyPaused) == []
    assert told.last(e.ReplyDone).text == "Fine."


def test_the_silence_that_is_made_up_for_a_stalled_microphone_is_no_audio_received():
    it, _ = talk("Fine.", "Fine.")
    _, told = it.say("hello there").wait(4).say("once more").quiet(2).go()
    assert [x.at_ms for x in told.of(e.UserStarted)] == pytest.approx([0, 400], abs=40)
    assert [x.at_ms for x in told.of(e.UserStopped)] == pytest.approx([400, 800], abs=40)


def test_a_turn_that_is_cleared_while_it_waits_for_its_text_holds_up_none_after_it():
    stt = fakes.FakeSTT()
    opened = stt.open

    def slow(language: str):
        recogniser = opened(language)
        feed = recogniser.feed

        async def feeding(pcm: bytes):
            await asyncio.sleep(0.5)
            return await feed(pcm)

        recogniser.feed = feeding
        return recogniser

    stt.open = slow
    it, _ = talk("Fine.", stt=stt, turn={"speculative": False})
    _, told = it.say("hello").quiet(0.6).send("user.clear").quiet(2).say("and now").quiet(4).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["", "and now"]


def test_a_recogniser_that_breaks_over_a_reply_lets_the_reply_go_on():
    stt = fakes.FakeSTT()
    it, _ = talk(COUNT, stt=stt)
    it.send("user.text", text="count").quiet(1).raw(lambda: setattr(stt, "fails", True) or fakes.silence(20))
    _, told = it.pcm(fakes.hum(250)).quiet(4).go()
    assert [x.code for x in told.of(e.Error)] == ["stt_failed"]
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["noise"]
    assert told.last(e.ReplyDone).text == COUNT


def test_what_the_recogniser_did_not_foresee_costs_the_turn_and_no_more():
    stt = fakes.FakeSTT()
    opened = stt.open

    def broken(language: str):
        recogniser = opened(language)
        feed, calls = recogniser.feed, iter([ValueError("no error of ours")])

        async def failing(pcm: bytes):
            for error in calls:
                raise error
            return await feed(pcm)

        recogniser.feed = failing
        return recogniser

    stt.open = broken
    it, _ = talk("Fine.", stt=stt)
    _, told = it.say("hello").quiet(1.5).say("hello").quiet(2).go()
    assert [x.code for x in told.of(e.Error)] == ["internal"]
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello"]


def test_a_voice_detector_that_fails_is_told_once_and_the_rest_works():
    class Broken(fakes.FakeVAD):
        failing = True

        async def push(self, frame) -> float:
            if self.failing:
                raise EngineError("the VAD failed")
            return await super().push(frame)

    vad = Broken()
    it = Talk(fakes.rack(fakes.FakeLLM("Fine."), vad=vad))
    it.say("hello").quiet(1).send("user.text", text="hi").quiet(1)
    _, told = it.raw(lambda: setattr(vad, "failing", False) or fakes.silence(20)).say("hello").quiet(1.5).go()
    assert [x.message for x in told.of(e.Error)] == ["the VAD failed"]
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hi", "hello"]


def test_a_voice_detector_that_fails_anew_is_told_anew():
    class Moody(fakes.FakeVAD):
        async def push(self, frame) -> float:
            if np.abs(frame).max() > 0.01:
                raise EngineError("the VAD failed")
            return 0.0

    it = Talk(fakes.rack(vad=Moody()))
    _, told = it.say("hello").quiet(1).say("hello").quiet(1).go()
    assert len(told.of(e.Error)) == 2
