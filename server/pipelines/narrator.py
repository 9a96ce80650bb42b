"""Texts in, one seamless stream of speech out: sentences, the engine's turns, joins and the rate asked for."""

import asyncio
import logging
import re
import unicodedata
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from server.audio import SAMPLE, Resampler, milliseconds
from server.errors import ParleyError, TTSError
from server.pipelines.admission import Stream
from server.pipelines.boundaries import Verdict, has_words, judge, judge_clause, next_mark, past
from server.pipelines.engines import Speaker, Speech, Word
from server.pipelines.joins import Joiner, Seams
from server.pipelines.sentences import Splitter
from server.pipelines.silenced import Silenced
from server.pipelines.timing import later

log = logging.getLogger(__name__)
FRAME_MS = 1024 / 22_050 * 1000  # what sizes of chunks are counted in
LONGEST_OVERLAP_MS = 80.0
EAGER_WORDS = 2  # the shortest clause that is said on its own
_ASCII = str.maketrans("‘’‚‛“”„‟«»–—―−", '\'\'\'\'""""""----')
PORTION = 400  # characters looked at for the next sentence, so that a long text keeps nobody waiting
_PAUSES = ((re.compile(r"[.!?…。！？][\"'”’)\]]*$"), 250.0), (re.compile(r"[,;:—–、，；：][\"'”’)\]]*$"), 120.0))


@dataclass(frozen=True)
class Preset:
    """Chunk sizes in frames of 46.4 ms: of the first chunk, of the later ones, and how much segments may overlap.
    `eager`: to a listener who hears nothing the first clause is said before the rest of its sentence is made."""

    first: int
    later: int
    overlap: int
    eager: bool = False

    @property
    def seams(self) -> Seams:
        return Seams(overlap_ms=min(self.overlap * FRAME_MS, LONGEST_OVERLAP_MS))


PRESETS = {
    "aggressive": Preset(4, 8, 2, eager=True),
    "balanced": Preset(6, 10, 2),
    "conservative": Preset(8, 12, 3),
}
DEFAULT = Preset(8, 16, 12)


class Chunks:
    """PCM regrouped: the first chunk of one size (the sooner it comes), the later ones of another. Pure."""

    def __init__(self, first: int, later: int) -> None:
        self._size, self._later = max(first, SAMPLE), max(later, SAMPLE)
        self._rest = bytearray()

    @classmethod
    def of(cls, preset: Preset, rate: int) -> "Chunks":
        first, later = (round(frames * FRAME_MS * rate / 1000) * SAMPLE for frames in (preset.first, preset.later))
        return cls(first, later)

    def push(self, pcm: bytes) -> list[bytes]:
        """The chunks that are full now."""
        self._rest += pcm
        full = []
        while len(self._rest) >= self._size:
            full.append(bytes(self._rest[: self._size]))
            del self._rest[: self._size]
            self._size = self._later
        return full

    def flush(self) -> list[bytes]:
        """What is left, as a short one."""
        rest = [bytes(self._rest)] if self._rest else []
        self._rest.clear()
        return rest


class Narrator:
    """One voice reading texts one after the other, at `rate` Hz. Word times are ms from the beginning of its first."""

    def __init__(
        self, speaker: Speaker, source_rate: int, stream: Stream, *, rate: int = 0, seams: Seams | None = None
    ):
        self.rate = rate or source_rate
        self.made_ms = 0.0  # given out so far
        self._speaker, self._stream = speaker, stream
        self._joiner = Joiner(source_rate, seams)
        self._resampler = Resampler(source_rate, self.rate)

    @property
    def heard_at(self) -> float:
        """When the listener, who plays what comes as it comes, has heard everything; seconds on the loop's clock."""
        return self._stream.listener.dry_at

    async def say(self, text: str, *, eager: bool = False) -> AsyncGenerator[Speech, None]:
        """`text` as speech, piece by piece, with words whose `start` and `end` are characters of `text`. `eager`: see
        `Preset`.

        Read it within `aclosing`. Raises `TTSError`, and `EngineBusy` if the engine never had a place for this one."""
        self._stream.begin()
        for offset, sentence in sentences_of(plain(text), eager=eager and not self._stream.listener.sent_ms):
            words: list[Word] = []
            async with aclosing(self._speaker.speak(sentence)) as pieces:
                while piece := await self._turn(pieces):
                    words += later(piece, offset, 0).words
                    if speech := self._given(self._joiner.push(piece.pcm), words):
                        yield speech
                        await asyncio.sleep(0)  # an engine far ahead never makes us wait, and so would nobody else run
            if speech := self._given(self._joiner.cut(pause_after(sentence)), words, last=True):
                yield speech

    def finish(self) -> Speech:
        """The very end, faded out."""
        return self._given(self._joiner.finish(), [], last=True, over=True) or Speech(b"")

    async def _turn(self, pieces: AsyncGenerator[Speech, None]) -> Speech | None:
        async with self._stream.turn():
            try:
                return await anext(pieces, None)
            except ParleyError:
                raise
            except Exception as error:  # whoever asked is to be told as of any other failure
                log.exception("a voice failed")
                raise TTSError(f"internal error: {type(error).__name__}", code="internal") from error

    def _given(self, pcm: bytes, words: list[Word], *, last: bool = False, over: bool = False) -> Speech | None:
        """What goes out: `pcm` at our rate with the words whose place is known; they leave `words`."""
        pcm = self._resampler.push(pcm, over) if pcm or over else b""
        ms = milliseconds(pcm, self.rate)
        self.made_ms += ms
        if ms:
            self._stream.sent(ms)
        told = self._placed(words, last)
        return Speech(pcm, told) if pcm or told else None

    def _placed(self, words: list[Word], last: bool) -> tuple[Word, ...]:
        """The words that have been given out by now. The last ones end where their segment does, silence cut off."""
        if not words or (self._joiner.origin is None and not last):
            return ()
        begin, given = self._ms(self._joiner.origin or 0), self._ms(self._joiner.made if last else self._joiner.given)
        told = [w for w in words if last or begin + w.end_ms <= given]
        del words[: len(told)]
        return tuple(
            replace(w, start_ms=min(begin + w.start_ms, given), end_ms=min(begin + w.end_ms, given)) for w in told
        )

    def _ms(self, count: int) -> float:
        return count / SAMPLE / self._joiner.rate * 1000


def plain(text: str) -> str:
    """`text` with typographic quotes and dashes as ASCII and a space for each emoji; as long as before."""
    return text.translate(_PLAIN)


def sentences_of(text: str, *, eager: bool = False) -> Iterator[tuple[int, str]]:
    """The sentences of `text`, each with its offset, found as they are asked for; `eager`: the first clause, if there
    is one, comes alone."""
    at = 0
    if eager and (clause := _first_clause(text)):
        at = text.index(clause) + len(clause)
        yield at - len(clause), clause
    for sentence in _sentences(text, at):
        at = text.index(sentence, at)
        yield at, sentence
        at += len(sentence)


def _sentences(text: str, start: int) -> Iterator[str]:
    splitter = Splitter()
    for begin in range(start, len(text), PORTION):
        yield from splitter.push(text[begin : begin + PORTION])
    yield from splitter.finish()


def _first_clause(text: str) -> str:
    """The first clause of at least two words, where one ends before the first sentence does; else nothing."""
    text, at = text[:PORTION], 0
    while (mark := next_mark(text, at, clauses=True)) >= 0 and not _ends(text[:mark], at):
        at = mark + 1
        enough = len(text[:mark].split()) >= EAGER_WORDS and has_words(text, at, len(text))
        if enough and judge_clause(text, mark) is Verdict.END:
            return text[:at].strip()
    return ""


def _ends(text: str, start: int) -> bool:
    """Whether a sentence ends in `text` after `start`."""
    while (mark := next_mark(text, start)) >= 0:
        if judge(text, mark) is Verdict.END:
            return True
        start = past(text, mark)
    return False


def pause_after(text: str) -> float:
    """How much silence, in ms, may stay where a segment ends as `text` does."""
    return next((ms for pattern, ms in _PAUSES if pattern.search(text.rstrip())), 40.0)


def _picture(char: str) -> bool:
    category = unicodedata.category(char)
    return (
        category in ("Cs", "Co", "Cn") or (category in ("So", "Sk") and char > "\u2190") or char in "\u200d\ufe0f\u20e3"
    )


_PLAIN = Silenced(_picture, _ASCII)


def described(words: Sequence[Word], text: str, offset: int = 0) -> list[dict[str, Any]]:
    """Word timings as a client is told: which word, its characters in the text (itself at `offset`), when it sounds."""
    return [
        {
            "word": text[w.start : w.end],
            "start": w.start + offset,
            "end": w.end + offset,
            "start_ms": round(w.start_ms, 1),
            "end_ms": round(w.end_ms, 1),
        }
        for w in words
    ]
