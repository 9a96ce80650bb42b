"""PCM as the audio formats that clients ask for: pcm, wav, flac, mp3, opus, aac; in pieces where the format allows.

Library: PyAV (FFmpeg's encoders), imported when the first compressed stream is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from server.audio import SAMPLE, Resampler, wav
from server.errors import ConfigError, EngineUnavailable
from server.pipelines.quoting import quoted

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
MP3_RATES = AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


class Encoder(Protocol):
    """One stream's encoder. `rate` is what the result sounds at, in Hz; `push` and `finish` are blocking work."""

    rate: int

    def push(self, pcm: bytes) -> bytes:
        """What can be given out after `pcm`; may be nothing yet."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


@dataclass(frozen=True)
class Format:
    """`media`: the content type; `streams`: whether it can be given out before its length is known."""

    name: str
    media: str
    encoding: str
    streams: bool
    open: Callable[[int], Encoder]


class Raw:
    """Samples as they are."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    def push(self, pcm: bytes) -> bytes:
        return pcm

    def finish(self) -> bytes:
        return b""


class Wav:
    """A RIFF file. Its header states its length, so all of it comes at the end."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._pcm = bytearray()

    def push(self, pcm: bytes) -> bytes:
        self._pcm += pcm
        return b""

    def finish(self) -> bytes:
        return wav(bytes(self._pcm), self.rate)


class Compressed:
    """A stream through one of FFmpeg's encoders. Source: PyAV's `Container.add_stream`, `Stream.encode`."""

    def __init__(
        self, rate: int, container: str, codec: str, options: dict[str, str], bits: int, rates: tuple[int, ...]
    ) -> None:
        self._av = _library()
        self.rate = _nearest(rate, rates)
        self._resampler = Resampler(rate, self.rate)
        self._sink = _Sink()
        self._container = self._av.open(self._sink, "w", format=container, options=options)
        self._stream = self._container.add_stream(codec, rate=self.rate)
        self._stream.layout = "mono"
        if bits:
            self._stream.bit_rate = bits
        self._samples = 0

    def push(self, pcm: bytes, last: bool = False) -> bytes:
        pcm = self._resampler.push(pcm, last) if pcm or last else b""
        if pcm:
            self._encode(self._frame(pcm))
        return self._sink.take()

    def finish(self) -> bytes:
        rest = self.push(b"", last=True)
        if not self._samples:
            self._encode(self._frame(bytes(SAMPLE)))  # an empty stream has no header to read
        self._encode(None)
        self._container.close()
        return rest + self._sink.take()

    def _frame(self, pcm: bytes) -> Any:
        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = self.rate, self._samples
        self._samples += samples.shape[1]
        return frame

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


class _Sink:
    """Where FFmpeg writes: it cannot seek, so nothing already given out is ever changed."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        out = bytes(self._bytes)
        self._bytes.clear()
        return out


def flac(rate: int) -> Encoder:
    return Compressed(rate, "flac", "flac", {}, 0, ())


def mp3(rate: int) -> Encoder:
    return Compressed(rate, "mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}, 96_000, MP3_RATES)


def opus(rate: int) -> Encoder:
    return Compressed(rate, "ogg", "libopus", {"page_duration": "60000"}, 48_000, OPUS_RATES)  # pages of 60 ms


def aac(rate: int) -> Encoder:
    return Compressed(rate, "adts", "aac", {}, 64_000, AAC_RATES)


FORMATS = {
    f.name: f
    for f in (
        Format("pcm", "audio/pcm", "pcm_s16le", True, Raw),
        Format("wav", "audio/wav", "wav", False, Wav),
        Format("flac", "audio/flac", "flac", True, flac),
        Format("mp3", "audio/mpeg", "mp3", True, mp3),
        Format("opus", "audio/ogg; codecs=opus", "opus", True, opus),
        Format("aac", "audio/aac", "aac", True, aac),
    )
}


def format_of(name: str) -> Format:
    """The format called `name`. Raises `ConfigError`, saying which there are."""
    try:
        return FORMATS[name.lower()]
    except KeyError:
        raise ConfigError(f"unknown format {quoted(name)}; there are: {', '.join(FORMATS)}") from None


def _library() -> Any:
    try:
        import av
    except ImportError as error:
        raise EngineUnavailable(f"this format needs PyAV: pip install av ({error})") from error
    return av


def _nearest(rate: int, rates: tuple[int, ...]) -> int:
    """The lowest of `rates` that loses nothing of `rate`, or the highest there is."""
    return rate if not rates else min((r for r in rates if r >= rate), default=max(rates))
