"""Is it an interruption? The verdict, and what the floor makes of it."""

import pytest

from server.ear import Talking
from server.floor import (
    Announce,
    Discard,
    Draft,
    End,
    Floor,
    Forget,
    Interrupt,
    Pause,
    Peek,
    Resume,
    Settled,
    State,
)
from server.pipelines.barge_in import InterruptRules, Verdict, judge
from server.pipelines.turn import FalseStart, Lulled, Onset, Rejoined, Started, Stopped
from server.reply import Phase


def verdict(text: str, voiced: float, *, over: bool = False, **rules: object) -> Verdict:
    return judge(InterruptRules(**rules), "en", text, voiced_ms=voiced, over=over)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["mhm", "Yeah.", "right, right", "uh huh", "I see", "yeah okay, got it", "Mm-hmm!", "the the", "and"]
)
def test_backchannels_leave_no_words(text: str):
    assert InterruptRules().words(text, "en") == []


def test_of_a_listeners_own_backchannels_the_longest_counts_and_what_is_no_word_never():
    rules = InterruptRules(backchannels=("yes", "...", "yes sir"))
    assert rules.words("Yes, sir!", "en") == []
    assert rules.words("Yes, sir, no.", "en") == ["no"]


@pytest.mark.parametrize(("text", "left"), [("yeah but wait", 2), ("I see the problem", 2), ("stop", 1), ("no", 1)])
def test_what_is_more_than_a_backchannel_does(text: str, left: int):
    assert len(InterruptRules().words(text, "en-GB")) == left


def test_words_interrupt_once_there_is_enough_voice_to_trust_them():
    assert verdict("stop that", 500) is Verdict.WAIT
    assert verdict("stop that", 900) is Verdict.INTERRUPT


def test_long_speech_interrupts_without_words():
    assert verdict("", 700, min_ms=800) is Verdict.WAIT
    assert verdict("", 800, min_ms=800) is Verdict.INTERRUPT


def test_a_backchannel_never_interrupts_however_long():
    assert verdict("yeah", 3_000) is Verdict.WAIT
    assert verdict("yeah", 3_000, over=True) is Verdict.RESUME


def test_a_short_word_is_judged_when_it_is_over():
    assert verdict("no", 250) is Verdict.WAIT
    assert verdict("no", 250, over=True) is Verdict.INTERRUPT


def test_noise_resumes():
    assert verdict("", 300) is Verdict.WAIT
    assert verdict("", 300, over=True) is Verdict.RESUME


def test_what_was_said_before_is_no_part_of_what_is_said_now():
    it = floor(min_words=1)
    it.step(Onset(0), None)
    it.step(Stopped(500), None)
    it.text = "stop that please"  # told late by the recogniser
    it.step(Onset(1_000), SPEAKING)
    assert it.step(Talking(900), SPEAKING) == []


def test_a_click_into_a_reply_that_may_not_be_interrupted_makes_nobody_deaf_afterwards():
    it = floor(speaking=False)
    it.step(Onset(0), SPEAKING)
    it.step(FalseStart(100), SPEAKING)
    it.step(Onset(5_000), None)
    assert it.step(Started(5_000), None) == [Announce(True, 5_000)]


def test_more_words_may_be_asked_for():
    assert verdict("stop it", 2_000, min_words=3) is Verdict.WAIT
    assert verdict("stop it", 2_000, over=True, min_words=3) is Verdict.RESUME
    assert verdict("stop it now", 2_000, min_words=3) is Verdict.INTERRUPT
    assert verdict("", 2_000, min_words=3) is Verdict.WAIT  # a voice without words has none of them


def test_backchannels_follow_the_language_and_can_be_replaced():
    assert "genau" in InterruptRules().listed("de-DE")
    assert InterruptRules().listed("xx") == ()
    assert InterruptRules(backchannels=("hup",)).listed("en") == ("hup",)
    mine = InterruptRules(backchannels={"en": ("hup",)})
    assert mine.listed("en") == ("hup",)
    assert "genau" in mine.listed("de")


def floor(**rules: object) -> Floor:
    return Floor(InterruptRules(**rules), "en", speculative=True)  # type: ignore[arg-type]


SPEAKING, THINKING = Phase.SPEAKING, Phase.THINKING


def test_an_onset_pauses_only_a_reply():
    assert floor().step(Onset(0), None) == []
    assert floor().step(Onset(0), SPEAKING) == [Pause()]
    assert floor().step(Onset(0), THINKING) == [Pause()]


def test_speaking_and_thinking_are_set_apart():
    assert floor(speaking=False).step(Onset(0), SPEAKING) == []
    assert floor(speaking=False).step(Onset(0), THINKING) == [Pause()]
    assert floor(thinking=False).step(Onset(0), THINKING) == []


def test_a_false_start_resumes():
    it = floor()
    it.step(Onset(0), SPEAKING)
    assert it.step(FalseStart(0), SPEAKING) == [Resume("noise"), Forget()]
    assert it.state is State.FREE


def test_words_interrupt_and_then_the_turn_is_an_ordinary_one():
    it = floor()
    it.step(Onset(0), SPEAKING)
    it.step(Started(0), SPEAKING)
    it.text = "stop it please"
    assert it.step(Talking(900), SPEAKING) == [Interrupt()]
    assert it.state is State.FREE
    assert it.step(Talking(932), None) == []
    assert it.step(Stopped(900), None) == [Announce(False, 900), End(900)]


def test_a_lull_decides_what_a_reply_is_held_for():
    it = floor()
    it.step(Onset(0), SPEAKING)
    it.step(Started(0), SPEAKING)
    assert it.step(Lulled(400), SPEAKING) == [Peek(400)]
    assert it.step(Settled("mhm"), SPEAKING) == [Resume("backchannel")]
    assert it.step(Stopped(800), SPEAKING) == [Announce(False, 800), End(800, contested=True)]
    it.step(Onset(1_000), SPEAKING)
    assert it.step(Settled("no"), SPEAKING) == [Interrupt(), Draft("no")]
    assert it.step(Stopped(1_300), None) == [End(1_300)]


def test_who_goes_on_after_a_lull_holds_the_reply_again():
    it = floor()
    it.step(Onset(0), SPEAKING)
    it.step(Settled("yeah"), SPEAKING)
    assert it.step(Rejoined(500), SPEAKING) == [Pause()]
    it.text = "yeah but that"
    assert it.step(Talking(1_000), SPEAKING) == [Interrupt()]


def test_what_is_said_as_the_reply_ends_answers_it():
    it = floor()
    it.step(Onset(0), SPEAKING)
    it.step(Settled("yeah"), SPEAKING)
    assert it.step(Stopped(600), None) == [End(600)]


def test_a_lull_in_which_the_reply_ends_by_itself_is_an_ordinary_one():
    it = floor()
    it.step(Onset(0), SPEAKING)
    assert it.step(Settled("mhm"), None) == [Draft("mhm")]
    assert it.step(Stopped(500), None) == [End(500)]


def test_without_drafts_a_lull_decides_as_well():
    it = Floor(InterruptRules(), "en", speculative=False)
    it.step(Onset(0), THINKING)
    assert it.step(Lulled(400), THINKING) == [Peek(400)]
    assert it.step(Settled("no"), THINKING) == [Interrupt()]


def test_a_turn_that_ends_undecided_is_judged_by_its_final_text():
    it = floor()
    it.step(Onset(0), SPEAKING)
    assert it.step(Stopped(900), SPEAKING) == [End(900, contested=True)]


def test_a_reply_that_ends_by_itself_leaves_the_floor_to_who_contested_it():
    it = floor()
    it.step(Onset(0), SPEAKING)
    assert it.step(Talking(3_000), None) == []
    assert it.step(Lulled(3_100), None) == [Peek(3_100)]


def test_a_turn_that_outlasts_the_reply_it_contested_is_not_judged():
    it = floor()
    it.step(Onset(0), SPEAKING)
    assert it.step(Stopped(900), None) == [End(900)]


def test_speech_while_it_may_not_be_interrupted_is_forgotten():
    it = floor(speaking=False)
    it.step(Onset(0), SPEAKING)
    assert it.step(Started(0), SPEAKING) == []
    assert it.step(Talking(3_000), SPEAKING) == []
    assert it.step(Stopped(3_000), SPEAKING) == [Forget()]


def test_speech_that_outlasts_such_a_reply_counts():
    it = floor(speaking=False)
    it.step(Onset(0), SPEAKING)
    assert it.step(Stopped(3_000), None) == [End(3_000)]


def test_a_draft_is_asked_for_only_while_nobody_speaks():
    it = floor()
    it.step(Onset(0), None)
    assert it.step(Lulled(300), None) == [Peek(300)]
    assert it.step(Settled("hello"), None) == [Draft("hello")]
    assert it.step(Rejoined(400), None) == [Discard()]
    assert it.step(Settled("  "), None) == []
    assert it.step(Lulled(500), SPEAKING) == it.step(Settled("hello"), SPEAKING) == []  # a typed turn is answered
    it.speculative = False
    assert it.step(Lulled(600), None) == []
