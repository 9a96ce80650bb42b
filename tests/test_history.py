"""The history and the prompt made of it; what was heard of a text."""

import pytest

from server.characters import Character
from server.history import CUT, KEEP, OPENING, History
from server.pipelines.engines import Word
from server.spoken import Spoken, split_at

ADA, BEN = Character("ada", "Ada", "An engineer."), Character("ben", "Ben", "A baker.")
CAST = {"ada": ADA, "ben": BEN}


def prompt(history: History, who: Character = ADA) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in history.prompt(who, CAST, "Be brief.")][1:]


def test_the_system_prompt_says_who_one_is_who_is_there_and_what_a_cut_means():
    system = History().prompt(ADA, CAST, "Be brief.")[0].content
    assert system.startswith("You are Ada. An engineer.")
    for part in ("Be brief.", "Ben", CUT):
        assert part in system


def test_what_was_cut_off_is_marked():
    history = History()
    history.heard_user("Count.", 1)
    history.said("ada", "One, two,", 1, cut=True)
    assert prompt(history) == [("user", "Count."), ("assistant", f"One, two{CUT}")]


def test_others_are_heard_by_name_and_neighbours_are_joined():
    history = History()
    history.heard_user("Both of you?", 1)
    history.said("ben", "Bread.", 1)
    history.said("ada", "Engines.", 1)
    assert prompt(history) == [("user", "Both of you?\nBen: Bread."), ("assistant", "Engines.")]
    assert prompt(history, BEN)[-1] == ("user", "Ada: Engines.")


def test_nothing_heard_leaves_no_line():
    history = History()
    history.heard_user("Hm?", 1)
    history.said("ada", "", 1, cut=True)
    assert len(history.entries) == 1


def test_an_assistant_does_not_open():
    history = History()
    history.said("ada", "Hello!", 1)
    assert prompt(history) == [("user", OPENING), ("assistant", "Hello!")]


def test_it_is_bounded_and_forgets_in_one_go():
    history = History()
    for i in range(KEEP + 1):
        history.heard_user(str(i), i)
    assert len(history.entries) == KEEP - KEEP // 4 + 1
    assert history.entries[-1].text == str(KEEP)


def test_a_copy_is_apart():
    history = History()
    history.heard_user("one", 1)
    history.copy().heard_user("two", 2)
    assert len(history.entries) == 1


TEXT = "One two. Three four."
TIMED = [Word(0, 3, 0, 200), Word(4, 8, 200, 400)]


def spoken(*, timed: bool = True, whole: bool = True) -> list[Spoken]:
    first = Spoken("One two.", 0, 400, TIMED if timed else [])
    second = Spoken(
        "Three four.", 400, 800 if whole else None, [Word(0, 5, 0, 200), Word(6, 11, 200, 400)] if timed else []
    )
    return [first, second]


@pytest.mark.parametrize(
    ("ms", "heard"),
    [
        (0, ""),
        (99, ""),
        (100, "One"),
        (299, "One"),
        (300, "One two."),
        (399, "One two."),
        (510, "One two. Three"),
        (800, TEXT),
    ],
)
def test_heard_to_the_word(ms: float, heard: str):
    assert split_at(spoken(), TEXT, ms, complete=False) == (heard, TEXT[len(heard) :].strip())


def test_a_word_told_again_is_heard_when_it_is_told_last():
    corrected = [Spoken("One two.", 0, 800, [*TIMED, Word(4, 8, 600, 800)])]
    assert split_at(corrected, "One two.", 500, complete=False)[0] == "One"


def test_without_timings_it_goes_by_the_letters():
    assert split_at(spoken(timed=False), TEXT, 210, complete=False)[0] == "One"
    assert split_at(spoken(timed=False), TEXT, 320, complete=False)[0] == "One two."
    assert split_at(spoken(timed=False), TEXT, 620, complete=False)[0] == "One two. Three"


def test_a_sentence_still_in_the_making_is_guessed_at_ordinary_speed():
    heard, _ = split_at([Spoken("word " * 20, 0)], "word " * 20, 65 * 50, complete=False)
    assert len(heard.split()) == pytest.approx(10, abs=1)


def test_what_was_never_spoken_is_unheard():
    assert split_at(spoken(), TEXT + " And more.", 800, complete=True) == (TEXT, "And more.")


def test_what_is_written_against_a_word_goes_with_it():
    said = [Spoken("Well, yes and no.", 0, 800, [Word(0, 4, 0, 200), Word(6, 9, 200, 400)])]
    assert split_at(said, "Well, yes and no.", 150, complete=False) == ("Well,", "yes and no.")


def test_the_same_sentence_twice_is_counted_twice():
    twice = [Spoken("Ha.", 0, 200), Spoken("Ha.", 200, 400)]
    assert split_at(twice, "Ha. Ha.", 400, complete=False) == ("Ha. Ha.", "")
    assert split_at(twice, "Ha. Ha.", 200, complete=False) == ("Ha.", "Ha.")
