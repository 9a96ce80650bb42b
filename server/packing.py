"""How a reply's audio is packed for its way to the client: PCM in small frames, or a codec's tokens in segments.

One packing serves one reply. `cut` decides how much travels together, `pack` makes a message of it.
"""

from typing import Protocol

from server.audio import frames, milliseconds, size
from server.events import Audio, AudioTokens, Event
from server.pipelines.codec._tokens import to_packed
from server.pipelines.engines import Codec, Samples
from server.pipelines.tts._revoiced import quietest

FRAME_MS = 20
FIRST_MS, LATER_MS = 1_000, 2_000  # of speech in one message of tokens
LEAD_MS = 3_000  # how far ahead of the listener they travel: a segment, and the time to encode the next


class Packing(Protocol):
    format: str  # as `reply.audio` tells it
    least_ms: float  # the shortest message, but for the last

    def rate(self, output_rate: int) -> int:
        """Hz of what the client will play."""
        ...

    def cut(self, pcm: bytes, rate: int, *, last: bool) -> tuple[list[bytes], bytes]:
        """What of `pcm` goes into messages, and what waits for more; with `last` nothing waits."""
        ...

    async def pack(self, reply: int, start_ms: float, pcm: bytes, rate: int) -> Event:
        """One of those pieces as a message. Raises `CodecError`."""
        ...


class Plain:
    """16-bit PCM."""

    format, least_ms = "pcm_s16le", float(FRAME_MS)

    def rate(self, output_rate: int) -> int:
        return output_rate

    def cut(self, pcm: bytes, rate: int, *, last: bool) -> tuple[list[bytes], bytes]:
        whole, rest = frames(pcm, size(FRAME_MS, rate))
        return ([*whole, rest], b"") if last and rest else (whole, rest)

    async def pack(self, reply: int, start_ms: float, pcm: bytes, rate: int) -> Event:
        return Audio(reply, start_ms, pcm)


class Tokens:
    """LinaCodec tokens: segments cut where it is quiet, each whole in itself. The voice's embedding travels once."""

    format, least_ms = "linacodec_tokens", 400.0

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._embedding: Samples | None = None
        self._due_ms = FIRST_MS

    def rate(self, output_rate: int) -> int:
        return self._codec.rate

    def cut(self, pcm: bytes, rate: int, *, last: bool) -> tuple[list[bytes], bytes]:
        whole = []
        while milliseconds(pcm, rate) >= self._due_ms:
            place = quietest(pcm[: size(self._due_ms, rate)], rate)
            whole.append(pcm[:place])
            pcm, self._due_ms = pcm[place:], LATER_MS
        return ([*whole, pcm], b"") if last and pcm else (whole, pcm)

    async def pack(self, reply: int, start_ms: float, pcm: bytes, rate: int) -> Event:
        coded = await self._codec.encode(pcm, rate, self._embedding)
        fields = to_packed(coded)
        embedding = fields["embedding"] if self._embedding is None else None
        self._embedding = coded.embedding
        return AudioTokens(reply, start_ms, fields["tokens"], fields["num_samples"], fields["gain"], embedding)
