"""Where a chunk ends: at a real boundary, after so many tokens, and with nothing lost."""

import pytest

from server.pipelines.chunking import Reason, Stop
from server.pipelines.chunks import Cutter
from tests.llm_server import TEXT, tokens
from tests.scripted_llm import SENTENCE


def cut(text: str, stop: Stop = SENTENCE, before: str = "") -> tuple[list[str], Reason | None, list[str]]:
    cutter = Cutter(stop, before)
    taken: list[str] = []
    waiting = tokens(text)
    while waiting and cutter.reason is None:
        cutter.push(waiting.pop(0))
        taken += iter(cutter.take, None)
    return taken, cutter.reason, [*cutter.left, *waiting]


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("Good evening.", " Dr. Smith"),
        ("Dr. Smith paid 3.14 dollars.", " It was much."),
        ("He said “Stop! Now.”", " Then he ran."),
        ('He said "Are you sure? I am not." and left.', " Then"),
        ("It (was it? Yes.) was late.", " Then"),
        ("Really?!", " Yes"),
        ("你好。", "我很好"),
        ("See https://a.b/c?d=e.f now.", " Yes"),
        ("We live in the U.S. Army base.", " Yes"),
        ("1. Open the door.", " 2. Walk in."),
        ("One\n\n", "Two"),
        ("5'10\" is tall.", " Yes"),
    ],
)
def test_a_chunk_ends_at_a_real_boundary_and_before_the_next_token(first: str, rest: str) -> None:
    taken, reason, left = cut(first + rest)
    assert ("".join(taken), "".join(left)) == (first, rest)
    assert reason is Reason.SENTENCE_BOUNDARY


def test_a_quote_that_is_never_closed_does_not_hold_for_ever() -> None:
    text = '"Well. ' + "They went on and on. " * 40
    taken, reason, _ = cut(text)
    assert reason is Reason.SENTENCE_BOUNDARY
    assert 200 < len("".join(taken)) < 300


def test_a_delta_with_the_boundary_in_it_is_cut() -> None:
    cutter = Cutter(SENTENCE)
    cutter.push("It is. And")
    assert list(iter(cutter.take, None)) == ["It is."]
    assert list(cutter.left) == [" And"]


def test_tokens_come_as_soon_as_they_are_certain() -> None:
    cutter = Cutter(SENTENCE)
    given = []
    for delta in ["Dr", ".", " Sm", "ith", " no", ".", " ”", " Next"]:
        cutter.push(delta)
        given.append("".join(iter(cutter.take, None)))
    assert given == ["Dr", ".", " Sm", "ith", " no", ".", "", ""]
    assert list(cutter.left) == [" ”", " Next"]


def test_max_tokens_or_the_boundary_whichever_comes_first() -> None:
    assert cut(TEXT, Stop(max_tokens=2))[:2] == (["Good", " evening"], Reason.MAX_TOKENS)
    assert cut(TEXT, Stop(max_tokens=2, sentence=True))[:2] == (["Good", " evening"], Reason.MAX_TOKENS)
    assert cut(TEXT, Stop(max_tokens=30, sentence=True))[:2] == (["Good", " evening", "."], Reason.SENTENCE_BOUNDARY)


def test_a_sentence_begun_before_is_known() -> None:
    assert "".join(cut("? I never,” she said. Then", before=" “Is that so")[0]) == "? I never,” she said."
    assert "".join(cut(". Open it. Then", before="Steps: 1")[0]) == ". Open it."
