"""The way of the sound from the scheduler's thread to a coroutine: bounded, and awake at once."""

import asyncio
import contextlib
from collections.abc import Callable

from server.errors import EngineError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs.codec import RATE


class LoopOutlet:
    """Fills up at `limit_ms` of sound (the piece that passes it is still taken); `room` is called when there is some
    again. Made on the event loop that reads it."""

    def __init__(self, limit_ms: float, room: Callable[[], None]) -> None:
        self._limit_ms, self._room = limit_ms, room
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Speech | EngineError | None] = asyncio.Queue()
        self._put_ms = 0.0  # written by the scheduler's thread only
        self._taken_ms = 0.0  # written by the loop only

    @property
    def full(self) -> bool:
        return self._put_ms - self._taken_ms >= self._limit_ms

    @property
    def taken_ms(self) -> float:
        """How much sound was taken out."""
        return self._taken_ms

    @property
    def empty(self) -> bool:
        """All that was put in was taken out."""
        return self._taken_ms >= self._put_ms

    def put(self, speech: Speech) -> None:
        self._put_ms += _ms(speech)
        self._pass(speech)

    def end(self, error: EngineError | None = None) -> None:
        self._pass(error)

    def _pass(self, item: Speech | EngineError | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever listened
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    async def get(self) -> Speech | None:
        """The next piece, None at the end. Raises the error it ended with."""
        item = await self._queue.get()
        if isinstance(item, EngineError):
            raise item
        if item is not None:
            was_full = self.full
            self._taken_ms += _ms(item)
            if was_full:
                self._room()
        return item


def _ms(speech: Speech) -> float:
    return len(speech.pcm) / 2 / RATE * 1000
