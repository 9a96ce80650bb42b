"""How a reply comes: far enough ahead of the listener, its first clause first, its sentences as the language has it."""

import pytest

from server import events as e
from tests import fakes
from tests.talk import Told, lines, talk


def test_a_client_may_ask_for_more_lead_while_it_listens():
    def sent(told: Told, until: float) -> float:
        return sum(len(x.data) / 32 for t, x in told.events if isinstance(x, e.Audio) and t < until)

    it, _ = talk("One more sentence here. " * 20)
    it.send("user.text", text="Talk.").quiet(2).send("session.update", lead_ms=1_500)
    now = it._now
    _, told = it.quiet(3).go()
    begun = told.at(e.Audio)
    for until, lead in ((now, 300), (now + 1, 1_500), (now + 2, 1_500)):
        assert lead - 150 < sent(told, until) - (until - begun) * 1_000 <= lead
    assert told.last(e.SessionUpdated).lead_ms == 1_500


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


def test_a_sentence_without_a_sound_is_told_all_the_same():
    class Shy(fakes.FakeTTS):
        def open(self, voice):
            return ShySpeaker(self, voice)

    class ShySpeaker(fakes.FakeSpeaker):
        def speak(self, text):
            return super().speak("" if "Ahem" in text else text)

    it, _ = talk("Hello there. Ahem.", tts=Shy())
    session, told = it.send("user.text", text="Hi.").quiet(3).go()
    assert [x.text for x in told.of(e.ReplySentence)] == ["Hello there.", "Ahem."]
    assert lines(session)[-1] == ("assistant", "Hello there. Ahem.", False)


def test_what_was_heard_goes_by_when_each_word_sounds():
    it, _ = talk("Extraordinarily a b c d.")
    it.send("user.text", text="Hi.").quiet(1).send("playback", reply=1, ms=450).send("reply.interrupt")
    _, told = it.quiet(1).go()
    assert told.last(e.ReplyInterrupted).heard == "Extraordinarily a"


def test_a_sentence_is_told_when_it_is_about_to_sound():
    it, _ = talk()
    _, told = it.send("user.text", text="count").quiet(4).go()
    first, *later = [told.at(e.ReplySentence, nth) for nth in range(3)]
    assert [at - first for at in later] == pytest.approx([0.6, 1.4], abs=0.05)  # of 0.8 s each, 0.2 s ahead


def test_a_reply_that_is_paused_for_two_reasons_is_told_once_and_goes_on_after_both():
    it, _ = talk()
    it.send("user.text", text="count").quiet(1).send("reply.pause").quiet(0.2).pcm(fakes.hum(250)).quiet(1)
    resumed = it.send("reply.resume")._now
    _, told = it.quiet(4).go()
    assert [x.reason for x in told.of(e.ReplyPaused)] == ["client"]
    assert told.at(e.ReplyResumed) >= resumed
    assert [x.reason for x in told.of(e.ReplyResumed)] == ["client"]


def test_a_listener_who_has_heard_nothing_yet_has_not_heard_the_first_of_it():
    it, _ = talk("Fine.")
    it.send("user.text", text="Hi.").quiet(0.2).send("playback", reply=1, ms=0)
    _, told = it.quiet(2).go()
    assert "first_heard" not in told.last(e.TurnMetrics).stages


@pytest.mark.parametrize("text", ["Five is greater <", "Look here: [", "And so it is *"])
def test_what_might_have_been_markup_is_told_when_the_text_ends(text: str):
    it, _ = talk(text)
    _, told = it.send("user.text", text="Na?").quiet(4).go()
    assert "".join(x.text for x in told.of(e.ReplyText)).strip() == told.last(e.ReplyDone).text == text


def test_where_sentences_end_depends_on_the_language():
    german, _ = talk("Frau Hr. Maier kommt. Ja.", language="de")
    _, told = german.send("user.text", text="Na?").quiet(4).go()
    assert [x.text for x in told.of(e.ReplySentence)] == ["Frau Hr. Maier kommt.", "Ja."]


@pytest.mark.parametrize("asked", ["say", "user.text"])
def test_a_pause_that_comes_right_behind_holds_what_was_asked_for(asked: str):
    it, _ = talk("Hello you there.")
    it.send(asked, text="Hello you there.").send("reply.pause").quiet(2)
    resumed = it._now
    _, told = it.send("reply.resume").quiet(3).go()
    assert [x.reason for x in told.of(e.ReplyPaused)] == ["client"]
    assert told.at(e.ReplyStarted) <= told.at(e.ReplyPaused) < 0.1
    assert told.at(e.Audio) > resumed - 0.01
    assert len(told.of(e.ReplyDone)) == 1


def test_a_pause_that_comes_while_a_turn_is_understood_holds_its_answer():
    it, _ = talk("Hello you there.", stt=fakes.FakeSTT(delay=0.5), turn={"speculative": False})
    it.say("tell me").quiet(0.2).send("user.commit").quiet(0.2).send("reply.pause").quiet(3)
    _, told = it.go()
    assert len(told.of(e.ReplyPaused)) == 1
    assert not told.of(e.Audio)


def test_what_is_paused_and_resumed_before_it_begins_sounds():
    it, _ = talk("Hello you there.")
    _, told = it.send("say", text="Hello you there.").send("reply.pause").send("reply.resume").quiet(3).go()
    assert len(told.of(e.ReplyPaused)) == len(told.of(e.ReplyResumed)) <= 1
    assert len(told.of(e.ReplyDone)) == 1


def test_a_pause_of_nothing_holds_nothing_that_comes_later():
    it, _ = talk("Hello you there.")
    _, told = it.send("reply.pause").quiet(0.5).send("say", text="Hello.").quiet(3).go()
    assert not told.of(e.ReplyPaused)
    assert len(told.of(e.ReplyDone)) == 1
