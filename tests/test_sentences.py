"""Sentences out of a text: where they end, that nothing is lost, that no input is slow."""

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pipelines import boundaries
from server.pipelines.sentences import LONGEST, Splitter


def split(text: str, **options: bool) -> list[str]:
    """Character by character, as the slowest of models would."""
    splitter = Splitter(**options)
    return [piece for c in text for piece in splitter.push(c)] + splitter.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you? I'm fine!", ["Hello there.", "How are you?", "I'm fine!"]),
        ("Dr. Smith paid $3.14 at 10:30 p.m. Then he left.", ["Dr. Smith paid $3.14 at 10:30 p.m.", "Then he left."]),
        ("The U.S. Army came, e.g. on foot. Fine.", ["The U.S. Army came, e.g. on foot.", "Fine."]),
        ("Steps: 1. Open it. 2. Walk in.\n3. Sit.\n", ["Steps: 1. Open it.", "2. Walk in.", "3. Sit."]),
        ("I was born in 1984. Then we moved.", ["I was born in 1984.", "Then we moved."]),
        ("你好。我很好！你呢？", ["你好。", "我很好！", "你呢？"]),
        ("「元気？」と彼は言った。はい。", ["「元気？」", "と彼は言った。", "はい。"]),
        ("मेरा नाम राम है। आप कैसे हैं?", ["मेरा नाम राम है।", "आप कैसे हैं?"]),
        ("See https://example.com/a.b?c=d. It is good.", ["See https://example.com/a.b?c=d.", "It is good."]),
        ('He said "Stop! Now." Then he ran.', ['He said "Stop!', 'Now."', "Then he ran."]),
        ("“Really?” he asked. “Yes.” She left.", ["“Really?” he asked.", "“Yes.”", "She left."]),
        ("Well... I don't know. Well… maybe. Really?!", ["Well...", "I don't know.", "Well… maybe.", "Really?!"]),
        ("Great! 😀 How are you? 😀", ["Great!", "😀 How are you?", "😀"]),
        ("A list:\n- one\n- two\n\nEnd", ["A list:", "- one", "- two", "End"]),
        ("A line that is wrapped\nin the middle.\nA new one", ["A line that is wrapped\nin the middle.", "A new one"]),
        ("  \n ", []),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert split(text) == expected
    splitter = Splitter()
    assert splitter.push(text) + splitter.finish() == expected


def test_eager_lets_the_first_clause_go_and_only_the_first() -> None:
    text = "Yes, of course I can do that, and with pleasure, since you ask so kindly. First we go, you and I, to town."
    assert split(text, eager=True) == [
        "Yes, of course I can do that,",
        "and with pleasure, since you ask so kindly.",
        "First we go, you and I, to town.",
    ]
    assert split("It costs about 3,000 dollars.", eager=True) == ["It costs about 3,000 dollars."]
    assert split("我今天想和你一起去，好吗？", eager=True) == ["我今天想和你一起去，", "好吗？"]


def test_a_sentence_too_long_is_cut_at_a_comma_or_a_space() -> None:
    pieces = split("and so on, with this and that " * 40)
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert all(piece.endswith(",") for piece in pieces[:-1])
    assert all(len(piece) <= LONGEST for piece in split("word " * 400))


def test_a_cut_tears_no_letter_from_its_marks() -> None:
    text = "x" * (LONGEST - 1) + "e\u0301\u0301" + "y" * 20
    first, second = split(text)
    assert first.endswith("x")
    assert second.startswith("e\u0301\u0301")


SAMPLES = """Hello world Dr. Mrs. e.g. U.S. p.m. 3.14 1,000 2. 10:30 https://a.b/c?d=e.f. end. what? no! “quoted”
(said.) 你好。 我是，一个人！ नमस्ते। क्या 👩\u200d👩\u200d👧 … - * Zürich, l'été; so: a—b ؟ ۔ ok... !? A. iv."""
words = st.sampled_from(SAMPLES.split())
texts = st.one_of(
    st.lists(st.one_of(words, st.text(max_size=8)), max_size=120).map(" ".join),
    st.text(max_size=600),
    st.lists(words, max_size=200).map("".join),
)


@settings(max_examples=150, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 700), max_size=40), eager=st.booleans(), idle=st.booleans())
def test_nothing_is_lost_reordered_or_torn(text: str, cuts: list[int], eager: bool, idle: bool) -> None:
    splitter, pieces = Splitter(eager=eager), []
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    for a, b in itertools.pairwise(edges):
        pieces += splitter.push(text[a:b])
        pieces += splitter.idle() if idle else []
    pieces += splitter.finish()
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() and 0 < len(piece) <= LONGEST + 64 for piece in pieces)


@settings(max_examples=80, deadline=None)
@given(st.lists(words.filter(str.isascii), max_size=200))
def test_words_stay_whole(parts: list[str]) -> None:
    assert [word for piece in split(" ".join(parts)) for word in piece.split()] == parts


@pytest.mark.parametrize(
    "text",
    ["3.5 " * 1600, "e.g. " * 800, "x" * 16600, "a, " * 4000, "Hi. " * 3000, "\n" * 5000, ".. " * 3000, '."' * 4000],
)
@pytest.mark.parametrize("whole", [True, False], ids=["one chunk", "characters"])
def test_work_grows_with_the_text_and_no_faster(text: str, whole: bool) -> None:
    def lines_run(text: str) -> int:
        count = 0

        def trace(frame: object, event: str, argument: object) -> object:
            nonlocal count
            count += 1
            return trace

        splitter, before = Splitter(), sys.gettrace()
        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            for portion in [text] if whole else text:
                splitter.push(portion)
            splitter.finish()
        finally:
            sys.settrace(before)
        return count

    short = text[: len(text) // 4]
    assert lines_run(text[: 4 * len(short)]) < 5 * lines_run(short) + 2000


def test_no_mark_is_judged_by_more_than_its_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    real = boundaries._detector("en")

    class Watched:
        def classify(self, text: str, *args: object, **options: object) -> str:
            looked.append(len(text))
            return real.classify(text, *args, **options)

    monkeypatch.setattr(boundaries, "_detector", lambda language: Watched())
    Splitter().push("It is 3.5 now. " * 1100)
    assert len(looked) > 2000
    assert max(looked) <= 200
