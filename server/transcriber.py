"""The transcriber: one conversation's recogniser, working beside it. Audio is handed over, never waited for."""

import asyncio
from collections import deque
from collections.abc import Callable

from server.audio import milliseconds
from server.errors import STTError
from server.pipelines.engines import HEARING_RATE, Recogniser, Transcript
from server.telemetry import log

BEHIND_MS = 30_000  # audio the recogniser may lag behind; beyond, the oldest is dropped and counted


class Transcriber:
    """Runs a `Recogniser` in order, one call at a time. `on_partial` gets the utterance's text whenever it changes."""

    def __init__(self, recogniser: Recogniser, on_partial: Callable[[str], None]) -> None:
        self._recogniser = recogniser
        self._on_partial = on_partial
        self._work: deque[bytes | tuple[str, asyncio.Future[Transcript]]] = deque()
        self._pending_ms = 0.0
        self._wake = asyncio.Event()
        self._failed: STTError | None = None
        self.dropped_ms = 0.0

    def feed(self, pcm: bytes) -> None:
        """Take PCM at 16 kHz."""
        self._work.append(pcm)
        self._pending_ms += milliseconds(pcm, HEARING_RATE)
        while self._pending_ms > BEHIND_MS:
            self._drop_oldest()
        self._wake.set()

    def _drop_oldest(self) -> None:
        oldest = next(item for item in self._work if isinstance(item, bytes))
        self._work.remove(oldest)
        lost = milliseconds(oldest, HEARING_RATE)
        self._pending_ms -= lost
        self.dropped_ms += lost

    async def peek(self) -> Transcript:
        """The text of all audio fed so far, the utterance going on. Raises `STTError`."""
        return await self._ask("peek")

    async def finish(self) -> Transcript:
        """The final text of all audio fed so far; the next audio begins a new utterance. Raises `STTError`."""
        return await self._ask("finish")

    def forget(self) -> None:
        """Drop the utterance under way; one that has ended and waits for its text still gets it."""
        self._drop(ended=False)

    def clear(self) -> None:
        """Drop everything. Whoever still waits for a text gets none."""
        self._drop(ended=True)

    def _drop(self, *, ended: bool) -> None:
        while self._work and (ended or isinstance(self._work[-1], bytes) or self._work[-1][0] != "finish"):
            item = self._work.pop()
            if isinstance(item, bytes):
                self._pending_ms -= milliseconds(item, HEARING_RATE)
            elif not item[1].done():
                item[1].set_result(Transcript(""))
        self._queue("reset")

    async def _ask(self, what: str) -> Transcript:
        return await self._queue(what)

    def _queue(self, what: str) -> asyncio.Future[Transcript]:
        answer: asyncio.Future[Transcript] = asyncio.get_running_loop().create_future()
        self._work.append((what, answer))
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Work until cancelled; then free the recogniser."""
        try:
            while True:
                while not self._work:
                    self._wake.clear()
                    await self._wake.wait()
                item = self._work.popleft()
                await (self._listen(item) if isinstance(item, bytes) else self._answer(*item))
        finally:
            await self._recogniser.close()

    async def _listen(self, pcm: bytes) -> None:
        parts = [pcm]
        while self._work and isinstance(self._work[0], bytes):  # one call for all that has piled up
            parts.append(self._work.popleft())  # type: ignore[arg-type]
        pcm = b"".join(parts)
        self._pending_ms -= milliseconds(pcm, HEARING_RATE)
        if self._failed:
            return
        try:
            text = await self._recogniser.feed(pcm)
        except Exception as error:
            self._failed = _told(error)
        else:
            if text is not None:
                self._on_partial(text)

    async def _answer(self, what: str, answer: asyncio.Future[Transcript]) -> None:
        failed = self._failed
        if what != "peek":
            self._failed = None
        try:
            if failed or what == "reset":
                await self._recogniser.reset()
                result: Transcript | STTError = failed or Transcript("")
            else:
                result = await (self._recogniser.peek() if what == "peek" else self._recogniser.finish())
        except Exception as error:
            result = _told(error)
        if answer.done():
            return
        if isinstance(result, Transcript):
            answer.set_result(result)
        elif what == "reset":
            answer.set_result(Transcript(""))
        else:
            answer.set_exception(result)


def _told(error: Exception) -> STTError:
    """`error` as the client is told of it; what the engine did not foresee is for the log."""
    if isinstance(error, STTError):
        return error
    log.error("the recogniser failed", exc_info=error)
    return STTError("internal error; the log tells more", code="internal")
