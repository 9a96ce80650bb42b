"""The beginning of a reply. What an engine puts before its first sound (flite: 0.2 s of silence) is waited for, too."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from server.audio import milliseconds, size
from server.pipelines.engines import Speaker, Speech
from server.pipelines.joins import WINDOW_MS, Seams, silence_before
from server.pipelines.timing import later

LONGEST_MS = 1_000.0  # who is silent for so long means it
SEAMS = Seams()


class Opening:
    """`speaker`, of `rate` Hz, for one reply: its first utterance begins with its first sound."""

    def __init__(self, speaker: Speaker, rate: int) -> None:
        self._speaker, self._rate, self._first = speaker, rate, True

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        first, self._first = self._first, False
        async with (
            aclosing(self._speaker.speak(text)) as speech,
            aclosing(opened(speech, self._rate) if first else speech) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        await self._speaker.close()


async def opened(speech: AsyncIterator[Speech], rate: int) -> AsyncGenerator[Speech, None]:
    """`speech` from just before its first sound on, its words moved with it. What does not sound at all, or not soon,
    comes as it is."""
    held, gone_ms = Speech(b""), None
    async for piece in speech:
        if gone_ms is None:
            piece = held = Speech(held.pcm + piece.pcm, held.words + piece.words)
            if (drop := _silence(held.pcm, rate)) is None:
                continue
            piece, gone_ms = replace(held, pcm=held.pcm[drop:]), milliseconds(held.pcm[:drop], rate)
        yield later(piece, 0, -gone_ms)
    if gone_ms is None and held.pcm:
        yield held


def _silence(pcm: bytes, rate: int) -> int | None:
    """Bytes that may go; None where it is not known yet."""
    quiet = silence_before(pcm, rate, SEAMS.floor)
    if len(pcm) - quiet >= size(WINDOW_MS, rate):
        return max(0, quiet - size(SEAMS.lead_ms, rate))
    return 0 if milliseconds(pcm, rate) > LONGEST_MS else None
