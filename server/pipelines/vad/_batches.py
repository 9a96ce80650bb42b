"""Frames of several streams that arrive together, put through the model together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from server.errors import EngineError
from server.pipelines.engines import Samples

CONTEXT = 64  # samples of the frame before that the model sees again
INLINE = 24  # frames of a batch that are still under 2 ms, and so may run on the event loop

Infer = Callable[[Samples, Samples], tuple[Samples, Samples]]
"""(input [N, 64 + 512], state [2, N, 128]) -> (probabilities [N], new state [2, N, 128])"""


@dataclass(eq=False)
class Memory:
    """What the model remembers of one stream."""

    state: Samples = field(default_factory=lambda: np.zeros((2, 128), np.float32))
    context: Samples = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))


@dataclass(frozen=True, eq=False)
class Entry:
    memory: Memory
    frame: Samples
    result: "asyncio.Future[float]"


class Batches:
    """Collects what is submitted within one pass of the event loop and runs it in the next: a frame that is alone
    waits for nobody. While a large batch is in its thread, the next one gathers.

    Holds at most one entry for every `run` in progress."""

    def __init__(self, infer: Infer) -> None:
        self._infer = infer
        self._waiting: list[Entry] = []
        self._thread = ThreadPoolExecutor(1, "vad")
        self._busy = False  # a flush is due or a batch is in the thread
        self._closed = False

    async def run(self, memory: Memory, frame: Samples) -> float:
        """Probability of speech in `frame`; `memory` moves on by it. Raises `EngineError`."""
        if self._closed:
            raise EngineError("the VAD is stopped")
        loop = asyncio.get_running_loop()
        entry = Entry(memory, frame, loop.create_future())
        self._waiting.append(entry)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._flush, loop)
        return await entry.result

    def close(self) -> None:
        """Whoever still waits is told that the VAD is stopped."""
        self._closed = True
        for entry in self._waiting:
            if not entry.result.done():
                entry.result.set_exception(EngineError("the VAD is stopped"))
        self._waiting.clear()
        self._thread.shutdown(wait=False)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._take()
        if not batch:
            self._busy = False
        elif len(batch) <= INLINE:
            self._deliver(batch, self._outcome(batch), loop)
        else:
            job = loop.run_in_executor(self._thread, self._outcome, batch)
            job.add_done_callback(lambda job: self._deliver(batch, job.result(), loop))

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            loop.call_soon(self._flush, loop)

    def _take(self) -> list[Entry]:
        """One entry of each stream: the second frame of a stream needs the state that the first leaves."""
        batch: dict[Memory, Entry] = {}
        later = []
        for entry in self._waiting:
            if entry.result.done():
                continue  # cancelled
            if entry.memory in batch:
                later.append(entry)
            else:
                batch[entry.memory] = entry
        self._waiting = later
        return list(batch.values())

    def _outcome(self, batch: Sequence[Entry]) -> tuple[Samples, Samples] | EngineError:
        try:
            frames = np.stack([np.concatenate([e.memory.context, e.frame]) for e in batch])
            return self._infer(frames, np.stack([e.memory.state for e in batch], axis=1))
        except Exception as error:  # onnxruntime's exceptions share no public base
            return EngineError(f"the VAD failed: {error}")

    def _deliver(
        self, batch: Sequence[Entry], outcome: tuple[Samples, Samples] | EngineError, loop: asyncio.AbstractEventLoop
    ) -> None:
        for row, entry in enumerate(batch):
            if entry.result.done():
                continue  # cancelled while it ran: that frame never was
            if isinstance(outcome, EngineError):
                entry.result.set_exception(outcome)
                continue
            probabilities, state = outcome
            entry.memory.state = state[:, row]
            entry.memory.context = entry.frame[-CONTEXT:]
            entry.result.set_result(float(probabilities[row]))
        self._again(loop)
