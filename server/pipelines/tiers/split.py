"""A long text in pieces to be spoken one after the other: at paragraphs and sentences, none longer than `most`. Pure.

The first piece is short so that something sounds soon; each after it may be twice as long, up to `most`, so that an
engine twice as fast as speech never leaves a gap.
"""

import re

from server.pipelines.boundaries import Verdict, has_words, judge, next_mark, past

_PARAGRAPH = re.compile(r"\n\s*\n")
_SPACE = re.compile(r"\s+")
_CLAUSE = re.compile(r"[,;:–—，、；：]\s*")


def split(text: str, most: int = 500, first: int = 120, language: str = "en") -> list[str]:
    """`text` in pieces of `most` characters at the most, in order; white space is one space. Pieces that hold nothing
    to say join their neighbour. No other character is lost."""
    pieces: list[str] = []
    limit = min(first, most)
    for paragraph in _PARAGRAPH.split(text):
        current = ""
        for sentence in _sentences(_SPACE.sub(" ", paragraph).strip(), language):
            for part in _short(sentence, limit if not pieces and not current else most):
                joined = f"{current} {part}" if current else part
                if len(joined) <= limit:
                    current = joined
                    continue
                if current:
                    pieces.append(current)
                    limit = min(most, 2 * limit)
                current = part
        if current:
            pieces.append(current)
            limit = min(most, 2 * limit)
    return _spoken(pieces, most)


def _sentences(text: str, language: str) -> list[str]:
    found, begin, mark = [], 0, next_mark(text, 0)
    while mark >= 0:
        end = past(text, mark)
        if judge(text, mark, begin=begin, last=True, language=language) is Verdict.END:
            found.append(text[begin:end].strip())
            begin = end
        mark = next_mark(text, end)
    rest = text[begin:].strip()
    return found + ([rest] if rest else [])


def _short(sentence: str, most: int) -> list[str]:
    """One sentence in pieces of `most` characters: at clauses, else at words, else anywhere."""
    pieces = []
    while len(sentence) > most:
        cut = _cut(sentence, most)
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence] if sentence else pieces


def _cut(sentence: str, most: int) -> int:
    clauses = [m.end() for m in _CLAUSE.finditer(sentence, most // 2) if len(sentence[: m.end()].rstrip()) <= most]
    if clauses:
        return clauses[-1]
    space = sentence.rfind(" ", 1, most + 1)
    return space if space > 0 else most


def _spoken(pieces: list[str], most: int) -> list[str]:
    """A piece of mere punctuation goes with the one before, else away with it, else with the one after."""
    kept: list[str] = []
    for piece in pieces:
        if has_words(piece, 0, len(piece)):
            kept.append(piece)
        elif kept and len(kept[-1]) + 1 + len(piece) <= most:
            kept[-1] += f" {piece}"
    return kept
