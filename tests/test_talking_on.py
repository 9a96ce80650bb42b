"""The user talks on, or makes a noise, while what came before is still at work. On the virtual clock."""

import pytest

from server import events as e
from tests import fakes
from tests.talk import COUNT, talk


@pytest.mark.parametrize("deaf", [False, True])
def test_a_noise_right_after_a_turn_does_not_cost_its_text(deaf: bool):
    it, _ = talk("Fine.", stt=fakes.FakeSTT(delay=0.8), interrupt={"thinking": not deaf})
    _, told = it.say("hello there").quiet(0.6).pcm(fakes.hum(40)).quiet(3).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert fakes.words(told.audio()) == ["fine"]


def test_an_answer_to_a_cut_in_is_held_too_while_the_user_talks_on():
    it, _ = talk(COUNT, "Never said.", "Both then.", stt=fakes.FakeSTT(delay=0.4), turn={"speculative": False})
    it.send("user.text", text="count").quiet(1.2)
    _, told = it.say("wait please").quiet(0.6).say("i meant the sea and not a lake").quiet(4).go()
    assert told.audio(2) == b""
    assert [x.reply for x in told.of(e.ReplyPaused)] == [1, 2]
    assert fakes.words(told.audio(3)) == ["both", "then"]


def test_who_speaks_at_length_has_the_floor_before_they_have_finished():
    it, _ = talk(COUNT, "Fine.")
    began = it.send("user.text", text="count").quiet(1.2)._now
    _, told = it.say("wait please i would like to hear of the sea and not of a lake").quiet(3).go()
    assert 0.9 <= told.at(e.ReplyInterrupted) - began < 1.1


def test_a_backchannel_lets_nothing_go_on_while_the_user_talks_again():
    it, _ = talk(COUNT, "Fine.", stt=fakes.FakeSTT(delay=0.4), turn={"speculative": False})
    it.send("user.text", text="count").quiet(1.2)
    _, told = it.say("yeah").quiet(0.6).say("but now i would like to hear something else").quiet(4).go()
    paused, cut = told.at(e.ReplyPaused), told.at(e.ReplyInterrupted)
    assert told.of(e.ReplyResumed) == []
    assert not [1 for t, x in told.events if isinstance(x, e.Audio) and paused + 0.001 < t < cut]


def test_what_is_typed_while_the_user_talks_is_answered_with_what_was_said():
    it, llm = talk("Never said.", "Both then.")
    it.say("have a look at this").send("user.text", text="parley.example")
    _, told = it.say("and tell me of it").quiet(3).go()
    assert told.audio(1) == b""
    assert llm.seen[-1][-1].content == "parley.example\nhave a look at this and tell me of it"
    assert fakes.words(told.audio(2)) == ["both", "then"]


def test_a_cough_holds_what_is_typed_during_it_and_no_longer():
    it, _ = talk("Fine.")
    _, told = it.pcm(fakes.hum(200)).send("user.text", text="Hello?").quiet(3).go()
    assert fakes.words(told.audio(1)) == ["fine"]
    assert told.of(e.ReplyInterrupted) == []


def test_what_is_to_be_said_does_not_talk_over_the_user():
    it, _ = talk("Fine.")
    it.say("i was just about to say").send("say", text="One two three four five six seven.")
    _, told = it.say("that it is late").quiet(3).go()
    assert told.audio(1) == b""
    assert fakes.words(told.audio(2)) == ["fine"]


def test_noise_around_what_is_typed_does_not_cost_its_answer():
    it, _ = talk("Fine.")
    _, told = it.pcm(fakes.hum(1_500)).send("user.text", text="Hello?").pcm(fakes.hum(1_500)).quiet(3).go()
    assert fakes.words(told.audio(1)) == ["fine"]
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["noise"]
    assert told.at(e.ReplyResumed) < 4


def test_noise_that_pauses_a_reply_does_not_cost_what_is_typed_into_the_pause():
    it, _ = talk(COUNT, "Fine.")
    it.send("user.text", text="count").quiet(1.2).pcm(fakes.hum(400)).send("user.text", text="Enough.")
    _, told = it.pcm(fakes.hum(1_500)).quiet(3).go()
    assert [x.reply for x in told.of(e.ReplyInterrupted)] == [1]
    assert fakes.words(told.audio(2)) == ["fine"]


def test_who_may_not_cut_in_holds_nothing_that_is_typed_either():
    it, _ = talk(COUNT, "Fine.", interrupt={"speaking": False})
    it.send("user.text", text="count").quiet(1.2).say("echo echo echo").send("user.text", text="Enough.")
    _, told = it.say("echo echo").quiet(3).go()
    assert told.of(e.ReplyPaused) == []
    assert fakes.words(told.audio(2)) == ["fine"]


def test_a_stop_ends_the_wait_of_what_was_typed_and_the_user_is_heard():
    it, _ = talk("Never said.", "Fine.")
    it.say("have a look at this").send("user.text", text="parley.example").say("no").send("reply.interrupt")
    _, told = it.say("never mind").quiet(3).go()
    assert [x.reason for x in told.of(e.ReplyInterrupted)] == ["client"]
    assert told.last(e.TranscriptFinal).text == "have a look at this no never mind"
    assert fakes.words(told.audio()) == ["fine"]
    stages = told.last(e.TurnMetrics).stages
    assert stages["first_token"] < stages["turn_end"], "an ordinary turn is answered in its silence"


def test_what_was_said_to_deaf_ears_is_no_part_of_what_is_said_next():
    it, llm = talk(COUNT, "Fine.", interrupt={"speaking": False})
    it.send("user.text", text="count").quiet(0.3).say("never mind").quiet(3)
    it.say("hello there").quiet(2).go()
    assert [m[-1].content for m in llm.seen] == ["count", "hello there"]


def test_what_does_not_count_after_all_is_told_to_have_come_to_nothing():
    it, _ = talk("It is so.", stt=fakes.FakeSTT(delay=0.5), interrupt={"thinking": False})
    it.say("tell me").quiet(0.7).say("about the sea")
    _, told = it.quiet(4).go()
    assert len(told.of(e.UserStarted)) == len(told.of(e.UserStopped)) == 2
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["tell me", ""]
    assert fakes.words(told.audio()) == ["it", "is", "so"]
