"""How much silence stays where segments end, and how much of their end is held back until it is known what follows."""

import numpy as np
import pytest

from server.audio import SAMPLE, milliseconds
from server.pipelines.joins import EDGE_MS, Joiner, Seams

RATE = 16_000


def tone(ms: float) -> bytes:
    t = np.arange(int(RATE * ms / 1000)) / RATE
    return (6_000 * np.sin(2 * np.pi * 220 * t)).astype("<i2").tobytes()


def silence(ms: float) -> bytes:
    return bytes(int(RATE * ms / 1000) * SAMPLE)


@pytest.mark.parametrize(("asked", "left"), [(250, 250), (40, 40), (None, 120)])
def test_between_two_segments_as_much_silence_is_left_as_was_asked_for(asked: float | None, left: float) -> None:
    joiner = Joiner(RATE, Seams(overlap_ms=0))
    out = joiner.push(tone(300) + silence(500)) + joiner.cut(asked) + joiner.push(tone(300)) + joiner.finish()
    assert milliseconds(out, RATE) == pytest.approx(600 + left, abs=6)


def test_of_the_silence_at_the_very_end_a_pause_is_left() -> None:
    joiner = Joiner(RATE)
    out = joiner.push(tone(300) + silence(500)) + joiner.finish()
    assert milliseconds(out, RATE) == pytest.approx(300 + joiner.seams.pause_ms, abs=6)


@pytest.mark.parametrize(("quiet", "held"), [(0, EDGE_MS), (15, 15), (100, 20)])
def test_a_segment_that_is_over_holds_back_what_the_next_may_still_change(quiet: float, held: float) -> None:
    joiner = Joiner(RATE)
    joiner.push(tone(300) + silence(quiet))
    joiner.cut(100)
    assert (joiner.made - joiner.given) / SAMPLE / RATE * 1000 == pytest.approx(held, abs=6)


def test_the_end_is_faded_over_its_whole_length() -> None:
    joiner, original = Joiner(RATE), tone(300)
    out = joiner.push(original) + joiner.finish()
    before, after = (np.frombuffer(pcm, "<i2")[-232:-200].astype(float).std() for pcm in (original, out))  # 13 ms
    assert 0.6 < after / before < 0.85
