"""How a reply comes: far enough ahead of the listener, its first clause first, its sentences as the language has it."""

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


def test_where_sentences_end_depends_on_the_language():
    german, _ = talk("Frau Hr. Maier kommt. Ja.", language="de")
    _, told = german.send("user.text", text="Na?").quiet(4).go()
    assert [x.text for x in told.of(e.ReplySentence)] == ["Frau Hr. Maier kommt.", "Ja."]
