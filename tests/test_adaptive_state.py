"""The adaptive stream's decisions, on a clock of our own."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import LimitError, ProtocolError
from server.pipelines import adaptive
from server.pipelines.adaptive import TEXT, Adaptive, Segment, State
from server.pipelines.boundaries import Verdict, judge

STORY = (
    "Good evening, said the fox. Dr. Brown paid 3.50 for it. The night was long and cold, and nobody slept. "
    "In the morning they went on. There was bread, cheese and a little wine."
)


def at(segment: Segment | None) -> tuple[str, str] | None:
    return segment and (segment.text, segment.mode)


def said(stream: Adaptive, now: float) -> list[Segment]:
    found = []
    while segment := stream.take(now):
        found.append(segment)
    return found


def test_the_first_segment_is_short_and_the_later_ones_grow_with_the_buffer() -> None:
    stream = Adaptive(0)
    stream.append(STORY, 0)
    first = stream.take(0)
    assert at(first) == ("Good evening, said the fox.", "stream")
    stream.played(600, 0)
    assert at(stream.take(0.3)) == ("Dr. Brown paid 3.50 for it.", "stream")  # 300 ms in hand: the next sentence
    stream.played(7_000, 0.3)
    assert at(stream.take(0.4)) == (
        "The night was long and cold, and nobody slept. In the morning they went on.",
        "batch",
    )


def test_a_clause_is_enough_to_start_with_but_two_words_are_not() -> None:
    stream = Adaptive(0)
    stream.append("Well, when the rain had stopped, they", 0)
    assert at(stream.take(0)) == ("Well, when the rain had stopped,", "stream")


def test_without_a_boundary_the_first_words_wait_a_moment_and_then_go_whole() -> None:
    stream = Adaptive(0)
    stream.append("once upon a ti", 0)
    assert stream.take(0.05) is None
    assert stream.next_look(0.05) == pytest.approx(0.1)
    assert at(stream.take(0.11)) == ("once upon a", "stream")
    stream.append("me there was", 0.12)
    assert stream.take(0.12) is None
    assert at(stream.take(0.25)) == ("time there", "stream")


def test_words_that_keep_coming_do_not_hold_up_those_that_wait() -> None:
    stream = Adaptive(0)
    for at_ms in range(0, 100, 40):
        stream.append("once more ", at_ms / 1000)
    assert at(stream.take(0.11)) == ("once more once more once more", "stream")


def test_one_word_is_said_when_nothing_follows_it() -> None:
    stream = Adaptive(0)
    stream.append("Hello", 0)
    assert stream.take(0.2) is None
    assert at(stream.take(0.31)) == ("Hello", "stream")


def test_with_audio_in_hand_words_wait_for_the_end_of_their_sentence() -> None:
    stream = Adaptive(0)
    stream.append("One two three. And", 0)
    assert at(stream.take(0)) == ("One two three.", "stream")
    stream.played(5000, 0)
    stream.append(" then, for a very long time, nothing", 1)
    assert stream.take(2) is None
    stream.append(" happened. So", 2)
    assert at(stream.take(2)) == ("And then, for a very long time, nothing happened.", "batch")
    look = stream.next_look(2)
    assert look is not None
    assert 2 < look <= 4.5


def test_closing_says_all_that_is_left() -> None:
    stream = Adaptive(0)
    stream.append("no end here", 0)
    assert stream.take(0) is None
    stream.close(0)
    assert not stream.finished
    assert [at(segment) for segment in said(stream, 0)] == [("no end here", "stream")]
    assert stream.finished
    assert stream.state is State.CLOSED


def test_after_closing_no_text_is_taken_and_the_state_is_named() -> None:
    stream = Adaptive(0)
    stream.close(0)
    stream.close(0)
    with pytest.raises(ProtocolError, match=r"is not active \(state=closed\)"):
        stream.append("late", 1)
    stream.end(State.CANCELLED, 1)
    with pytest.raises(ProtocolError, match="state=cancelled"):
        stream.append("later", 2)


def test_the_first_end_stands_and_forgets_the_text() -> None:
    stream = Adaptive(0)
    stream.append(STORY, 0)
    stream.end(State.CANCELLED, 1)
    stream.end(State.COMPLETED, 2)
    stream.close(3)
    assert stream.state is State.CANCELLED
    assert stream.take(9) is None
    assert stream.pending == 0


def test_what_was_put_back_is_taken_again_from_the_same_place() -> None:
    stream = Adaptive(0)
    stream.append("  Good evening, said the fox. And then", 0)
    first = stream.take(0)
    stream.put_back(0)
    assert stream.pending == len("Good evening, said the fox. And then")
    assert stream.take(0) == first
    stream.close(0)
    assert [segment.offset for segment in said(stream, 0)] == [30]
    assert stream.segments == 2


def test_any_activity_refreshes_the_idle_clock() -> None:
    stream = Adaptive(0)
    assert not stream.expired(29, 30)
    for now in (4, 8, 12, 16, 20, 24, 28, 32, 36):
        stream.append("word. ", now)
        assert not stream.expired(now + 29, 30)
    assert stream.expired(67, 30)


def test_a_stream_is_not_idle_while_its_audio_sounds() -> None:
    stream = Adaptive(0)
    stream.played(60_000, 1)
    assert not stream.expired(90, 30)
    assert stream.expired(91.5, 30)


def test_what_waits_is_bounded() -> None:
    stream = Adaptive(0)
    stream.append("x" * TEXT, 0)
    with pytest.raises(LimitError):
        stream.append("y", 0)


@given(
    st.lists(st.tuples(st.text("ab ,.!?-\n3", max_size=12), st.floats(0, 1), st.floats(0, 3000)), max_size=30),
)
def test_every_word_is_said_once_and_in_order(steps: list[tuple[str, float, float]]) -> None:
    stream, now, found = Adaptive(0), 0.0, []
    for text, wait, ms in steps:
        now += wait
        stream.append(text, now)
        while segment := stream.take(now):
            found.append(segment)
            stream.played(ms, now)
    stream.close(now)
    found += said(stream, now)
    whole = "".join(text for text, _, _ in steps)
    assert "".join("".join(segment.text for segment in found).split()) == "".join(whole.split())
    assert all(whole[segment.offset :].startswith(segment.text) for segment in found)


@given(st.lists(st.text("ab ,.!?-\n3", max_size=30), max_size=8), st.floats(0, 9000), st.integers(1, 40), st.booleans())
def test_a_text_longer_than_one_looks_is_said_all_the_same(texts: list[str], ms: float, look: int, wait: bool) -> None:
    whole, now, found = "".join(texts), 0.0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptive, "LOOK", look)
        stream = Adaptive(0)
        for text in texts:
            stream.append(text, now)
            now += wait
            while segment := stream.take(now):
                found.append(segment)
                stream.played(ms, now)
        stream.close(now)
        found += said(stream, now)
    assert "".join("".join(segment.text for segment in found).split()) == "".join(whole.split())
    assert all(whole[segment.offset :].startswith(segment.text) for segment in found)
    assert all(len(segment.text) <= look or look > len(whole) for segment in found)


@pytest.mark.parametrize("ahead_ms", [0, 60_000])
def test_a_long_text_costs_no_more_than_a_short_one(monkeypatch: pytest.MonkeyPatch, ahead_ms: float) -> None:
    judged = 0

    def counted(*arguments: Any, **more: Any) -> Verdict:
        nonlocal judged
        judged += 1
        return judge(*arguments, **more)

    monkeypatch.setattr(adaptive, "judge", counted)
    for text in ("Dr. " * 24_000, STORY * 400, "x" * 90_000):
        stream, judged = Adaptive(0), 0
        stream.played(ahead_ms, 0)
        stream.append(text, 0)
        segment = stream.take(0.2)
        assert segment
        assert len(segment.text) <= adaptive.LOOK
        assert judged <= adaptive.LOOK


@given(st.text("ab ,.", min_size=1, max_size=30), st.floats(0, 5000))
def test_looking_when_told_always_empties_a_silent_stream(text: str, ms: float) -> None:
    """A stream that gets no more text says everything it has, if looked at when it says so."""
    stream, now = Adaptive(0), 0.0
    stream.append(text, now)
    stream.played(ms, now)
    for _ in range(200):
        while stream.take(now):
            pass
        look = stream.next_look(now)
        if look is None:
            break
        assert look > now
        now = look
    assert stream.pending == 0
