"""A codec with LinaCodec's contract and no model: 3840 samples a token, 256 fewer where the number is odd.

A token is the loudest pitch of its 80 ms and how loud it is; the embedding is how strong the octave above sounds, which
stands for a voice's timbre. So tones survive, voices can be told apart, and decoding a piece without its neighbours is
wrong at its ends, as with the real one.
"""

import threading

import numpy as np

from server.pipelines.codec._engine import BatchedCodec
from server.pipelines.codec._tokens import CODEBOOK, ODD, SOURCE_SPAN, SPAN, WIDTH, Tokens
from server.pipelines.codec._windows import Shape
from server.pipelines.engines import Coded, Samples

GRID = 50  # Hz between pitches: whole cycles in a token
LEVELS = 100


class FakeNetwork:
    def __init__(self) -> None:
        self.encoded = 0
        self.batches: list[tuple[int, ...]] = []
        self.failing: Exception | None = None
        self.loaded = self.closed = False
        self.gate = threading.Event()  # tests hold the thread with it
        self.gate.set()

    def load(self) -> None:
        self.loaded = True

    def close(self) -> None:
        self.closed = True

    def encode(self, samples: Samples) -> tuple[Tokens, Samples]:
        self.gate.wait()
        self.encoded += 1
        assert samples.dtype == np.float32
        assert len(samples) % (2 * SOURCE_SPAN) == 0
        frames = samples.reshape(-1, SOURCE_SPAN)
        spectrum = np.abs(np.fft.rfft(frames, axis=1)) * 2 / SOURCE_SPAN
        grid = spectrum[:, 4 : 4 * 129 : 4]  # 50 Hz to 6400 Hz
        pitch = grid.argmax(axis=1)
        level = np.clip(np.round(grid.max(axis=1) * (LEVELS - 1)), 0, LEVELS - 1).astype(np.int64)
        rows = np.arange(len(frames))
        octave = spectrum[rows, np.minimum((pitch + 1) * 8, spectrum.shape[1] - 1)]
        embedding = np.zeros(WIDTH, np.float32)
        embedding[0] = octave.sum() / max(1e-6, grid[rows, pitch].sum())
        return pitch.astype(np.int64) * LEVELS + level, embedding

    def decode(self, tokens: Tokens, embeddings: Samples) -> Samples:
        self.gate.wait()
        self.batches.append(tokens.shape)
        if self.failing:
            raise self.failing
        count = tokens.shape[1]
        level = (tokens % LEVELS) / (LEVELS - 1)
        at = np.arange(count * SPAN) / SPAN - 0.5
        loud = np.stack([np.interp(at, np.arange(count), row) for row in level])
        time_ = np.arange(SPAN) / 48_000
        cycle = 2 * np.pi * GRID * (tokens // LEVELS + 1)[:, :, None] * time_
        octave = embeddings[:, 0, None, None]
        tone = (np.sin(cycle) + octave * np.sin(2 * cycle)) / (1 + octave)
        audio = (tone.reshape(len(tokens), -1) * loud).astype(np.float32)
        return audio[:, : count * SPAN - ODD * (count % 2)]


def fake_codec(network: FakeNetwork | None = None, **options: object) -> BatchedCodec:
    return BatchedCodec(network or FakeNetwork(), **options)  # type: ignore[arg-type]


VOICE = np.zeros(WIDTH, np.float32)


def coded(count: int, seed: int = 1) -> Coded:
    """So many tokens, at random."""
    return Coded(np.random.default_rng(seed).integers(0, CODEBOOK, count), VOICE)


def tone(hz: float, seconds: float, rate: int, level: float = 0.5, octave: float = 0.0) -> bytes:
    """PCM of a tone, its octave mixed in."""
    t = np.arange(round(seconds * rate)) / rate
    wave = (np.sin(2 * np.pi * hz * t) + octave * np.sin(4 * np.pi * hz * t)) / (1 + octave)
    return (wave * level * 32767).astype("<i2").tobytes()


def pitch(pcm: bytes, rate: int) -> float:
    """The loudest frequency in Hz."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * rate / len(samples))


__all__ = ["VOICE", "FakeNetwork", "Shape", "coded", "fake_codec", "pitch", "tone"]
