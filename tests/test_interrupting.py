"""Cutting in: what pauses a reply, what ends it, and what is kept of it. On the virtual clock."""

import asyncio
from itertools import pairwise

import pytest

from server import events as e
from tests import fakes
from tests.talk import COUNT, lines, talk


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


@pytest.mark.parametrize(("said", "what", "lull"), [("yeah", e.ReplyResumed, 0.25), ("no", e.ReplyInterrupted, 0.15)])
def test_a_short_word_is_judged_before_the_turn_is_over(said: str, what: type[e.Event], lull: float):
    it, _ = talk()
    it.say("count please").quiet(2).say(said)
    ended = it._now
    _, told = it.quiet(2).go()
    assert lull <= told.at(what) - ended <= lull + 2 * 0.032 + 0.02


def test_the_answer_to_a_short_word_is_drafted_in_the_same_silence():
    it, llm = talk(COUNT, "Fine.")
    it.say("count please").quiet(2).say("no").quiet(2)
    _, told = it.go()
    assert told.last(e.ReplyDone).text == "Fine."
    assert len(llm.seen) == 2
    answer = next(t for t, x in told.events if isinstance(x, e.Audio) and x.reply == 2)
    assert answer - told.at(e.UserStopped, 1) < 0.005


def test_whoever_goes_on_after_a_backchannel_is_heard():
    it, llm = talk()
    _, told = it.say("count please").quiet(2).say("yeah").quiet(0.3).say("but stop now").quiet(2).go()
    assert [type(x) for x in told.of(e.ReplyPaused, e.ReplyResumed, e.ReplyInterrupted)] == [
        e.ReplyPaused, e.ReplyResumed, e.ReplyPaused, e.ReplyInterrupted,
    ]  # fmt: skip
    assert llm.seen[-1][-1].content == "yeah but stop now"


def test_a_word_that_was_misheard_in_the_lull_interrupts_by_its_final_text():
    it, llm = talk(COUNT, "Fine.", stt=fakes.FakeSTT(misheard={"no": "oh"}))
    _, told = it.say("count please").quiet(2).say("no").quiet(3).go()
    assert [type(x) for x in told.of(e.ReplyPaused, e.ReplyResumed, e.ReplyInterrupted)] == [
        e.ReplyPaused, e.ReplyResumed, e.ReplyInterrupted,
    ]  # fmt: skip
    assert llm.seen[-1][-1].content == "no"
    assert told.last(e.ReplyDone).text == "Fine."


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
    assert {x.text for x in told.of(e.TranscriptPartial)} == {"count", "count please"}
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


def test_pause_and_resume_by_the_client():
    it, _ = talk()
    it.say("count please").quiet(1.5).send("reply.pause").quiet(3).send("reply.resume").quiet(4)
    _, told = it.go()
    assert [x.reason for x in told.of(e.ReplyPaused)] == ["client"]
    paused, resumed = told.at(e.ReplyPaused), told.at(e.ReplyResumed)
    assert not [1 for t, x in told.events if isinstance(x, e.Audio) and paused + 0.001 < t < resumed]
    assert fakes.words(told.audio(1)) == [w.strip(".").lower() for w in COUNT.split()]


def test_a_client_may_bring_its_own_backchannels():
    it, _ = talk()
    it.send("session.update", interrupt={"backchannels": ["hup"]})
    _session, told = it.say("count please").quiet(2).say("hup").quiet(0.8).say("yeah").quiet(2).go()
    assert told.last(e.SessionUpdated).interrupt["backchannels"] == ["hup"]
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["backchannel"]
    assert told.last(e.ReplyInterrupted).reason == "speech"


@pytest.mark.parametrize("asked", ["user.text", "say"])
def test_what_was_asked_for_just_before_the_stop_is_stopped_as_well(asked: str):
    it, _ = talk("Never heard.")
    _, told = it.send(asked, text="Hello?").send("reply.interrupt").quiet(2).go()
    assert told.audio() == b""
    assert [type(x) for x in told.of(e.ReplyStarted, e.ReplyInterrupted, e.ReplyDone)] in (
        [e.ReplyStarted, e.ReplyInterrupted], [],
    )  # fmt: skip


def test_a_stop_holds_for_a_turn_that_is_still_being_understood():
    it, _ = talk("Never heard.", stt=fakes.FakeSTT(delay=1.0), turn={"speculative": False})
    it.say("tell me").quiet(0.8).send("reply.interrupt")
    session, told = it.quiet(4).go()
    assert told.audio() == b""
    assert [type(x) for x in told.of(e.ReplyStarted, e.ReplyInterrupted)] == [e.ReplyStarted, e.ReplyInterrupted]
    assert lines(session) == [("user", "tell me", False)]


def test_what_is_asked_for_after_the_stop_is_not_stopped():
    it, _ = talk(COUNT, "Fine.")
    it.send("user.text", text="count").quiet(1).send("reply.interrupt").send("user.text", text="And now?")
    _, told = it.quiet(2).go()
    assert told.last(e.ReplyDone).text == "Fine."


@pytest.mark.parametrize("steps", range(10))
def test_an_interruption_in_the_last_instant_keeps_the_line_once(steps: int):
    it, _ = talk("Fine.")
    interrupting: list[asyncio.Task[None]] = []

    async def interrupt() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        await it.session.interrupt("client")

    def at_the_end(at: float, event: e.Event) -> None:
        if isinstance(event, e.ReplyDone):
            interrupting.append(asyncio.create_task(interrupt()))

    it.on_told = at_the_end
    session, told = it.send("user.text", text="Hi").quiet(2).go()
    assert lines(session) == [("user", "Hi", False), ("assistant", "Fine.", False)]
    assert told.of(e.ReplyInterrupted) == []
