"""What a back end sends, read: tokens or audio, chunk by chunk, and the end. Pure.

Fields are those of the back end's plan: `status` streaming, complete or error; `tokens` and `embedding`, or
`audio_chunk` (base64) with `format` and `sample_rate`.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.audio import to_pcm
from server.errors import CodecError, UpstreamError
from server.pipelines.codec._tokens import from_wire
from server.pipelines.engines import Coded

FLOATS = ("pcm_24", "pcm_f32")  # what a plain back end without a codec sends: float32


@dataclass(frozen=True)
class Audio:
    """PCM of any length at `rate` Hz."""

    pcm: bytes
    rate: int


@dataclass(frozen=True)
class Complete:
    """Everything has been sent."""


Part = Coded | Audio | Complete


class Reading:
    """One stream of objects from a back end. Notices what is missing."""

    def __init__(self) -> None:
        self.chunks = 0
        self.complete = False

    def read(self, message: Mapping[str, Any]) -> Iterator[Part]:
        """What `message` carries; nothing where it is only a sign of life. Raises `UpstreamError`."""
        if message.get("error") or message.get("status") == "error":
            raise UpstreamError(f"the server failed: {reason(message)}")
        if "tokens" in message or "audio_chunk" in message or "audio" in message:
            self._count(message)
            yield _payload(message, self.chunks)
        if message.get("status") == "complete":
            self._total(message)
            self.complete = True
            yield Complete()

    def finish(self) -> None:
        """The stream has ended. Raises `UpstreamError` where it had not said so."""
        if not self.complete:
            raise UpstreamError(f"the server stopped in the middle, after {self.chunks} chunks", code="upstream_died")

    def _count(self, message: Mapping[str, Any]) -> None:
        self.chunks += 1
        number = message.get("chunk", self.chunks)
        if number != self.chunks:
            raise UpstreamError(f"chunk {number} came where {self.chunks} was due", code="upstream_garbled")

    def _total(self, message: Mapping[str, Any]) -> None:
        total = message.get("total_chunks", self.chunks)
        if total != self.chunks:
            raise UpstreamError(f"of {total} chunks {self.chunks} came", code="upstream_garbled")


def reason(message: Mapping[str, Any]) -> str:
    """The back end's own word of what went wrong."""
    what = message.get("error") or message.get("message") or "no reason given"
    if isinstance(what, Mapping):
        what = what.get("message", what)
    return str(what)[:300]


def _payload(message: Mapping[str, Any], number: int) -> Coded | Audio:
    try:
        if "tokens" in message:
            return from_wire(message)
        return _audio(message)
    except CodecError as error:
        raise UpstreamError(f"chunk {number}: {error}", code="upstream_garbled") from error


def _audio(message: Mapping[str, Any]) -> Audio:
    rate = message.get("sample_rate", 48_000)
    if isinstance(rate, bool) or not isinstance(rate, int) or not 8_000 <= rate <= 192_000:
        raise CodecError("sample_rate: not a rate in Hz")
    try:
        data = base64.b64decode(message.get("audio_chunk") or message.get("audio") or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise CodecError("audio_chunk: not base64") from None
    if message.get("format") in FLOATS:
        if len(data) % 4:
            raise CodecError("audio_chunk: not a whole number of 32-bit samples")
        return Audio(to_pcm(np.nan_to_num(np.frombuffer(data, "<f4"))), rate)
    if len(data) % 2:
        raise CodecError("audio_chunk: not a whole number of 16-bit samples")
    return Audio(data, rate)
