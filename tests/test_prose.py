"""Prose: what is taken out of a model's text, that cutting it differently changes nothing, that plain text passes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pipelines.prose import Prose, speakable

NAMES = ("Mira", "Captain Rex")


def shown(text: str, **options: bool) -> str:
    prose = Prose(NAMES, **options)
    return prose.push(text) + prose.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mira: Hello there!", "Hello there!"),
        ("MIRA : Hello", "Hello"),
        ("**Mira:** Hello\n**captain rex**: Ahoy", "Hello\nAhoy"),
        ("I saw Mira: she waved.", "I saw Mira: she waved."),
        ("Admiral: no", "Admiral: no"),
        ("<Mira>Hello</Mira> you", "Hello you"),
        ("<MIRA> Hi <b>x</b>, a < b", "Hi <b>x</b>, a < b"),
        ("Ahoy, <captain rex> said", "Ahoy, said"),
        ("<think>secret <b> *x*</think>\n\nAnswer", "Answer"),
        ("One <THINK>hm</Think>two", "One two"),
        ("<think>never closed", ""),
        ("This is **bold**, *truly* good, ***both***.", "This is bold, truly good, both."),
        ("*smiles warmly* Hello. *waves* Bye.", "Hello. Bye."),
        ("Well, *laughs softly* that is it.", "Well, that is it."),
        ("You should *never* do that. *The Hobbit* is a book.", "You should never do that. The Hobbit is a book."),
        ("Hi *unclosed thing", "Hi unclosed thing"),
        ("# Title\n\n- one\n* two\n  + three\n1. four\n---\n> end", "Title\n\none\ntwo\nthree\n1. four\nend"),
        ("#1 in the list, -5 degrees - cold", "#1 in the list, -5 degrees - cold"),
        ("See [the **docs**](https://x.y/z), [1] or [x] (y)", "See the docs, [1] or [x] (y)"),
        ("Run `make run` now:\n```sh\nmake run\n```\nDone", "Run make run now:\nmake run\nDone"),
        ("2*3*4, 2**3, snake_case_name, _it_, __init__, ____", "2*3*4, 2**3, snake_case_name, it, init, ____"),
        ("~5 is ~~not~~ near", "~5 is not near"),
        ("", ""),
    ],
)
def test_what_is_taken_out(text: str, expected: str) -> None:
    assert shown(text) == expected
    prose = Prose(NAMES)
    assert "".join(map(prose.push, text)) + prose.close() == expected


def test_stage_directions_stay_when_asked() -> None:
    assert shown("*smiles warmly* Hello, *truly*.", directions=True) == "smiles warmly Hello, truly."


PARTS = """<Mira>|</mira>|Mira:|Captain Rex: |<think>|</think>|**|*|***|_|__|`|```|
|- |---|# |[a](b)|[|](|)|~~|~|<|*smiles*
|*laughs a lot* |so *very* much| |  |Hello|I|2|*2|. |!|Mi|Cap|你好。|İ|é|* |> |x_y|"|,"""
parts = st.sampled_from(PARTS.split("|"))
marked = st.one_of(st.lists(parts, max_size=40).map("".join), st.text(max_size=80))


@settings(max_examples=400, deadline=None)
@given(text=marked, cuts=st.lists(st.integers(0, 200), max_size=30), directions=st.booleans())
def test_how_the_text_is_cut_changes_nothing(text: str, cuts: list[int], directions: bool) -> None:
    prose = Prose(NAMES, directions=directions)
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    pieces = [prose.push(text[a:b]) for a, b in itertools.pairwise(edges)]
    assert "".join(pieces) + prose.close() == shown(text, directions=directions)


words = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="<*_`~["), min_size=1, max_size=9)
starts = words.filter(lambda word: word[0].isalnum() and word[0].lower() not in "mc")


@settings(max_examples=200, deadline=None)
@given(first=starts, rest=st.lists(words.map(" {}".format), max_size=20))
def test_plain_prose_passes_as_it_is_and_at_once(first: str, rest: list[str]) -> None:
    prose = Prose(NAMES)
    assert [prose.push(token) for token in (first, *rest)] == [first, *rest]
    assert prose.close() == ""


def test_only_what_may_be_taken_out_is_held_back() -> None:
    prose = Prose(NAMES)
    told = [prose.push(c) for c in "Mi a<mi> [b] c*d"]
    assert told == ["", "", "Mi ", "a", "", "", "", "<mi>", " ", "", "", "", "[b] ", "c", "", "*d"]


def test_work_does_not_grow_with_what_was_said() -> None:
    prose = Prose(NAMES)
    assert prose.push("[" * 20_000 + "*a" * 20_000 + "<m" * 20_000).startswith("[")
    prose.close()


@given(st.text())
def test_speakable_keeps_the_length(text: str) -> None:
    assert len(speakable(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi 😀 you", "Hi   you"),
        ("1️⃣ first", "1   first"),
        ("👩\u200d👩\u200d👧x 🇩🇪", "     x   "),
        ("नमस्ते क्\u200dष می\u200cخواهم", "नमस्ते क्\u200dष می\u200cخواهم"),
        ("5° and 3.50 €, 20 % & more!", "5° and 3.50 €, 20 % & more!"),
        ("a → b [c] * d_e", "a   b  c    d e"),
    ],
)
def test_what_cannot_be_said_becomes_spaces(text: str, expected: str) -> None:
    assert speakable(text) == expected
