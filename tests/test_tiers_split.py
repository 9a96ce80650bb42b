"""A long text in chunks: at sentences, within limits, nothing lost."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.pipelines.tiers.split import split
from tests.tones import prose


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("length", "least", "most"), [(100, 1, 1), (500, 2, 3), (2_000, 5, 12), (10_000, 21, 60)])
def test_long_texts_become_so_many_chunks_and_nothing_is_lost(length, least, most):
    text = prose(length)
    chunks = split(text)
    assert least <= len(chunks) <= most
    assert max(map(len, chunks)) <= 500
    assert len(chunks[0]) <= 120
    assert bare("".join(chunks)) == bare(text)


def test_chunks_grow_so_that_something_sounds_soon_and_nothing_waits_later():
    lengths = [len(chunk) for chunk in split("One two three four five. " * 200, most=500, first=60)]
    assert lengths[0] <= 60 < lengths[1] <= 120 < lengths[2] <= 240
    assert all(length <= 2 * before + 30 for before, length in pairwise(lengths))


def test_chunks_end_at_sentences_and_paragraphs():
    text = "Dr. Smith came at 3.5 p.m. sharp. He left.\n\nA new thought, at last. " + "It went on and on. " * 30
    for chunk in split(text):
        assert chunk[-1] == "."
        assert not chunk.endswith(("Dr.", "3."))
    assert split("One.\n\nTwo.") == ["One.", "Two."]


@given(st.text(st.sampled_from("ab c.!?\n,;—é漢。1")), st.integers(20, 60), st.integers(1, 60))
def test_any_text_is_split_within_its_limit_and_keeps_its_words(text, most, first):
    chunks = split(text, most, first)
    assert all(0 < len(chunk) <= most for chunk in chunks)
    assert [c for c in "".join(chunks) if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(any(map(str.isalnum, chunk)) for chunk in chunks)
