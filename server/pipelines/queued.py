"""What other servers ask for takes its turns at the engine, as all speech that is asked for."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from server.audio import milliseconds
from server.pipelines.admission import Stream
from server.pipelines.engines import Speaker, Speech

# Who has much ahead may be kept waiting for about as long, while others begin. Whoever waits for chunks gives up before
# (`tiers.chunk_timeout_s`), however much was sent.
MOST_MS = 2_000.0


class Queued:
    """`speaker` (at `rate` Hz), each of whose pieces takes a turn of `stream`'s."""

    def __init__(self, speaker: Speaker, rate: int, stream: Stream) -> None:
        self._speaker, self._rate, self._stream = speaker, rate, stream

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """Raises `TTSError`, and `EngineBusy` where the engine never had a place for this one."""
        async with aclosing(self._speaker.speak(text)) as pieces:
            while piece := await self._turn(pieces):
                self._stream.sent(milliseconds(piece.pcm, self._rate), MOST_MS)
                yield piece

    async def _turn(self, pieces: AsyncGenerator[Speech, None]) -> Speech | None:
        async with self._stream.turn():
            return await anext(pieces, None)

    async def close(self) -> None:
        await self._speaker.close()
