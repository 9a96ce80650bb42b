"""A voice's recording: read, checked, brought to 24 kHz."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from server.audio import read_wav, resample, to_float
from server.errors import ConfigError
from server.pipelines.tts._higgs.codec import RATE, Wave

SHORTEST = 1.0  # seconds: less holds no voice
SILENT = 0.003  # RMS, -50 dB


@dataclass(frozen=True, eq=False)
class Recording:
    """`wave` at 24 kHz; recordings with the same `fingerprint` are the same."""

    wave: Wave
    fingerprint: str


def read(path: Path, longest: float) -> Recording:
    """The recording at `path` (16-bit WAV), at most `longest` seconds. Raises `ConfigError`, saying what is wrong."""
    try:
        found = path.stat()
        return _read(path, longest, found.st_mtime_ns, found.st_size)
    except OSError as error:
        raise ConfigError(f"voice.reference {path}: {error.strerror or error}") from None


@lru_cache(32)
def _read(path: Path, longest: float, *version: int) -> Recording:
    try:
        pcm, rate = read_wav(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"voice.reference {path} is no recording ({error}); it must be a 16-bit WAV file") from None
    seconds = len(pcm) / 2 / rate
    if seconds < SHORTEST:
        raise ConfigError(f"voice.reference {path} lasts {seconds:.1f} s; at least {SHORTEST:.0f} s are needed")
    if seconds > longest:
        raise ConfigError(
            f"voice.reference {path} lasts {seconds:.1f} s; cut it to {longest:.0f} s or raise reference_s in [tts]"
        )
    wave = to_float(resample(pcm, rate, RATE))
    if float(np.sqrt((wave**2).mean())) < SILENT:
        raise ConfigError(f"voice.reference {path} is silent")
    return Recording(wave, hashlib.sha256(pcm).hexdigest())
