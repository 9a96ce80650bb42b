"""Sound as it comes over HTTP, in any of the shapes that speech servers send: raw PCM, WAV, or either in events. Pure.

Sources: OpenAI's `/v1/audio/speech`, vLLM-Omni's and Boson's servers, RFC 2586 (`audio/L16`, whose byte order nobody
keeps: here it is little-endian, as all of them send it).
"""

import base64
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.audio import SAMPLE, Resampler

ASSUMED = 24_000  # Hz, where a server does not say
_RATE_HEADERS = ("x-sample-rate", "x-audio-sample-rate", "sample-rate")
_CHANNEL_HEADERS = ("x-channels", "x-audio-channels")
_SOUND = ("pcm", "x-pcm", "l16", "raw", "x-raw", "octet-stream", "wav", "x-wav", "wave", "vnd.wave")
_PLAYABLE = ("", "application/octet-stream", *(f"audio/{name}" for name in _SOUND))
_RATES = range(4_000, 384_001)  # Hz
_HEADER = 65_536  # bytes of a WAV before its sound, at most
_OPEN_ENDED = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what a WAV that is still being made gives as its length


class Unplayable(Exception):
    """The server sent something that is no 16-bit PCM. The message says what."""


@dataclass(frozen=True)
class Format:
    rate: int = ASSUMED
    channels: int = 1

    def __post_init__(self) -> None:
        if self.rate not in _RATES or not 1 <= self.channels <= 32:
            raise Unplayable(f"sound at {self.rate} Hz in {self.channels} channels")


def announced(headers: Mapping[str, str]) -> tuple[Format, bool]:
    """The format in a response's headers, and whether the body is a stream of events.

    Raises `Unplayable` for a body that is no sound Parley can play."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    events = kind == "text/event-stream"
    if not events and kind not in _PLAYABLE:
        raise Unplayable(f"{kind}, not PCM or WAV")
    given = dict(re.findall(r"([\w-]+)\s*=\s*\"?(\d+)", parameters.lower()))
    rate = _first(headers, _RATE_HEADERS) or int(given.get("rate", 0)) or ASSUMED
    return Format(rate, _first(headers, _CHANNEL_HEADERS) or int(given.get("channels", 0)) or 1), events


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> int:
    return next((int(headers[n]) for n in names if headers.get(n, "").strip().isdecimal()), 0)


class Decoder:
    """Bytes in whatever pieces the network makes of them in, mono PCM at `target` Hz out."""

    def __init__(self, format: Format, target: int) -> None:
        self._format = format
        self._target = target
        self._head: bytes | None = b""  # the beginning, until it is clear whether it is a WAV's
        self._tail = b""  # part of a sample
        self._left: int | None = None  # bytes of sound in this WAV; None: to the end
        self._resampler: Resampler | None = None

    def begin(self) -> None:
        """What follows may have a header of its own: some servers send every piece as a WAV."""
        if self._head is None and not self._tail:
            self._head = b""

    def push(self, data: bytes) -> bytes:
        if self._head is not None:
            self._head += data
            if (data_ := self._behind_header(self._head)) is None:
                return b""
            self._head, data = None, data_
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        data = self._tail + data
        whole = len(data) - len(data) % (SAMPLE * self._format.channels)
        self._tail = data[whole:]
        return self._resampled(self._mono(data[:whole]))

    def finish(self) -> bytes:
        """The last of it. A header that never became whole was none."""
        head, self._head = self._head or b"", None
        rest = self.push(head) if head and not head.startswith(b"RIFF") else b""
        return rest + (self._resampler.push(b"", last=True) if self._resampler else b"")

    def _behind_header(self, head: bytes) -> bytes | None:
        """The sound in `head`; None while that cannot be told. Takes format and length from a WAV header."""
        if not b"RIFF".startswith(head[:4]):
            return head
        if len(head) > _HEADER:
            raise Unplayable("a WAV without sound")
        place = 12
        while len(head) >= place + 8:
            name, length = struct.unpack_from("<4sI", head, place)
            if name == b"data":
                self._left = None if length in _OPEN_ENDED else length
                return head[place + 8 :]
            if name == b"fmt " and len(head) >= place + 24:
                self._take(*struct.unpack_from("<HHIIHH", head, place + 8))
            place += 8 + length + length % 2
        return None

    def _take(self, code: int, channels: int, rate: int, _bytes: int, _align: int, bits: int) -> None:
        if bits != 8 * SAMPLE or code not in (1, 0xFFFE):
            raise Unplayable(f"a WAV of {bits} bits (format {code}), not 16-bit PCM")
        if self._resampler and rate != self._format.rate:
            raise Unplayable(f"a WAV that changes its rate from {self._format.rate} to {rate} Hz")
        self._format = Format(rate, channels)

    def _mono(self, data: bytes) -> bytes:
        if self._format.channels == 1:
            return data
        samples = np.frombuffer(data, "<i2").reshape(-1, self._format.channels)
        mixed: bytes = samples.mean(axis=1).astype("<i2").tobytes()
        return mixed

    def _resampled(self, data: bytes) -> bytes:
        if self._resampler is None:
            self._resampler = Resampler(self._format.rate, self._target)
        return self._resampler.push(data) if data else b""


def sound_in(line: str) -> Iterator[bytes]:
    """The sound in one line of an event stream, if any. Raises `Unplayable` where the server reports an error."""
    if not line.startswith("data:") or (payload := line[5:].strip()) in ("", "[DONE]"):
        return
    try:
        event = json.loads(payload)
    except ValueError:
        raise Unplayable(f"an event that is no JSON: {payload[:80]}") from None
    if not isinstance(event, dict):
        raise Unplayable(f"an event that is no object: {payload[:80]}")
    error = event.get("error") or (event if str(event.get("type")).endswith(".error") else None)
    if error:
        raise Unplayable(f"an error: {error.get('message', error) if isinstance(error, dict) else error}")
    if sound := _sound(event):
        try:
            yield base64.b64decode(sound, validate=True)
        except ValueError:
            raise Unplayable("an event whose sound is not in base64") from None


def _sound(event: dict[str, Any]) -> str:
    """OpenAI: `audio`; others `delta`, or `audio` with `data` in it, also within the delta of a chat completion."""
    match event:
        case {"choices": [{"delta": {"audio": {"data": str(sound)}}}, *_]}:
            return sound
        case {"audio": str(sound)} | {"audio": {"data": str(sound)}}:
            return sound
        case {"type": str(kind), "delta": str(sound)} if "audio" in kind:
            return sound
    return ""
