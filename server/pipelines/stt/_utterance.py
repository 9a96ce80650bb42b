"""What one speaker says from beginning to end, and what must go to a decoder next for it to be heard. Pure."""

import itertools
import re
from dataclasses import dataclass, field
from typing import Literal

from server.audio import SAMPLE
from server.pipelines.engines import HEARING_RATE

SECOND = HEARING_RATE * SAMPLE  # bytes
CHUNK = SECOND // 8  # at most this at once, so that who catches up delays the others by some 15 ms, no more
SEGMENT = 30 * SECOND  # a decoder's work grows with the utterance, and this is also what a dead one must hear again
BACKLOG = 60 * SECOND  # what may wait for a decoder; beyond it the oldest is dropped and counted
ACQUAINTANCE = SECOND * 3 // 2  # so much of a new voice tells its cepstral mean
VOICED = 2  # words that make a voice: a cough is heard as one, and must not be what it is remembered by
LATE = 6 * SECOND  # after so much it is no longer worth hearing again

Step = tuple[Literal["begin", "audio", "end"], bytes]
_numbers = itertools.count(1)


@dataclass
class VoiceMean:
    """The cepstral mean of a speaker: what voice, microphone and room add to everything said. Without it twice as many
    words are misheard, so it is kept from one utterance to the next."""

    value: str = ""


def clean(text: str) -> str:
    """The decoder's text as words: lower case, without fillers (`<sil>`, `[NOISE]`, `++UH++`) and the numbers of
    pronunciations (`the(2)`)."""
    words = re.sub(r"<[^>]*>|\[[^\]]*\]|\+\+\w*\+\+|\(\d+\)", "", text.lower())
    return " ".join(words.split())


@dataclass(eq=False)
class Utterance:
    """Takes PCM, gives out steps for a decoder, and takes its answers. At most one step is unanswered at a time
    (`begin` has no answer), which bounds what is in flight and shares a decoder's process fairly.

    All audio of the segment is kept: if the decoder dies, `replay` starts over on another."""

    mean: VoiceMean
    number: int = field(default_factory=lambda: next(_numbers) & 0xFFFFFFFF)
    text: str = ""
    result: str | None = None  # the final text, once there
    deaths: int = 0  # decoders that died on it
    dropped: int = 0  # bytes
    _learnt: str = ""  # the mean of a new voice, from this utterance
    _before: str = ""  # the text of the segments before this one
    _audio: bytearray = field(default_factory=bytearray)
    _sent: int = 0
    _begun: bool = False
    _awaited: Literal["", "audio", "end"] = ""
    _ending: bool = False
    _learning: bool = False

    def push(self, pcm: bytes) -> None:
        """Take whole samples of PCM at 16 kHz."""
        self._audio += pcm[: len(pcm) // SAMPLE * SAMPLE]
        if (excess := len(self._audio) - self._sent - BACKLOG) > 0:
            del self._audio[self._sent : self._sent + excess]
            self.dropped += excess

    def end(self) -> None:
        """No more audio comes. With none at all there is nothing to recognise."""
        self._ending = True
        if not self._audio and not self._begun:
            self.result = self.text

    @property
    def unheard(self) -> bool:
        """There is audio that no decoder has taken, so one is needed."""
        return self._sent < len(self._audio)

    @property
    def settled(self) -> bool:
        """All audio has been heard and answered."""
        return not self._awaited and not self.unheard

    def step(self) -> Step | None:
        """What to send to the decoder now, if anything."""
        if self._awaited or self.result is not None or not (self._audio or self._begun):
            return None
        if not self._begun:
            self._begun = True
            return "begin", (self.mean.value or self._learnt).encode()
        if self._learns():
            self._learning = True
            return self._end()
        if self.unheard and self._sent < SEGMENT:
            chunk = bytes(self._audio[self._sent : self._sent + CHUNK])
            self._sent += len(chunk)
            self._awaited = "audio"
            return "audio", chunk
        return self._end() if self._ending or self._sent >= SEGMENT else None

    def _learns(self) -> bool:
        """A new voice is heard twice: once for its mean, and once more with it."""
        enough = self._sent >= ACQUAINTANCE or (self._ending and self.settled)
        known = self.mean.value or self._learnt
        return not known and bool(self.text) and enough and self._sent < LATE

    def _end(self) -> Step:
        self._awaited = "end"
        return "end", b""

    def heard(self, text: str) -> None:
        """The decoder's answer to `audio`."""
        self._awaited = ""
        self.text = _join(self._before, clean(text))

    def ended(self, mean: str, text: str) -> None:
        """The decoder's answer to `end`."""
        self._awaited = ""
        if self._learning:
            self._learnt = mean
            self.replay()
            return
        if len(clean(text).split()) >= (1 if self.mean.value else VOICED):
            self.mean.value = mean
        self.text = self._before = _join(self._before, clean(text))
        del self._audio[: self._sent]
        self._sent, self._begun = 0, False
        if self._ending and not self._audio:
            self.result = self.text

    def replay(self) -> None:
        """Begin this segment again from its first sample."""
        self._sent, self._begun, self._awaited, self._learning = 0, False, "", False


def _join(*texts: str) -> str:
    return " ".join(filter(None, texts))
