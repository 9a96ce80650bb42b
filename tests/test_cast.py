"""Several characters in one conversation: who answers, in which order, and what each knows."""

from dataclasses import replace

from server import events as e
from server.errors import ConfigError
from server.history import History
from server.pipelines.engines import Voice
from tests import fakes
from tests.talk import COUNT, lines, talk


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


def test_what_is_said_for_nobody_in_particular_is_said_by_the_last_who_spoke():
    it, _ = talk("Ben here.")
    it.active = ["ada", "ben"]
    it.send("say", text="First.").quiet(1).send("user.text", text="Ben?").quiet(2)
    _, told = it.send("say", text="Dinner is ready.").quiet(2).go()
    assert [x.character for x in told.of(e.ReplyStarted)] == ["ada", "ben", "ben"]


def test_who_has_left_says_nothing_for_nobody_in_particular():
    it, _ = talk("Ben here.")
    it.active = ["ada", "ben"]
    it.send("user.text", text="Ben?").quiet(2).send("session.update", character="ada")
    _, told = it.send("say", text="Dinner is ready.").quiet(2).go()
    assert [x.character for x in told.of(e.ReplyStarted)] == ["ben", "ada"]


def test_a_conversation_taken_up_again_is_led_on_by_who_spoke_last():
    it, _ = talk("Ben here.")
    it.active, it.options["history"] = ["ada", "ben"], History()
    it.options["history"].heard_user("Ben?", 7)
    it.options["history"].said("ben", "Yes.", 7)
    it.options["history"].turn = 7
    _, told = it.send("user.text", text="And?").quiet(2).go()
    assert [(x.character, x.turn) for x in told.of(e.ReplyStarted)] == [("ben", 8)]


def test_a_name_the_model_writes_is_neither_shown_nor_spoken():
    it, _ = talk("Ada: <Ada>Hello you.</Ada>")
    _, told = it.send("user.text", text="Hi").quiet(2).go()
    assert "".join(x.text for x in told.of(e.ReplyText)).strip() == "Hello you."
    assert fakes.words(told.audio()) == ["hello", "you"]


def test_a_character_whose_voice_cannot_be_opened_does_not_silence_the_others():
    class Picky(fakes.FakeTTS):
        def open(self, voice):
            if voice.name == "nobody":
                raise ConfigError("there is no such voice")
            return super().open(voice)

    it, _ = talk("Not to be heard.", "Ada here.", "Ada again.", tts=Picky())
    it.cast["ben"] = replace(it.cast["ben"], voice=Voice(name="nobody"))
    it.active = ["ada", "ben"]
    it.send("user.text", text="Ben and Ada?").quiet(3).send("user.text", text="Ada and Ben?")
    session, told = it.quiet(3).go()
    assert [x.text for x in told.of(e.ReplyDone)] == ["", "Ada here.", "Ada again.", ""]
    assert [(x.code, x.message) for x in told.of(e.Error)] == [("bad_config", "there is no such voice")] * 2
    assert [x for x in lines(session) if x[0] == "assistant"] == [
        ("assistant", "Ada here.", False), ("assistant", "Ada again.", False),
    ]  # fmt: skip
