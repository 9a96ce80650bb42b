"""The delay pattern: codebook k speaks k rows late, so a frame of sound is a diagonal through the rows. Pure.

Row 0 is all BOS; frame f lies on rows f+1 ... f+8 and is whole once row f+8 exists; an all-EOS row is the end."""

import numpy as np
import numpy.typing as npt

BOOKS = 8
BOS = 1024
EOS = 1025
Codes = npt.NDArray[np.int64]


def delayed(codes: Codes) -> Codes:
    """Frames [T, 8] as the rows [T + 9, 8] that the model reads, from the all-BOS row to the all-EOS row."""
    length = len(codes)
    rows = np.full((length + BOOKS + 1, BOOKS), BOS, np.int64)
    for book in range(BOOKS):
        rows[book + 1 : book + 1 + length, book] = codes[:, book]
        rows[book + 1 + length :, book] = EOS
    return rows


class Rows:
    """The rows of one utterance as they are made, and the frames they hold.

    What a codebook has not said yet, or said wrongly (a BOS or EOS in the middle), counts as missing: -1. The codec
    leaves a missing code out, which is far better than decoding a wrong one."""

    def __init__(self) -> None:
        self._rows = np.empty((256, BOOKS), np.int64)
        self._length = 0
        self._first_eos: int | None = None  # the row where codebook 0 ended
        self.ended = False

    def __len__(self) -> int:
        return self._length

    def push(self, row: Codes) -> None:
        """Take the next row [8]; an all-EOS row ends the utterance."""
        if self._length == len(self._rows):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
        self._rows[self._length] = row
        self._length += 1
        if self._first_eos is None and row[0] == EOS:
            self._first_eos = self._length - 1
        self.ended = bool((row == EOS).all())

    def array(self) -> Codes:
        """All rows [R, 8]."""
        return self._rows[: self._length].copy()

    def remembered(self, frames: int | None = None) -> Codes:
        """The rows [R, 8] as a context should hold them: as they were made if they came to their end, else the first
        `frames` (default: all whole ones), ended as it should be. A missing code becomes the first one."""
        if self.ended and frames is None:
            return self.array()
        return delayed(np.maximum(self.codes(0, self.frames if frames is None else min(frames, self.frames)), 0))

    @property
    def frames(self) -> int:
        """How many frames are whole. Those after codebook 0 ended hold no sound and do not count."""
        whole = self._length - BOOKS - self.ended
        if self._first_eos is not None:
            whole = min(whole, self._first_eos - 1)
        return max(0, whole)

    @property
    def begun(self) -> int:
        """How many frames have at least their first code."""
        last = self._length if self._first_eos is None else self._first_eos
        return max(0, last - 1)

    def codes(self, begin: int, end: int) -> Codes:
        """Frames [end - begin, 8], missing codes -1."""
        out = np.full((end - begin, BOOKS), -1, np.int64)
        for book in range(BOOKS):
            first = begin + 1 + book
            part = self._rows[first : max(first, min(end + 1 + book, self._length)), book]
            out[: len(part), book] = np.where(part < BOS, part, -1)
        return out
