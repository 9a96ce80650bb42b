"""The delay pattern as an automaton, against the rules it stands for."""

import numpy as np
import pytest

from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS, delayed
from server.pipelines.tts._higgs.phases import bounds, following, phase


@pytest.mark.parametrize("first", [None, 1, 4, 8, 9, 30])
def test_every_row_is_bounded_as_the_rules_say(first: int | None) -> None:
    """`first`: the row in which codebook 5 says EOS for the first time."""
    may, after = bounds(), following()
    rows = np.full((1, BOOKS), BOS)
    at = phase(rows)
    for number in range(1, 45):
        assert at == phase(rows), "going on and coming back must agree"
        least, largest = may[at]
        for book in range(BOOKS):
            ended = first is not None and number > first and book < number - first
            only = BOS if book >= number else EOS if ended else None
            assert (least[book], largest[book]) == ((0, EOS) if only is None else (only, only))
        wanted = np.full(BOOKS, 7)
        wanted[5] = EOS if number == first else 7
        row = np.clip(wanted, least, largest)
        if number == first and number <= 5:
            row[0] = EOS  # codebook 5 has not begun
        rows = np.concatenate([rows, row[None]])
        at = after[at, row.max()]


def test_what_a_voice_said_is_in_no_phase_it_could_not_reach() -> None:
    rows = delayed(np.random.default_rng(0).integers(0, 1024, (20, BOOKS)))
    for length in range(1, len(rows)):
        least, largest = bounds()[phase(rows[:length])]
        assert (rows[length] >= least).all()
        assert (rows[length] <= largest).all()
