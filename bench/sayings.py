"""What listeners say while another speaks: signs of attention, noises, and what is meant to interrupt.

Spoken by the voices of flite and espeak, hummed by a little model of a closed mouth, and cut from a human recording.
16-bit mono PCM at 16 kHz, without silence at either end.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from server.audio import SAMPLE, read_wav, resample, to_float, to_pcm
from server.pipelines.engines import HEARING_RATE, Samples, Speech
from server.pipelines.tts import _libespeak, flite
from server.settings import ROOT

BACKCHANNEL, NOISE, INTERRUPTION = "backchannel", "noise", "interruption"
PRIMER = "Please tell me a long story about the sea."  # said first, so that the voice is known
PITCHES = {"slt": 190.0, "rms": 105.0, "awb": 125.0, "kal16": 95.0}  # Hz, of the voices of flite and their hums
ESPEAK = ("gmw/en-US", "gmw/en-US+f3")
JFK = ROOT.parent / "shared" / "speech" / "jfk.wav"

LISTENING = (
    "uh huh", "um hum", "yeah", "right", "okay", "I see", "sure", "yep", "oh", "aha", "wow", "got it", "exactly",
    "yeah yeah", "oh okay",
)  # fmt: skip
CUTTING_IN = (
    "stop", "wait", "no", "what", "why", "hold on", "hang on", "listen", "excuse me", "no no no", "okay stop",
    "yeah but why", "that's wrong", "what do you mean", "tell me about the weather", "can you say that again please",
    "I have a question", "let's talk about something else",
)  # fmt: skip
SPELT = {"hmm": "h@m:", "mhm": "m-h'm-", "uh huh": "V h'V"}  # espeak's phonemes
CUTS = ((0.33, 1.1), (0.33, 2.0), (3.25, 4.3), (5.35, 6.3), (8.1, 9.1), (8.1, 10.4))  # s of the recording: whole words


@dataclass(frozen=True)
class Saying:
    kind: str
    text: str
    pcm: bytes


@dataclass(frozen=True)
class Speaker:
    """One voice: what makes it known, and what it says then."""

    name: str
    primer: bytes
    sayings: tuple[Saying, ...]


def speakers() -> Iterator[Speaker]:
    for voice in PITCHES:
        yield _of_flite(voice)
    with tempfile.TemporaryDirectory() as folder:
        copy = _libespeak.Copy(Path(folder, "espeak"))
        copy.load()
        for voice in ESPEAK:
            yield _of_espeak(copy, voice)
        copy.close()
    if JFK.is_file():
        yield _human()


def _of_flite(voice: str) -> Speaker:
    said = [Saying(BACKCHANNEL, text, _flite(text, voice)) for text in LISTENING]
    hummed = [Saying(BACKCHANNEL, f"({name})", hum(PITCHES[voice])) for name, hum in HUMS.items()]
    noises = [Saying(NOISE, f"({name})", make(int(PITCHES[voice]))) for name, make in NOISES.items()]
    meant = [Saying(INTERRUPTION, text, _flite(text, voice)) for text in CUTTING_IN]
    return Speaker(voice, _flite(PRIMER, voice), (*said, *hummed, *noises, *meant))


def _of_espeak(copy: _libespeak.Copy, voice: str) -> Speaker:
    said = [Saying(BACKCHANNEL, text, _espeak(copy, text, voice)) for text in ("yeah", "right", "okay", "I see")]
    spelt = [Saying(BACKCHANNEL, text, _espeak(copy, f"[[{x}]]", voice, 0x100)) for text, x in SPELT.items()]
    meant = [Saying(INTERRUPTION, text, _espeak(copy, text, voice)) for text in CUTTING_IN[:14]]
    return Speaker(voice.rpartition("/")[2], _espeak(copy, PRIMER, voice), (*said, *spelt, *meant))


def _human() -> Speaker:
    pcm, rate = read_wav(JFK.read_bytes())
    heard = resample(pcm, rate, HEARING_RATE)

    def cut(begin: float, end: float) -> bytes:
        return _trimmed(heard[int(begin * HEARING_RATE) * SAMPLE : int(end * HEARING_RATE) * SAMPLE])

    meant = tuple(Saying(INTERRUPTION, f"jfk {begin}-{end}", cut(begin, end)) for begin, end in CUTS)
    return Speaker("a human", cut(0.0, 4.5), meant)


def _collected(speak: Callable[[Callable[[Speech], bool]], None], rate: int) -> bytes:
    made: list[bytes] = []
    speak(lambda speech: made.append(speech.pcm) is None)
    return _trimmed(resample(b"".join(made), rate, HEARING_RATE))


def _flite(text: str, voice: str) -> bytes:
    return _collected(lambda give: flite.say(text, flite.Manner(voice), give), flite.RATE)


def _espeak(copy: _libespeak.Copy, text: str, voice: str, flags: int = 0) -> bytes:
    """With the flag 0x100 a text in double brackets is phonemes."""
    plain = _libespeak._UTF8
    _libespeak._UTF8 = plain | flags
    try:
        return _collected(lambda give: copy.say(text, _libespeak.Manner(voice), give), _libespeak.RATE)
    finally:
        _libespeak._UTF8 = plain


def _trimmed(pcm: bytes) -> bytes:
    """Without what is 40 dB below its loudest at either end."""
    samples = to_float(pcm)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return to_pcm(samples[loud[0] : loud[-1] + 1])


def _shaped(pitch: Samples, loudness: Samples, breath: Samples) -> bytes:
    """A hum: a pulse for each period, and breath, through a closed mouth. Arrays of a value a sample."""
    random = np.random.default_rng(int(pitch[0]))
    phase = np.cumsum(pitch * (1 + 0.01 * random.normal(size=len(pitch)))) / HEARING_RATE
    pulses = np.diff(np.floor(phase), prepend=0.0)
    source = loudness * np.convolve(pulses, np.exp(-np.arange(64) / 12), "same") + breath * random.normal(
        0, 0.08, len(pitch)
    )
    sound = sum(
        gain * _resonant(source, at, width) for at, width, gain in ((260, 70, 1), (1_050, 200, 0.1), (2_300, 300, 0.04))
    )
    return to_pcm(0.25 * sound / np.abs(sound).max() + random.normal(0, 2e-4, len(pitch)))


def _resonant(source: Samples, at: float, width: float) -> Samples:
    """`source` through one formant."""
    t = np.arange(int(0.05 * HEARING_RATE)) / HEARING_RATE
    return np.convolve(source, np.exp(-np.pi * width * t) * np.sin(2 * np.pi * at * t))[: len(source)]


def _contour(*points: tuple[float, float]) -> Samples:
    """Straight lines through (ms, value)."""
    ends, values = zip(*points, strict=True)
    return np.interp(np.arange(int(ends[-1] * HEARING_RATE / 1000)) * 1000 / HEARING_RATE, ends, values)


def _mm(pitch: float) -> bytes:
    fade = _contour((0, 0), (40, 1), (260, 0.8), (340, 0))
    return _shaped(pitch * _contour((0, 1), (340, 0.85)), fade, 0.1 * fade)


def _hmm(pitch: float) -> bytes:
    fade = _contour((0, 0), (70, 0.2), (120, 1), (480, 0.7), (600, 0))
    return _shaped(
        pitch * _contour((0, 1.05), (250, 0.85), (600, 0.95)), fade, _contour((0, 1), (90, 0.3), (600, 0.05))
    )


def _mm_hmm(pitch: float) -> bytes:
    fade = _contour((0, 0), (30, 0.8), (130, 0.7), (170, 0.05), (220, 0.1), (270, 1), (430, 0.8), (520, 0))
    breath = _contour((0, 0.05), (150, 0.1), (190, 1), (240, 0.2), (520, 0.05))
    return _shaped(pitch * _contour((0, 0.9), (170, 0.9), (260, 1.1), (520, 1.3)), fade, breath)


def _mhm(pitch: float) -> bytes:
    """The same, quick and falling."""
    fade = _contour((0, 0), (25, 0.7), (80, 0.6), (105, 0.15), (150, 0.2), (185, 1), (300, 0.7), (360, 0))
    breath = _contour((0, 0.05), (85, 0.1), (115, 0.7), (165, 0.2), (360, 0.05))
    return _shaped(pitch * _contour((0, 1), (120, 1.1), (180, 1.1), (360, 0.85)), fade, breath)


def _cough(seed: int) -> bytes:
    t = np.arange(int(0.35 * HEARING_RATE)) / HEARING_RATE
    burst = np.exp(-t / 0.05) + 0.5 * np.where(t > 0.16, np.exp(-(t - 0.16) / 0.06), 0)
    raw = np.random.default_rng(seed).normal(0, 1, len(t))
    throat = np.convolve(raw, np.sin(2 * np.pi * (400 + seed) * t[:80]) * np.hanning(80), "same")
    sound = np.minimum(1, t / 0.004) * burst * (throat / np.abs(throat).max() + 0.15 * raw)
    return to_pcm(0.5 * sound / np.abs(sound).max())


def _knock(seed: int) -> bytes:
    t = np.arange(int(0.08 * HEARING_RATE)) / HEARING_RATE
    return to_pcm(0.6 * np.exp(-t / 0.012) * np.sin(2 * np.pi * (150 + seed) * t))


HUMS = {"mm": _mm, "hmm": _hmm, "mm hmm": _mm_hmm, "mhm": _mhm}
NOISES = {"cough": _cough, "knock": _knock}
