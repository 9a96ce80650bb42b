"""The thoughts of reasoning models, taken out of what they write."""

import pytest

from server.pipelines.llm._thoughts import Thoughts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think>\n\nHi <think> x", "Hi <think> x"),
        (" <THINKING>a</think></Thinking>Hi", "Hi"),
        ("<thin ice>", "<thin ice>"),
        (" < 3", " < 3"),
        ("<think>never closed", ""),
        ("  Hi", "  Hi"),
        ("<", "<"),
        ("", ""),
    ],
)
def test_thoughts(text: str, expected: str) -> None:
    for size in range(1, 12):
        thoughts = Thoughts()
        pieces = [thoughts.push(text[i : i + size]) for i in range(0, len(text), size)]
        assert "".join(pieces) + thoughts.close() == expected
