"""Things to say to Parley: speech made by flite, noises, and a human voice. 16-bit mono PCM, never exactly zero."""

import functools
from pathlib import Path

import numpy as np
import pytest

from server.audio import read_wav, resample, size, to_float, to_pcm
from server.errors import EngineUnavailable
from server.pipelines.engines import Speech
from server.pipelines.tts import flite

RATE = 16_000  # Hz
_RECORDING = Path(__file__).resolve().parents[2] / "shared" / "speech" / "jfk.wav"
JFK = "And so, my fellow Americans, ask not what your country can do for you, ask what you can do for your country."


@functools.cache
def say(text: str, voice: str = "slt", rate: int = RATE) -> bytes:
    """`text` spoken by flite (slt, rms, awb, kal, kal16). Skips the test where flite is missing."""
    made: list[Speech] = []
    try:
        flite.say(text, flite.Manner(voice), lambda speech: made.append(speech) is None)
    except EngineUnavailable as error:
        pytest.skip(str(error), allow_module_level=True)
    pcm = resample(b"".join(speech.pcm for speech in made), flite.RATE, rate)
    return to_pcm(_alive(to_float(pcm)))


def silence(ms: float, rate: int = RATE) -> bytes:
    """A quiet room: noise of one or two units, so that it is never exactly zero."""
    return noise(ms, 5e-5, rate)


@functools.cache
def noise(ms: float, level: float = 0.01, rate: int = RATE) -> bytes:
    """White noise of a root mean square of `level` (1.0 is full scale), always the same."""
    return to_pcm(_alive(np.random.default_rng(7).normal(0, level, size(ms, rate) // 2)))


@functools.cache
def cough(rate: int = RATE) -> bytes:
    """A cough of 350 ms: a burst of throaty noise and its echo, loud, and no speech."""
    length = size(350, rate) // 2
    t = np.arange(length) / rate
    burst = np.exp(-t / 0.05) + 0.5 * np.where(t > 0.16, np.exp(-(t - 0.16) / 0.06), 0)
    raw = np.random.default_rng(11).normal(0, 1, length)
    throat = np.convolve(raw, np.sin(2 * np.pi * 500 * t[: rate // 200]) * np.hanning(rate // 200), "same")
    attack = np.minimum(1, t / 0.004)
    shaped = attack * burst * (throat / np.abs(throat).max() + 0.15 * raw)
    return to_pcm(_alive(0.5 * shaped / np.abs(shaped).max()))


@functools.cache
def human(rate: int = RATE) -> bytes | None:
    """Eleven seconds of a human voice saying `JFK`, or None where the recording is not at hand."""
    if not _RECORDING.is_file():
        return None
    pcm, recorded = read_wav(_RECORDING.read_bytes())
    return to_pcm(_alive(to_float(resample(pcm, recorded, rate))))


def _alive(samples: np.ndarray) -> np.ndarray:
    """The same with no sample that would round to zero, as in the air."""
    floor = 1 / 32768
    return np.where(np.abs(samples) < floor, np.copysign(floor, samples), samples)
