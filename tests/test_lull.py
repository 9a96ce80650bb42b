"""After a backchannel or a cough the reply goes on as soon as it is quiet, long before the turn is over. On the virtual
clock."""

import pytest

from server import events as e
from tests import fakes
from tests.talk import COUNT, lines, talk

SOUNDS = {"yeah": ("backchannel", fakes.voice("yeah")), "cough": ("noise", fakes.hum(250))}
QUICK = 0.25 + 0.1  # a breath, and the frames around it


@pytest.mark.parametrize("sound", SOUNDS)
def test_the_reply_goes_on_in_the_lull(sound: str):
    reason, pcm = SOUNDS[sound]
    it, _ = talk()
    over = it.send("user.text", text="count").quiet(1.2).pcm(pcm)._now
    session, told = it.quiet(4).go()
    assert [x.reason for x in told.of(e.ReplyResumed)] == [reason]
    assert told.at(e.ReplyResumed) - over < QUICK
    assert told.of(e.ReplyInterrupted) == []
    assert told.last(e.TranscriptFinal).text == "", "what was told of it came to nothing"
    assert lines(session) == [("user", "count", False), ("assistant", COUNT, False)]


def test_who_goes_on_after_it_pauses_the_reply_again_and_is_heard_whole():
    it, _ = talk(COUNT, "Fine.")
    it.send("user.text", text="count").quiet(1.2)
    back = it.say("yeah").quiet(0.4)._now
    _, told = it.say("but what of the sea then").quiet(3).go()
    assert len(told.of(e.ReplyPaused)) == 2
    assert told.at(e.ReplyPaused, 1) - back < 0.1
    assert [x.reason for x in told.of(e.ReplyInterrupted)] == ["speech"]
    assert told.last(e.TranscriptFinal).text == "yeah but what of the sea then"


def test_nothing_goes_on_in_a_pause_for_breath():
    it, _ = talk(COUNT, "Fine.")
    it.send("user.text", text="count").quiet(1.2)
    _, told = it.say("okay").quiet(0.22).say("so what of the sea then").quiet(3).go()
    assert told.of(e.ReplyResumed) == []
    assert told.last(e.TranscriptFinal).text == "okay so what of the sea then"


def test_a_verdict_that_comes_when_the_user_talks_again_is_too_late():
    it, _ = talk(COUNT, "Fine.", stt=fakes.FakeSTT(delay=0.25))
    it.send("user.text", text="count").quiet(1.2)
    _, told = it.say("yeah").quiet(0.3).say("but what of the sea then").quiet(3).go()
    assert told.of(e.ReplyResumed) == []
    assert [x.reason for x in told.of(e.ReplyInterrupted)] == ["speech"]


def test_a_recogniser_that_is_slower_than_the_turn_lets_the_reply_go_on_all_the_same():
    it, _ = talk(stt=fakes.FakeSTT(delay=0.8))
    session, told = it.send("user.text", text="count").quiet(1.2).say("yeah").quiet(5).go()
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["backchannel"]
    assert lines(session) == [("user", "count", False), ("assistant", COUNT, False)]


def test_words_keep_it_paused():
    it, _ = talk(COUNT, "Fine.")
    _, told = it.send("user.text", text="count").quiet(1.2).say("wait").quiet(3).go()
    assert told.of(e.ReplyResumed) == []
    assert [x.reason for x in told.of(e.ReplyInterrupted)] == ["speech"]


def test_the_final_text_decides_after_all():
    class Hesitant(fakes.FakeRecogniser):
        async def peek(self):
            text = await super().peek()
            return type(text)("") if not self.ending else text

        async def finish(self):
            self.ending = True
            return await super().finish()

        ending = False

    stt = fakes.FakeSTT(partials=False)
    stt.open = lambda language: Hesitant(stt)
    it, _ = talk(COUNT, "Fine.", stt=stt)
    _, told = it.send("user.text", text="count").quiet(1.2).say("wait").quiet(3).go()
    assert [type(x) for x in told.of(e.ReplyResumed, e.ReplyInterrupted)] == [e.ReplyResumed, e.ReplyInterrupted]
    assert told.last(e.TranscriptFinal).text == "wait"
    assert fakes.words(told.audio(2)) == ["fine"]


def test_who_goes_on_when_the_reply_has_ended_meanwhile_has_an_ordinary_turn():
    it, _ = talk("One.", "Fine.")
    it.send("user.text", text="count").quiet(0.24).say("yeah").quiet(0.46)
    _, told = it.say("and what of the sea then").quiet(3).go()
    assert [x.reply for x in told.of(e.ReplyDone)] == [1, 2]
    assert len(told.of(e.ReplyPaused)) == 1
    assert told.last(e.TranscriptFinal).text == "yeah and what of the sea then"
    assert told.last(e.TurnMetrics).stages["first_token"] < told.last(e.TurnMetrics).stages["turn_end"]
