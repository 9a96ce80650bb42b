"""Segment boundaries: pieces of speech become one stream without a click, an echo or a hole. Pure.

A piece either follows the one before it or renders its last samples once more (codecs that decode with context).
Renderings of the same moment are laid over each other; segments meet in the silence between them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.audio import SAMPLE

Wave = npt.NDArray[np.float64]

EDGE_MS = 12  # of a segment that ends while it sounds, held back for the next one to begin on
WINDOW_MS = 5  # silence is judged in windows this long
ALIKE = 0.5  # correlation above which two pieces are taken for renderings of the same sound
SEARCH_MS = 1.5  # how far a second rendering may have slipped


@dataclass(frozen=True)
class Seams:
    """How segments meet. All in ms, but `floor`: the RMS (of 32768) under which a window is silent."""

    overlap_ms: float = (
        12.0  # the end of a segment sounds together with the beginning of the next, or its own rendering
    )
    fade_ms: float = 20.0  # fade-out at the very end
    lead_ms: float = 25.0  # silence kept before a segment's first sound
    pause_ms: float = 120.0  # silence kept after its last
    hold_ms: float = 600.0  # silence held back until it is known whether sound follows
    floor: float = 64.0  # -54 dB: under a quiet consonant, over the hiss that some engines leave


def correlation(a: Wave, b: Wave) -> float:
    """Pearson's, -1..1; 0 where one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power > 1e-9 else 0.0


def crossfade(old: bytes, new: bytes) -> bytes:
    """`old` becoming `new`, equally long. Like sounds are mixed with weights that sum to one (raised cosine), unlike
    ones with weights whose squares do (equal power), so that the loudness neither swells nor dips."""
    if not (old and new):
        return b""
    a, b = _wave(old), _wave(new)
    angle = np.pi / 2 * (np.arange(len(a)) + 0.5) / len(a)
    fall, rise = np.cos(angle), np.sin(angle)
    if correlation(a, b) > ALIKE or np.array_equal(a, b):
        fall, rise = fall**2, rise**2
    return _pcm(a * fall + b * rise)


def fade_out(pcm: bytes) -> bytes:
    """`pcm` falling to exactly zero along a raised cosine."""
    count = len(pcm) // SAMPLE
    return _pcm(_wave(pcm) * np.cos(np.pi / 2 * np.arange(1, count + 1) / max(count, 1)) ** 2)


def slip(old: bytes, new: bytes, reach: int) -> int:
    """By how many samples, within +-`reach`, `new` is late against `old`, of which it is a second rendering."""
    a, b = _wave(old), _wave(new)
    length = min(len(a), len(b)) - reach
    if reach <= 0 or length < 2 * reach:
        return 0
    scores = {
        lag: correlation(a[max(-lag, 0) :][:length], b[max(lag, 0) :][:length]) for lag in range(-reach, reach + 1)
    }
    best = max(scores, key=lambda lag: (scores[lag], -abs(lag)))
    return best if scores[best] > max(ALIKE, scores[0] + 0.01) else 0


def silence_after(pcm: bytes, rate: int, floor: float) -> int:
    """Bytes of silence at the end of `pcm`, in whole windows."""
    edge = _wave(pcm[-_window(rate) * SAMPLE :])
    return 0 if _sounds(edge, rate, floor) else _quiet(_wave(pcm)[::-1], rate, floor)


def silence_before(pcm: bytes, rate: int, floor: float) -> int:
    """Bytes of silence at the beginning of `pcm`, in whole windows."""
    edge = _wave(pcm[: _window(rate) * SAMPLE])
    return 0 if _sounds(edge, rate, floor) else _quiet(_wave(pcm), rate, floor)


class Joiner:
    """Joins the pieces of one stream at `rate` Hz; gives out what can no longer change.

    `push` each piece, `cut` between segments, `finish` at the end. Nothing is repeated and nothing but silence is
    dropped: what comes out is as long as what went in, less overlaps and trimmed silence."""

    def __init__(self, rate: int, seams: Seams | None = None) -> None:
        self.rate, self.seams = rate, seams or Seams()
        self.origin: int | None = None  # bytes: where this segment's sample 0 lies in the stream; None until it sounds
        self.given = 0  # bytes given out
        self._held = b""  # the end of the stream, which may yet change
        self._head: bytes | None = b""  # the beginning of a segment until it sounds; None afterwards

    @property
    def made(self) -> int:
        """Bytes of the stream so far, held ones included."""
        return self.given + len(self._held)

    def push(self, pcm: bytes, again: int = 0) -> bytes:
        """The next piece, of which the first `again` samples render the end of the last one once more."""
        again, reach = again * SAMPLE, self._size(SEARCH_MS)
        if self._head is not None:
            self.origin = self.origin if self._head else None
            self._head = _laid_over(self._head, pcm[max(0, again - len(self._head)) :], again, reach)
            return self._open(last=False)
        gone = max(0, min(again, self.made) - len(self._held))  # given out already: not to be said twice
        self._held = _laid_over(self._held, pcm[gone:], again - gone, reach)
        return self._release()

    def cut(self, pause_ms: float | None = None) -> bytes:
        """The segment is over and another may follow, perhaps much later: keep `pause_ms` of the silence at its end,
        and hold back no more than that silence."""
        out = self._open(last=True)
        self._trim(self.seams.pause_ms if pause_ms is None else pause_ms)
        self._head = b""
        quiet = silence_after(self._held, self.rate, self.seams.floor)
        return out + self._give(len(self._held) - min(self._touched, max(quiet, self._size(EDGE_MS))))

    def finish(self) -> bytes:
        """The end of the stream, faded out to zero."""
        out = self._open(last=True)
        self._trim(self.seams.pause_ms)
        cut = max(0, len(self._held) - self._size(self.seams.fade_ms))
        self._held = self._held[:cut] + fade_out(self._held[cut:])
        self._head = b""
        return out + self._give(len(self._held))

    @property
    def _touched(self) -> int:
        """Bytes at the end that a seam or the fade-out may still change."""
        return self._size(max(self.seams.overlap_ms, self.seams.fade_ms))

    def _size(self, ms: float) -> int:
        return int(self.rate * ms / 1000) * SAMPLE

    def _open(self, last: bool) -> bytes:
        """Lay the beginning of a segment over the end of the one before, as soon as it sounds."""
        if self._head is None:
            return b""
        quiet, overlap = silence_before(self._head, self.rate, self.seams.floor), self._size(self.seams.overlap_ms)
        lead = max(self._size(self.seams.lead_ms), overlap if self._held else 0)  # of two segments, silences overlap
        drop = max(0, quiet - lead)
        head = self._head[drop:]
        if not last and len(self._head) < quiet + overlap + self._size(WINDOW_MS):
            return b""
        self._head = None
        overlap = min(overlap, len(self._held), len(head))
        self.origin = self.made - overlap - drop
        seam = len(self._held) - overlap
        self._held = self._held[:seam] + crossfade(self._held[seam:], head[:overlap]) + head[overlap:]
        return self._release()

    def _release(self) -> bytes:
        """Give out all but the end: its silence, and the sound before it that a seam may touch."""
        recent = self._held[-self._size(self.seams.hold_ms) :]
        return self._give(len(self._held) - silence_after(recent, self.rate, self.seams.floor) - self._touched)

    def _trim(self, keep_ms: float) -> None:
        quiet = silence_after(self._held, self.rate, self.seams.floor)
        self._held = self._held[: len(self._held) - max(0, quiet - self._size(keep_ms))]

    def _give(self, count: int) -> bytes:
        out, self._held = self._held[: max(0, count)], self._held[max(0, count) :]
        self.given += len(out)
        return out


def _laid_over(old: bytes, new: bytes, again: int, reach: int) -> bytes:
    """`new` after `old`, its first `again` bytes being the last ones of `old` in a second rendering."""
    again = min(again, len(old), len(new))
    if not again:
        return old + new
    late = slip(old[len(old) - again :], new[:again], min(reach // SAMPLE, again // SAMPLE // 4)) * SAMPLE
    if late < 0:  # the new rendering starts later than announced: its first samples belong further back in the old one
        again += late
    start = max(late, 0)
    again = min(again, len(new) - start)
    return (
        old[: len(old) - again] + crossfade(old[len(old) - again :], new[start : start + again]) + new[start + again :]
    )


def _window(rate: int) -> int:
    return max(1, rate * WINDOW_MS // 1000)


def _sounds(edge: Wave, rate: int, floor: float) -> bool:
    """Whether what begins (or ends) with this window sounds at once, as it mostly does: then no more is looked at."""
    return len(edge) < _window(rate) or bool(edge @ edge >= len(edge) * floor**2)


def _quiet(wave: Wave, rate: int, floor: float) -> int:
    window = _window(rate)
    whole = wave[: len(wave) // window * window].reshape(-1, window)
    loud = np.flatnonzero((whole**2).mean(axis=1) >= floor**2)
    return int(loud[0] if len(loud) else len(whole)) * window * SAMPLE


def _wave(pcm: bytes) -> Wave:
    return np.frombuffer(pcm, "<i2", len(pcm) // SAMPLE).astype(np.float64)


def _pcm(wave: Wave) -> bytes:
    return np.clip(np.rint(wave), -32768, 32767).astype("<i2").tobytes()
