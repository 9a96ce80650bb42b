"""PCM: signed 16-bit little-endian mono in `bytes`, and what is done with it. Pure."""

import io
import struct
import wave

import numpy as np
import numpy.typing as npt
import soxr

SAMPLE = 2  # bytes


def milliseconds(pcm: bytes, rate: int) -> float:
    """How long `pcm` sounds at `rate` Hz."""
    return len(pcm) / SAMPLE / rate * 1000


def size(ms: float, rate: int) -> int:
    """Bytes of `ms` milliseconds at `rate` Hz, a whole number of samples."""
    return int(ms * rate / 1000) * SAMPLE


def to_float(pcm: bytes) -> npt.NDArray[np.float32]:
    """PCM as float32 in -1..1. An odd last byte is ignored."""
    return np.frombuffer(pcm, "<i2", len(pcm) // SAMPLE).astype(np.float32) / np.float32(32768)


def to_pcm(samples: npt.NDArray[np.float32]) -> bytes:
    """Float samples in -1..1, clipped, as PCM."""
    return (np.clip(samples, -1, 32767 / 32768) * 32768).round().astype("<i2").tobytes()


class Resampler:
    """PCM at one rate in, PCM at another out, piece by piece without seams. Equal rates pass through.

    `quality` is soxr's: QQ, LQ, MQ, HQ, VHQ. Source: libsoxr."""

    def __init__(self, source: int, target: int, quality: str = "HQ") -> None:
        self._same = source == target
        self._stream = None if self._same else soxr.ResampleStream(source, target, 1, dtype="int16", quality=quality)

    def push(self, pcm: bytes, last: bool = False) -> bytes:
        """What can be given out after `pcm`; with `last`, all of it."""
        if self._stream is None:
            return pcm
        return bytes(self._stream.resample_chunk(np.frombuffer(pcm, "<i2"), last=last).astype("<i2").tobytes())


def resample(pcm: bytes, source: int, target: int) -> bytes:
    """A whole recording at another rate."""
    if source == target or not pcm:
        return pcm
    return bytes(soxr.resample(np.frombuffer(pcm, "<i2"), source, target).astype("<i2").tobytes())


def wav(pcm: bytes, rate: int) -> bytes:
    """A RIFF WAV file."""
    return wav_header(len(pcm), rate) + pcm


def wav_header(size: int, rate: int) -> bytes:
    """What comes before `size` bytes of PCM in a RIFF WAV file."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * SAMPLE, SAMPLE, 8 * SAMPLE)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size)


def read_wav(data: bytes) -> tuple[bytes, int]:
    """PCM and rate of a 16-bit WAV file, its channels mixed to one. Raises `ValueError` on anything else."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != SAMPLE:
                raise ValueError(f"{8 * file.getsampwidth()}-bit WAV; 16-bit is needed")
            rate, channels = file.getframerate(), file.getnchannels()
            pcm = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a WAV file: {error}") from error
    if channels > 1:
        pcm = np.frombuffer(pcm, "<i2").reshape(-1, channels).mean(axis=1).astype("<i2").tobytes()
    return pcm, rate


def frames(pcm: bytes, length: int) -> tuple[list[bytes], bytes]:
    """`pcm` cut into whole pieces of `length` bytes, and what is left over."""
    whole = len(pcm) // length * length
    return [pcm[i : i + length] for i in range(0, whole, length)], pcm[whole:]
