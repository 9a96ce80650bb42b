"""Whole conversations on the virtual clock: what is told, when, and what stays in the history."""

from itertools import pairwise

import pytest

from server import events as e
from server.bill import LONGEST
from server.errors import LimitError, LLMError
from server.pipelines.engines import LLMSettings, Message
from tests import fakes
from tests.talk import COUNT, Talk, kinds, lines, talk


def test_a_turn_is_heard_understood_and_answered():
    it, llm = talk("Well hello.")
    session, told = it.quiet(0.3).say("hello there").quiet(2).go()
    assert [x.text for x in told.of(e.TranscriptPartial)] == ["hello", "hello there"]
    final = told.last(e.TranscriptFinal)
    assert (final.text, final.turn) == ("hello there", 1)
    assert fakes.words(told.audio()) == ["well", "hello"]
    assert lines(session) == [("user", "hello there", False), ("assistant", "Well hello.", False)]
    assert llm.seen[-1][-1] == Message("user", "hello there")


def test_events_come_in_the_order_of_the_protocol():
    it, _ = talk("Well hello.", turn={"speculative": False})
    _, told = it.quiet(0.3).say("hello there").quiet(2).go()
    order = kinds(told)
    expected = [
        "SessionCreated", "UserStarted", "TranscriptPartial", "TranscriptPartial", "UserStopped", "TranscriptFinal",
        "ReplyStarted", "ReplyText", "ReplySentence", "ReplyAudio", "Audio", "ReplyDone",
    ]  # fmt: skip
    assert [name for name in order if name in expected] == expected


def test_audio_never_runs_further_ahead_than_the_lead():
    it, _ = talk(audio={"lead_ms": 200})
    _, told = it.say("go").quiet(5).go()
    start = told.at(e.Audio)
    sent = 0.0
    for at, event in told.events:
        if isinstance(event, e.Audio):
            sent += len(event.data) / 32
            assert sent - (at - start) * 1000 <= 200 + 1


def test_audio_has_no_gap():
    it, _ = talk()
    _, told = it.say("go").quiet(5).go()
    assert fakes.words(told.audio()) == [w.strip(".").lower() for w in COUNT.split()]
    frames = told.of(e.Audio)
    for one, two in pairwise(frames):
        assert two.start_ms == pytest.approx(one.start_ms + len(one.data) / 32, abs=0.1)


def test_say_speaks_as_it_stands():
    it, llm = talk()
    session, told = it.send("say", text="Dinner is ready.").quiet(2).go()
    assert llm.seen == []
    assert fakes.words(told.audio()) == ["dinner", "is", "ready"]
    assert lines(session) == [("assistant", "Dinner is ready.", False)]


def test_a_pause_of_the_listener_pauses_the_model():
    it, llm = talk("One more sentence here. " * 100, audio={"ahead_ms": 1000})
    it.say("count please").quiet(1.5).send("reply.pause").quiet(20)
    it.before_end = lambda session: marks.append(llm.produced)
    marks: list[int] = []
    it.go()
    assert marks[0] < 40  # of 400 words: what is ahead of the listener in queues, and not a word more


def test_the_bill_says_how_long_the_model_rested_and_what_was_saved():
    it, _ = talk("One more sentence here. " * 100, audio={"ahead_ms": 1000})
    it.say("count please").quiet(6).send("reply.interrupt")
    _, told = it.quiet(1).go()
    stages = told.last(e.TurnMetrics).stages
    assert stages["rested_ms"] > 4000  # of about 5.5 s; it thinks four words in 40 ms, and they last 800
    assert stages["tokens"] < 60
    assert stages["tokens_saved"] == pytest.approx(stages["rested_ms"] / 10, rel=0.5)
    long, _ = talk("One more sentence here. " * 100)
    _, told = long.say("count please").quiet(2).send("reply.pause").quiet(60).send("reply.interrupt").quiet(1).go()
    stages = told.last(e.TurnMetrics).stages
    assert stages["tokens_saved"] == LONGEST - stages["tokens"]  # no answer is longer, however long it rested
    quick, _ = talk("Fine.")
    _, told = quick.send("user.text", text="Hi").quiet(2).go()
    assert told.last(e.TurnMetrics).stages["rested_ms"] < 50
    assert "tokens_saved" not in told.last(e.TurnMetrics).stages


def test_an_update_is_answered_and_a_wrong_one_changes_nothing():
    it, _ = talk()
    it.send("session.update", character="ben", turn={"silence_ms": 300}, interrupt={"min_words": 2}, output_rate=8000)
    it.send("session.update", characters=["ben", "zoe"], turn={"silence_ms": 900})
    session, told = it.quiet(0.2).go()
    updated = told.of(e.SessionUpdated)
    assert len(updated) == 1
    assert [x["id"] for x in updated[0].characters] == ["ben"]
    assert (updated[0].turn["silence_ms"], updated[0].interrupt["min_words"], updated[0].output_rate) == (300, 2, 8000)
    assert "zoe" in told.last(e.Error).message
    assert session.hearing.ear.rules.silence_ms == 300


def test_what_a_client_asks_of_the_model_reaches_it():
    class Asked(fakes.FakeLLM):
        async def stream(self, messages, settings):
            asked.append(settings)
            async for delta in super().stream(messages, settings):
                yield delta

    asked: list[LLMSettings] = []
    llm = Asked("Fine.")
    it = Talk(fakes.rack(llm))
    it.send("session.update", llm={"model": "m", "temperature": 0.5, "top_p": 0.9}, instructions="In rhyme.")
    it.send("session.update", llm={"temperature": None}).send("user.text", text="Hi").quiet(1).go()
    assert asked == [LLMSettings(model="m", temperature=None, top_p=0.9)]
    assert "In rhyme." in llm.seen[0][0].content


@pytest.mark.parametrize("rate", [11_025, 48_000])
@pytest.mark.parametrize("by", ["the client", "the settings"])
def test_the_output_rate_is_what_was_asked_for(by: str, rate: int):
    it, _ = talk("One two three.", audio={"output_rate": rate if by == "the settings" else 0})
    if by == "the client":
        it.send("session.update", output_rate=rate)
    _, told = it.send("user.text", text="Hi").quiet(2).go()
    assert told.last(e.ReplyAudio).rate == rate
    assert len(told.audio()) / 2 / rate == pytest.approx(0.6, abs=0.001)


def test_a_greeting_when_asked_for():
    it, llm = talk()
    it.options = {"greet": True}
    session, told = it.quiet(2).go()
    assert fakes.words(told.audio()) == ["hello", "you"]
    assert lines(session) == [("assistant", "Hello you.", False)]
    assert llm.seen == []
    again, _ = talk()
    again.options = {"greet": True, "history": session.history}
    _, told = again.quiet(2).go()
    assert told.audio() == b"", "who comes back is not greeted twice"


def test_the_models_failure_is_told_and_the_conversation_goes_on():
    it, _ = talk(LLMError("no key", code="llm_auth"), "Fine.")
    it.send("user.text", text="Hi").quiet(1)
    session, told = it.send("user.text", text="Again").quiet(1).go()
    error = told.last(e.Error)
    assert (error.code, error.fatal) == ("llm_auth", False)
    assert [x.text for x in told.of(e.ReplyDone)] == ["", "Fine."]
    assert lines(session) == [("user", "Hi", False), ("user", "Again", False), ("assistant", "Fine.", False)]


def test_a_model_that_dies_in_mid_sentence_leaves_what_it_said():
    it, _ = talk("This much is true. But BOOM never.")
    session, told = it.send("user.text", text="Hi").quiet(3).go()
    assert told.last(e.Error).code == "llm_failed"
    assert told.last(e.ReplyDone).text.startswith("This much is true.")
    assert lines(session)[-1][1].startswith("This much is true.")


def test_a_voice_that_breaks_is_told_and_only_what_sounded_is_kept():
    it, _ = talk("This is fine. EXPLODE now. And more.", "Fine.")
    it.send("user.text", text="Hi").quiet(3)
    session, told = it.send("user.text", text="Again").quiet(2).go()
    assert told.last(e.Error).code == "tts_failed"
    assert told.of(e.ReplyDone)[0].text == "This is fine."
    assert lines(session)[1] == ("assistant", "This is fine.", False)
    assert fakes.words(told.audio(2)) == ["fine"]


def test_history_can_be_asked_for_and_cleared():
    it, _ = talk("Fine.")
    it.send("user.text", text="Hi").quiet(1).send("history.get").send("history.clear").send("ping")
    session, told = it.quiet(0.2).go()
    first, second = told.of(e.History)
    assert [m["role"] for m in first.messages] == ["user", "assistant"]
    assert second.messages == session.history.entries == []
    assert told.of(e.Pong)


def test_every_turn_has_a_timeline():
    it, _ = talk("Fine and well.")
    it.quiet(0.2).say("hello").quiet(0.7).send("playback", reply=1, ms=40).quiet(0.3)
    _, told = it.send("playback", reply=1, ms=400).quiet(1).go()
    stages = told.last(e.TurnMetrics).stages
    assert stages["first_sent"] < stages["first_heard"]
    assert stages["turn_end"] == pytest.approx(512, abs=25)
    assert set(stages) == {
        "turn_end", "transcript", "first_token", "first_sentence", "first_audio", "first_sent", "first_heard",
        "tokens", "rested_ms",
    }  # fmt: skip


def test_a_session_that_is_idle_is_ended():
    it, _ = talk(server={"idle_s": 30})
    with pytest.raises(LimitError, match="too long"):
        it.quiet(40).go()


@pytest.mark.parametrize("idle", ["a paused reply", "an open microphone"])
def test_neither_a_paused_reply_nor_an_open_microphone_keeps_it_from_being_idle(idle: str):
    it, _ = talk(server={"idle_s": 30}, turn={"mode": "manual"})
    if idle == "a paused reply":
        it.send("user.text", text="count").wait(1).send("reply.pause").wait(40)
    with pytest.raises(LimitError, match="too long"):
        it.quiet(40).go()
    if idle == "a paused reply":
        role, text, cut = lines(it.session)[-1]  # kept, as far as it was heard
        assert (role, text.split()[:3], cut) == ("assistant", ["One", "two", "three"], True)


def test_who_talks_for_long_is_not_idle():
    it, llm = talk("Fine.", server={"idle_s": 5})
    it.say("one two three four five " * 10).quiet(2).go()
    assert len(llm.seen[-1][-1].content.split()) == 50


def test_a_long_reply_is_not_idle():
    it, _ = talk(COUNT * 10, server={"idle_s": 5})
    _, told = it.send("user.text", text="count").wait(26).go()
    assert told.of(e.ReplyDone)


def test_what_no_engine_foresaw_ends_the_reply_and_keeps_what_was_heard():
    class Broken(fakes.FakeTTS):
        def open(self, voice):
            speaker = super().open(voice)
            speak = speaker.speak

            async def breaking(text: str):
                async for piece in speak(text):
                    yield piece
                if "eight" in text:
                    raise RuntimeError("not an error of ours")

            speaker.speak = breaking
            return speaker

    it, _ = talk(COUNT, "Fine.", tts=Broken(), audio={"ahead_ms": 400})
    it.send("user.text", text="count").quiet(3)
    session, told = it.send("user.text", text="And now?").quiet(2).go()
    cut = told.last(e.ReplyInterrupted)
    assert (cut.reply, cut.reason, told.last(e.Error).code) == (1, "failed", "internal")
    assert cut.heard.startswith("One two three four.")
    assert lines(session)[1] == ("assistant", cut.heard, True)
    assert told.last(e.ReplyDone).text == "Fine."
