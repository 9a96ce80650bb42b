"""Answers prepared in the silence: used, or thrown away without a trace. On the virtual clock."""

import pytest

from server import events as e
from server.errors import LLMError, STTError
from server.pipelines.engines import Transcript
from tests import fakes
from tests.talk import lines, talk


def test_speech_in_the_endpointing_silence_joins_the_same_turn():
    it, llm = talk("Fine.")
    _, told = it.say("hello").quiet(0.35).say("there").quiet(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert llm.seen[-1][-1].content == "hello there"


def test_a_draft_that_is_thrown_away_leaves_no_trace():
    it, llm = talk("Draft.", "Fine.")
    session, told = it.say("hello").quiet(0.35).say("there").quiet(2).go()
    assert len(llm.seen) == 2
    assert [x.content for x in (llm.seen[0][-1], llm.seen[1][-1])] == ["hello", "hello there"]
    assert [(x.reply, x.text) for x in told.of(e.ReplyText)] == [(1, "Fine. ")]
    assert [x.reply for x in told.of(e.ReplyStarted)] == [1], "a draft takes no number"
    assert lines(session) == [("user", "hello there", False), ("assistant", "Fine.", False)]
    assert llm.open_now == 0


def test_a_draft_is_held_back_until_the_turn_has_ended_and_then_sounds_at_once():
    it, llm = talk("Well hello.")
    _, told = it.quiet(0.2).say("hello").quiet(2).go()
    assert len(llm.seen) == 1
    assert told.at(e.ReplyStarted) >= told.at(e.UserStopped)
    assert told.at(e.Audio) - told.at(e.UserStopped) < 0.005
    late, _ = talk("Well hello.", turn={"speculative": False})
    _, slow = late.quiet(0.2).say("hello").quiet(2).go()
    assert slow.at(e.Audio) - slow.at(e.UserStopped) > 0.07  # the engines' own delays


def test_the_final_text_decides_over_the_draft():
    class Wavering(fakes.FakeSTT):
        def open(self, language):
            recogniser = super().open(language)
            peek = recogniser.peek

            async def hasty():
                text = await peek()
                return type(text)("something else") if self.hasty else text

            recogniser.peek = hasty
            return recogniser

        hasty = True

    stt = Wavering()
    it, llm = talk("Draft.", "Fine.", stt=stt)
    it.say("hello").quiet(0.3).raw(lambda: setattr(stt, "hasty", False) or fakes.silence(10))
    session, told = it.quiet(2).go()
    assert [m[-1].content for m in llm.seen] == ["something else", "hello"]
    assert fakes.words(told.audio()) == ["fine"]
    assert lines(session)[0] == ("user", "hello", False)


@pytest.mark.parametrize("final", [Transcript(""), STTError("it broke")], ids=["nothing", "an error"])
def test_a_turn_that_comes_to_nothing_takes_its_draft_along(final: Transcript | STTError):
    stt = fakes.FakeSTT()
    opened = stt.open

    def without_end(language: str):
        recogniser = opened(language)

        async def finish() -> Transcript:
            if isinstance(final, STTError):
                raise final
            return final

        recogniser.finish = finish
        return recogniser

    stt.open = without_end
    it, llm = talk("One more sentence here. " * 100, stt=stt)
    thinking: list[int] = []
    it.say("hello")
    for _ in range(2):
        it.quiet(0.35).raw(lambda: thinking.append(llm.open_now) or fakes.silence(20))
    it.quiet(0.1).go()
    assert thinking == [1, 0]


def test_a_peek_that_comes_too_late_drafts_nothing():
    stt = fakes.FakeSTT(delay=0.4)
    it, llm = talk("Fine.", stt=stt)
    it.say("hello").quiet(0.25).say("there").quiet(3).go()
    assert [m[-1].content for m in llm.seen] == ["hello there"]


@pytest.mark.parametrize("failure", [LLMError("no answer"), RuntimeError("a bug")])
def test_a_draft_that_fails_is_told_only_if_the_turn_ends_with_it(failure: Exception):
    it, _ = talk(failure, "Fine.")
    _, told = it.say("hello").quiet(0.35).say("there").quiet(2).go()
    assert told.of(e.Error) == []
    assert fakes.words(told.audio()) == ["fine"]
    it, _ = talk(failure)
    _, told = it.say("hello").quiet(2).go()
    assert len(told.of(e.Error)) == 1


def test_a_draft_is_dropped_when_something_else_is_said():
    it, llm = talk("Draft.", "Fine.")
    session, told = it.say("hello").quiet(0.3).send("say", text="Dinner.").quiet(3).go()
    assert fakes.words(told.audio())[-1] == "fine"
    assert lines(session)[-2:] == [("user", "hello", False), ("assistant", "Fine.", False)]
    assert llm.open_now == 0


@pytest.mark.parametrize("change", [("history.clear", {}), ("session.update", {"instructions": "In rhyme."})])
def test_a_draft_does_not_outlive_what_it_was_made_of(change: tuple[str, dict[str, str]]):
    it, llm = talk("Draft.", "Fine.")
    type, fields = change
    _, told = it.say("hello").quiet(0.35).send(type, **fields).quiet(2).go()
    assert fakes.words(told.audio()) == ["fine"]
    assert llm.open_now == 0


def test_a_stop_ends_what_is_prepared_too():
    it, llm = talk("One more sentence here. " * 100)
    thinking: list[int] = []
    for command in ("ping", "reply.interrupt"):
        it.say("hello").quiet(0.35).send(command).quiet(0.05)
        it.raw(lambda: thinking.append(llm.open_now) or fakes.silence(20)).quiet(1).send("reply.interrupt").quiet(1)
    it.go()
    assert thinking == [1, 0]


def test_drafts_can_be_turned_off_by_the_client():
    it, llm = talk("Fine.")
    it.send("session.update", turn={"speculative": False}).say("hello").quiet(0.35).say("there").quiet(2).go()
    assert [m[-1].content for m in llm.seen] == ["hello there"]
