"""Humming: a voice behind a closed mouth ("mm", "hmm", "mhm"), in any language a sign of listening, never a word. Pure.

Recognisers make words of it ("move", "who"), but it can be told by its sound: what leaves through the nose is dull from
beginning to end. A word is not: its vowels, hisses and bursts have more above `SPLIT`. (Only a lone "you" or "moon" may
have as little; in noise nothing is dull, and the words decide.)
"""

import numpy as np

from server.audio import to_float
from server.pipelines.engines import FRAME, HEARING_RATE, Samples

SPLIT = 650.0  # Hz; a hum has its one strong resonance below
DULL = 10**-2.1  # so much of the energy below may be above: 21 dB less; people's hums have 22 to 30, their "no" has 8
RUMBLE = 0.1  # of all energy is above the rumble of a room at least, or it is no voice
LOUD = 10**-2.0  # frames 20 dB below the loudest do not count
LONGEST = 63  # frames (2 s)

_WINDOW = np.hanning(FRAME).astype(np.float32)
_HZ = np.fft.rfftfreq(FRAME, 1 / HEARING_RATE)
_RUMBLES, _LOW = _HZ < 150, (_HZ >= 150) & (_HZ < SPLIT)
_HIGH = (_HZ >= SPLIT) & (_HZ < 4_000)


def hummed(pcm: bytes) -> bool:
    """Whether `pcm` (16 kHz, from the first sign of voice on) was hummed from beginning to end."""
    samples = to_float(pcm)
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return 0 < len(frames) <= LONGEST and _dull(frames)


def _dull(frames: Samples) -> bool:
    power = np.abs(np.fft.rfft(frames * _WINDOW, axis=1)) ** 2
    rumble, low, high = (power[:, band].sum(axis=1) for band in (_RUMBLES, _LOW, _HIGH))
    loud = low + high >= LOUD * (low + high).max()
    voice = (low + high > RUMBLE * rumble)[loud]
    return bool(voice.all() and (high <= DULL * low)[loud].all())
