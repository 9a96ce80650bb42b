"""Blocking engines read as async generators: made on a worker's thread, taken one piece at a time by the loop.

Closing either generator (or cancelling its reader) stops the engine after the piece in flight and waits for nothing:
the worker is first in, first out, so whatever comes next begins when that piece is done.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from server.pipelines.crew import Worker

T = TypeVar("T")

LIMIT = 2048  # pieces a producer may be ahead of its reader; a full buffer makes the producer wait
PATIENCE_S = 0.02  # how long a producer waits to be asked for more, before it goes on without its reader


@dataclass(frozen=True)
class _End:
    """What comes after the last piece. `error`: it was not meant to be the last."""

    error: BaseException | None = None


_END: Final = _End()


async def pull(make: Callable[[], Iterator[T]], executor: Executor) -> AsyncGenerator[T, None]:
    """What the iterator of `make()` yields, each piece made when it is asked for. Nothing is made ahead, so streams
    that share a worker take turns, and between two pieces the worker is free.

    `executor` has one worker: the iterator's closing has to come after its step in flight. Raises what it raises."""
    loop = asyncio.get_running_loop()
    source: list[Iterator[T]] = []

    def step() -> T | _End:
        if not source:
            source.append(make())
        return next(source[0], _END)

    try:
        while not isinstance(piece := await loop.run_in_executor(executor, step), _End):
            yield piece
    finally:
        with contextlib.suppress(RuntimeError):  # the executor is shut down already
            executor.submit(_close, source)


def _close(source: list[Iterator[T]]) -> None:
    if source and (close := getattr(source[0], "close", None)):
        close()


class _Basin(Generic[T]):
    """A bounded buffer filled by one thread and emptied by the loop."""

    def __init__(self, limit: int, worker: Worker) -> None:
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._pieces: asyncio.Queue[T | _End] = asyncio.Queue()
        self._room = threading.Semaphore(limit)
        self._asked = threading.Semaphore(0)
        self._led = True  # its reader keeps asking
        self._closed = False

    def give(self, piece: T) -> bool:
        """From the thread: add `piece`, waiting for room, and for the reader to ask for the next one. False once nobody
        reads any more: stop producing."""
        while not self._room.acquire(timeout=1):
            if self._loop.is_closed():  # whoever read was never closed: let the thread end all the same
                return False
        if self._led:
            self._worker.rise()
        return self._post(piece) and self._wanted()

    def _wanted(self) -> bool:
        if self._led:
            self._led = self._asked.acquire(timeout=PATIENCE_S)
            if not self._led:
                self._worker.sit()
        return not self._closed

    def finish(self, error: BaseException | None = None) -> None:
        self._worker.rise()
        self._post(_End(error))

    def _post(self, piece: T | _End) -> bool:
        if self._closed:
            return False
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop is closed
            self._closed = True
        return not self._closed

    async def take(self) -> T | _End:
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def ask(self) -> None:
        if self._led:
            self._worker.sit()
        self._asked.release()

    def close(self) -> None:
        self._closed = True
        self._asked.release()
        self._room.release()  # a producer that waits for either learns of it


async def pour(
    produce: Callable[[Callable[[T], bool]], None], worker: Worker, limit: int = LIMIT
) -> AsyncGenerator[T, None]:
    """What `produce(give)` hands to `give` on the thread of `worker`, for engines that call back with what they make.

    While its reader keeps asking, a piece is made when it is asked for: so those who take turns at an engine take turns
    at the processor, too, and the loop has the interpreter's lock as soon as there is something to send. A reader who
    pauses keeps no worker: the rest is made ahead of him, until it is `limit` pieces; then `give` waits.

    `give` returns False once nobody reads any more; `produce` must then return. Raises what `produce` raises."""
    basin: _Basin[T] = _Basin(limit, worker)

    def work() -> None:
        try:
            produce(basin.give)
        except BaseException as error:
            basin.finish(error)
        else:
            basin.finish()

    worker.sit()
    try:
        job = worker.submit(work)
    except RuntimeError:  # its engine was stopped
        worker.rise()
        raise
    try:
        while not isinstance(piece := await basin.take(), _End):
            yield piece
            basin.ask()
        if piece.error:
            raise piece.error
    finally:
        basin.close()
        if job.cancel():  # it had not begun
            worker.rise()
