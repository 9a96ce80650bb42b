"""Numbers in words, both ways, as far as small talk goes. Pure."""

import re

_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_ONES = _WORDS.split()
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SPOKEN = {"plus": "+", "minus": "-", "times": "*", "x": "*", "divided by": "/"}


def said(number: int) -> str:
    """0 to 999 in words; anything else in digits."""
    if not 0 <= number < 1000:
        return str(number)
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    return f"{_ONES[number // 100]} hundred" + (f" and {said(number % 100)}" if number % 100 else "")


_VALUES = {said(n): n for n in range(100)} | {said(n).replace("-", " "): n for n in range(100)}


def value(words: str) -> int | None:
    """What "twenty-one", "a thousand" or "42" says, or the part of it that comes first; None where it is no number."""
    words = words.strip(" .,!?")
    if re.fullmatch(r"\d{1,6}", words):
        return int(words)
    if found := re.search(r"\b(hundred|thousand|million)\b", words):
        return {"hundred": 100, "thousand": 1000, "million": 1_000_000}[found[1]]
    return _VALUES.get(words) if words in _VALUES else _VALUES.get(words.split(" ")[0] if words else "")


def summed(left: str, sign: str, right: str) -> str:
    """The answer to "three times four"; empty where the operands are no numbers."""
    a, b = value(left.split()[-1] if value(left) is None else left), value(right)
    if a is None or b is None:
        return ""
    sign = _SPOKEN.get(sign, sign)
    if sign == "/" and b == 0:
        return "Nothing can be divided by zero, not even by me."
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else 0}[sign]
    return f"That makes {_rounded(result)}."


def _rounded(number: float) -> str:
    whole = round(number)
    if abs(number - whole) < 1e-9:
        return f"minus {said(-whole)}" if whole < 0 else said(whole)
    return f"{number:g}" if abs(number * 100 - round(number * 100)) < 1e-9 else f"about {number:.2f}"
