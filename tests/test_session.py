"""Whole conversations on the virtual clock: what is told, when, and what stays in the history."""

from itertools import pairwise

import pytest

from server import events as e
from server.errors import LimitError, LLMError, STTError
from server.pipelines.engines import Message
from tests import fakes
from tests.talk import Talk, Told

COUNT = "One two three four. Five six seven eight. Nine ten eleven twelve."


def talk(*replies: str | Exception, tts: fakes.FakeTTS | None = None, stt: fakes.FakeSTT | None = None, **settings):
    """A conversation, and the model it is led with."""
    llm = fakes.FakeLLM(*(replies or (COUNT, "Fine.")))
    return Talk(fakes.rack(llm, tts, stt), **settings), llm


def lines(session) -> list[tuple[str, str, bool]]:
    return [(x.role, x.text, x.cut) for x in session.history.entries]


def kinds(told: Told) -> list[str]:
    names: list[str] = []
    for _, event in told.events:
        name = type(event).__name__
        if name not in ("Audio", "ReplyText") or names[-1:] != [name]:
            names.append(name)
    return names


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


def test_an_interruption_keeps_what_was_heard_and_drops_the_rest():
    it, llm = talk()
    session, told = it.say("count please").quiet(2.4).say("stop that now please").quiet(2).go()
    cut = told.last(e.ReplyInterrupted)
    assert cut.reason == "speech"
    heard = [w.strip(".").lower() for w in cut.heard.split()]
    played = fakes.words(told.audio(1))
    assert played[: len(heard)] == heard
    assert len(played) - len(heard) <= 2  # no more than the lead ahead
    assert f"{cut.heard} {cut.unheard}".split() == COUNT.split()
    at = told.at(e.ReplyInterrupted)
    assert not [1 for t, x in told.events if isinstance(x, e.Audio) and x.reply == 1 and t > at]
    assert lines(session)[1] == ("assistant", cut.heard, True)
    assert llm.seen[-1][-2].content == cut.heard.rstrip(".") + "—"


def test_it_pauses_within_two_frames_of_the_first_voice():
    it, _ = talk()
    it.say("count please").quiet(2.4)
    began = it._now
    _, told = it.say("stop that now please").quiet(2).go()
    assert told.at(e.ReplyPaused) - began <= 2 * 0.032 + 0.02
    assert told.at(e.ReplyPaused) < told.at(e.ReplyInterrupted)


def test_the_clients_position_decides_what_was_heard():
    it, _ = talk()
    it.say("count please").quiet(1.6)
    it.send("playback", reply=1, ms=350)
    it.send("reply.interrupt")
    session, told = it.quiet(1).go()
    assert told.last(e.ReplyInterrupted).heard == "One two"
    assert lines(session)[1] == ("assistant", "One two", True)


def test_an_engine_without_word_times_is_cut_in_proportion():
    it, _ = talk("Aaaa bbbb cccc dddd.", tts=fakes.FakeTTS(timings=False))
    it.say("count please").quiet(1.3)
    it.send("playback", reply=1, ms=410)
    it.send("reply.interrupt")
    _, told = it.quiet(1).go()
    assert told.last(e.ReplyInterrupted).heard == "Aaaa bbbb"


def test_a_backchannel_resumes_from_the_very_sample():
    it, _ = talk()
    session, told = it.say("count please").quiet(2).say("yeah").quiet(4).go()
    assert told.of(e.ReplyInterrupted) == []
    assert told.last(e.ReplyResumed).reason == "backchannel"
    assert fakes.words(told.audio(1)) == [w.strip(".").lower() for w in COUNT.split()]
    assert lines(session) == [("user", "count please", False), ("assistant", COUNT, False)]
    gap = told.at(e.ReplyResumed) - told.at(e.ReplyPaused)
    between = [t for t, x in told.events if isinstance(x, e.Audio)]
    assert max(b - a for a, b in pairwise(between)) >= gap - 0.35


def test_a_cough_resumes():
    it, _ = talk()
    _, told = it.say("count please").quiet(2).pcm(fakes.hum(250)).quiet(4).go()
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["noise"]
    assert told.of(e.ReplyInterrupted) == []
    assert told.last(e.ReplyDone).text == COUNT


def test_a_click_resumes_without_a_word_to_the_client_about_the_user():
    it, _ = talk()
    _, told = it.say("count please").quiet(2).pcm(fakes.hum(40)).quiet(4).go()
    assert len(told.of(e.UserStarted)) == 1
    assert len(told.of(e.ReplyResumed)) == 1


def test_interrupting_can_be_turned_off_while_it_speaks():
    it, _ = talk(interrupt={"speaking": False})
    session, told = it.say("count please").quiet(1.2).say("stop that now please").quiet(4).go()
    assert told.of(e.ReplyPaused) == told.of(e.ReplyInterrupted) == []
    assert len(told.of(e.TranscriptFinal)) == 1
    assert lines(session)[-1] == ("assistant", COUNT, False)


def test_interrupting_while_it_thinks_joins_both_halves_in_the_prompt():
    it, llm = talk("Never said.", "Both then.")
    llm.first = 2.0
    session, told = it.say("tell me").quiet(0.9).say("about the sea please").quiet(4).go()
    assert told.audio(1) == b""
    assert llm.seen[-1][-1].content == "tell me\nabout the sea please"
    assert lines(session)[-1] == ("assistant", "Both then.", False)


def test_thinking_may_be_protected():
    it, llm = talk("It is so.", interrupt={"thinking": False})
    llm.first = 2.0
    _, told = it.say("tell me").quiet(0.9).say("about the sea").quiet(4).go()
    assert told.of(e.ReplyInterrupted) == []
    assert fakes.words(told.audio()) == ["it", "is", "so"]


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


def test_a_slow_models_first_clause_is_spoken_while_the_rest_is_thought():
    text = "Well now my dear friend, that is a long story indeed."
    slow, llm = talk(text)
    llm.delay = 0.15
    session, told = slow.send("user.text", text="Tell me.").quiet(6).go()
    assert [x.text for x in told.of(e.ReplySentence)] == ["Well now my dear friend,", "that is a long story indeed."]
    assert lines(session)[-1] == ("assistant", text, False)
    whole, llm = talk(text, audio={"clause_ms": 0})
    llm.delay = 0.15
    _, patient = whole.send("user.text", text="Tell me.").quiet(6).go()
    assert [x.text for x in patient.of(e.ReplySentence)] == [text]
    assert told.at(e.Audio) < patient.at(e.Audio) - 0.5


def test_where_sentences_end_depends_on_the_language():
    german, _ = talk("Frau Hr. Maier kommt. Ja.", language="de")
    _, told = german.send("user.text", text="Na?").quiet(4).go()
    assert [x.text for x in told.of(e.ReplySentence)] == ["Frau Hr. Maier kommt.", "Ja."]


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


def test_a_peek_that_comes_too_late_drafts_nothing():
    stt = fakes.FakeSTT(delay=0.4)
    it, llm = talk("Fine.", stt=stt)
    it.say("hello").quiet(0.25).say("there").quiet(3).go()
    assert [m[-1].content for m in llm.seen] == ["hello there"]


def test_an_answer_that_begins_while_the_user_talks_on_is_held():
    it, llm = talk("Never said.", "Both then.", stt=fakes.FakeSTT(delay=0.3), turn={"speculative": False})
    _session, told = it.say("tell me").quiet(0.6).say("about the sea please now").quiet(4).go()
    assert told.of(e.ReplyPaused)[0].reply == 1
    assert told.audio(1) == b""
    assert told.of(e.ReplyInterrupted)[0].reply == 1
    assert llm.seen[-1][-1].content == "tell me\nabout the sea please now"


def test_a_cough_while_an_answer_begins_does_not_stop_it():
    it, _ = talk("Both then.", stt=fakes.FakeSTT(delay=0.3), turn={"speculative": False})
    _, told = it.say("tell me").quiet(0.6).pcm(fakes.hum(250)).quiet(4).go()
    assert [type(x) for x in told.of(e.ReplyPaused, e.ReplyResumed, e.ReplyInterrupted)] == [
        e.ReplyPaused,
        e.ReplyResumed,
    ]
    assert fakes.words(told.audio()) == ["both", "then"]


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


def test_a_draft_is_dropped_when_something_else_is_said():
    it, llm = talk("Draft.", "Fine.")
    session, told = it.say("hello").quiet(0.3).send("say", text="Dinner.").quiet(3).go()
    assert fakes.words(told.audio())[-1] == "fine"
    assert lines(session)[-2:] == [("user", "hello", False), ("assistant", "Fine.", False)]
    assert llm.open_now == 0


def test_a_typed_turn_stops_the_reply_at_once_even_while_speech_is_still_being_understood():
    it, _ = talk(COUNT, "Fine.", stt=fakes.FakeSTT(delay=1.0))
    it.send("user.text", text="count").quiet(0.5).say("hey").quiet(0.7)
    at = it._now
    _, told = it.send("user.text", text="Enough.").quiet(4).go()
    assert told.at(e.ReplyInterrupted) - at < 0.01


def test_a_typed_turn_interrupts():
    it, _ = talk()
    session, told = it.say("count please").quiet(2).send("user.text", text="Enough.").quiet(2).go()
    assert told.last(e.ReplyInterrupted).reason == "text"
    assert lines(session)[2:] == [("user", "Enough.", False), ("assistant", "Fine.", False)]


def test_say_speaks_as_it_stands():
    it, llm = talk()
    session, told = it.send("say", text="Dinner is ready.").quiet(2).go()
    assert llm.seen == []
    assert fakes.words(told.audio()) == ["dinner", "is", "ready"]
    assert lines(session) == [("assistant", "Dinner is ready.", False)]


def test_pause_and_resume_by_the_client():
    it, _ = talk()
    it.say("count please").quiet(1.5).send("reply.pause").quiet(3).send("reply.resume").quiet(4)
    _, told = it.go()
    assert [x.reason for x in told.of(e.ReplyPaused)] == ["client"]
    paused, resumed = told.at(e.ReplyPaused), told.at(e.ReplyResumed)
    assert not [1 for t, x in told.events if isinstance(x, e.Audio) and paused + 0.001 < t < resumed]
    assert fakes.words(told.audio(1)) == [w.strip(".").lower() for w in COUNT.split()]


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
    quick, _ = talk("Fine.")
    _, told = quick.send("user.text", text="Hi").quiet(2).go()
    assert told.last(e.TurnMetrics).stages["rested_ms"] < 50
    assert "tokens_saved" not in told.last(e.TurnMetrics).stages


def test_push_to_talk_ends_with_commit_only():
    it, llm = talk("Fine.", turn={"mode": "manual"})
    it.say("hello").quiet(2).say("there")
    _, told = it.send("user.commit").wait(2).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert len(told.of(e.UserStarted)) == 1
    assert llm.seen[0][-1].content == "hello there"


def test_commit_ends_a_turn_at_once_in_auto_mode_too():
    it, _ = talk("Fine.")
    it.say("hello")
    at = it._now
    _, told = it.send("user.commit").quiet(1).go()
    assert told.at(e.TranscriptFinal) - at < 0.05


def test_clear_forgets_the_turn():
    it, llm = talk("Fine.")
    _, told = it.say("hello").send("user.clear").quiet(2).go()
    assert llm.seen == []
    assert told.of(e.TranscriptFinal) == []


def test_a_microphone_that_stalls_in_mid_speech_ends_the_turn():
    it, _ = talk("Fine.")
    _, told = it.say("hello there").wait(4).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]


def test_characters_answer_in_the_order_they_are_named():
    it, llm = talk("Ada here.", "Ben here.")
    it.active = ["ada", "ben"]
    session, told = it.send("user.text", text="BEN, and then ada: who are you?").quiet(3).go()
    assert [x.character for x in told.of(e.ReplyStarted)] == ["ben", "ada"]
    assert fakes.words(told.audio()) == ["ada", "here", "ben", "here"]
    assert llm.seen[1][-1].content.endswith("Ben: Ada here.")
    assert [x.character for x in session.history.entries] == ["", "ben", "ada"]
    assert told.at(e.ReplyStarted, 1) >= told.at(e.ReplyDone)


def test_the_next_character_is_thrown_away_when_the_first_is_interrupted():
    it, llm = talk(COUNT, "Ben here.")
    it.active = ["ada", "ben"]
    it.send("user.text", text="Ada and Ben?").quiet(1.5).send("reply.interrupt")
    session, told = it.quiet(3).go()
    assert len(told.of(e.ReplyStarted)) == 1
    assert len(llm.seen) == 2
    assert [x.character for x in session.history.entries] == ["", "ada"]
    assert llm.open_now == 0


def test_nobody_named_is_answered_by_the_last_who_spoke_or_by_all():
    it, _ = talk("A.", "B.", "C.")
    it.active = ["ada", "ben"]
    it.send("user.text", text="Benny?").quiet(2)
    _, told = it.send("user.text", text="And?").quiet(2).go()
    assert [x.character for x in told.of(e.ReplyStarted)] == ["ben", "ben"]
    both, _ = talk("A.", "B.", characters={"answer": "all"})
    both.active = ["ada", "ben"]
    _, told = both.send("user.text", text="Hm?").quiet(2).go()
    assert [x.character for x in told.of(e.ReplyStarted)] == ["ada", "ben"]


def test_a_name_the_model_writes_is_neither_shown_nor_spoken():
    it, _ = talk("Ada: <Ada>Hello you.</Ada>")
    _, told = it.send("user.text", text="Hi").quiet(2).go()
    assert "".join(x.text for x in told.of(e.ReplyText)).strip() == "Hello you."
    assert fakes.words(told.audio()) == ["hello", "you"]


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


def test_a_client_may_bring_its_own_backchannels():
    it, _ = talk()
    it.send("session.update", interrupt={"backchannels": ["hup"]})
    _session, told = it.say("count please").quiet(2).say("hup").quiet(0.8).say("yeah").quiet(2).go()
    assert told.last(e.SessionUpdated).interrupt["backchannels"] == ["hup"]
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["backchannel"]
    assert told.last(e.ReplyInterrupted).reason == "speech"


def test_the_output_rate_is_what_was_asked_for():
    it, _ = talk("One two.")
    it.send("session.update", output_rate=48000).send("user.text", text="Hi")
    _, told = it.quiet(2).go()
    assert told.last(e.ReplyAudio).rate == 48000
    assert len(told.audio()) / 2 / 48000 == pytest.approx(0.4, abs=0.001)


def test_a_greeting_when_asked_for():
    it, llm = talk()
    it.options = {"greet": True}
    session, told = it.quiet(2).go()
    assert fakes.words(told.audio()) == ["hello", "you"]
    assert lines(session) == [("assistant", "Hello you.", False)]
    assert llm.seen == []


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


def test_a_recogniser_that_breaks_is_told_and_the_next_turn_works():
    stt = fakes.FakeSTT()
    stt.fails = True
    it, _ = talk("Fine.", stt=stt)
    it.say("hello").quiet(1.5).raw(lambda: setattr(stt, "fails", False) or fakes.silence(20))
    _, told = it.say("hello").quiet(2).go()
    assert told.last(e.Error).code == "stt_failed"
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello"]
    assert fakes.words(told.audio()) == ["fine"]


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
