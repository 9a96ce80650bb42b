"""The one thread a codec's model runs on, and the queue before it. What is alike is decoded in one pass.

The model keeps buffers of its own between calls, so nothing else may touch it. While a pass runs, requests gather;
the next pass takes the oldest and with it all of the same length, from whichever session, up to `batch`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from server.errors import CodecError, EngineBusy, ParleyError
from server.pipelines.codec._tokens import Tokens
from server.pipelines.engines import Samples

T = TypeVar("T")


class Network(Protocol):
    """The model itself. Blocking; called from one thread."""

    def load(self) -> None:
        """Read and warm up. Raises `ConfigError`, `EngineUnavailable`."""
        ...

    def encode(self, samples: Samples) -> tuple[Tokens, Samples]:
        """float32 `(N,)` at 24 kHz, peak 1, N a multiple of 3840 -> tokens `(N / 1920,)`, embedding `(128,)`."""
        ...

    def decode(self, tokens: Tokens, embeddings: Samples) -> Samples:
        """int64 `(B, T)`, float32 `(B, 128)` -> float32 `(B, length(T))` at 48 kHz."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Job:
    """Something to be done on the thread. Those with equal keys may be done together; None: alone."""

    key: int | None
    work: Callable[[Sequence[Any]], Sequence[Any]]  # of several items at once
    item: Any
    result: "asyncio.Future[Any]"


class Worker:
    """Runs the network. At most `waiting` requests queue; one more is told `EngineBusy`."""

    def __init__(self, network: Network, batch: int = 16, waiting: int = 256) -> None:
        self.network, self._batch, self._limit = network, batch, waiting
        self._jobs: deque[Job] = deque()
        self._thread = ThreadPoolExecutor(1, "codec")
        self._running: asyncio.Task[None] | None = None
        self._closed = False
        self.passes = 0  # decoding passes so far
        self.decoded = 0  # requests they answered

    async def load(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self.network.load)

    async def encode(self, samples: Samples) -> tuple[Tokens, Samples]:
        """As `Network.encode`."""
        return await self._queue(None, self._encode, samples)  # type: ignore[no-any-return]

    async def decode(self, tokens: Tokens, embedding: Samples) -> Samples:
        """`(T,)`, `(128,)` -> `(length(T),)`, in one pass with others of the same length."""
        return await self._queue(len(tokens), self._decode, (tokens, embedding))  # type: ignore[no-any-return]

    async def close(self) -> None:
        """Whoever still waits is told."""
        if self._closed:
            return
        self._closed = True
        for job in self._jobs:
            _tell(job, CodecError("the codec is stopped"))
        self._jobs.clear()
        if self._running:
            await asyncio.wait([self._running])
        await asyncio.get_running_loop().run_in_executor(self._thread, self.network.close)
        self._thread.shutdown(wait=False)

    def _queue(
        self, key: int | None, work: Callable[[Sequence[Any]], Sequence[Any]], item: Any
    ) -> "asyncio.Future[Any]":
        if self._closed:
            raise CodecError("the codec is stopped")
        self._jobs = deque(job for job in self._jobs if not job.result.done())  # the cancelled ones leave
        if len(self._jobs) >= self._limit:
            raise EngineBusy(f"the codec has {self._limit} requests waiting")
        job = Job(key, work, item, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="codec")
        return job.result

    async def _run(self) -> None:
        """Until nothing waits: so an idle codec has no task."""
        loop = asyncio.get_running_loop()
        try:
            while batch := self._take():
                outcome = await loop.run_in_executor(self._thread, _outcome, batch)
                for job, result in zip(batch, outcome, strict=True):
                    _tell(job, result)
        finally:
            self._running = None

    def _take(self) -> list[Job]:
        """The oldest request and those that can go with it."""
        batch: list[Job] = []
        others: deque[Job] = deque()
        for job in self._jobs:
            if job.result.done():
                continue
            fits = not batch or (job.key is not None and job.key == batch[0].key and len(batch) < self._batch)
            (batch if fits else others).append(job)
        self._jobs = others
        return batch

    def _encode(self, recordings: Sequence[Samples]) -> Sequence[tuple[Tokens, Samples]]:
        return [self.network.encode(samples) for samples in recordings]

    def _decode(self, items: Sequence[tuple[Tokens, Samples]]) -> Sequence[Samples]:
        self.passes += 1
        self.decoded += len(items)
        tokens, embeddings = zip(*items, strict=True)
        return list(self.network.decode(np.stack(tokens), np.stack(embeddings)))


def _outcome(batch: Sequence[Job]) -> Sequence[Any]:
    """A result or an error for each. A pass that fails for several (memory, mostly) is tried again one by one."""
    try:
        return batch[0].work([job.item for job in batch])
    except Exception as error:  # torch's exceptions share no public base
        if len(batch) > 1:
            return [outcome for job in batch for outcome in _outcome([job])]
        return [error if isinstance(error, ParleyError) else CodecError(f"the codec failed: {error}")]


def _tell(job: Job, outcome: Any) -> None:
    if job.result.done():
        return  # cancelled meanwhile
    if isinstance(outcome, Exception):
        job.result.set_exception(outcome)
    else:
        job.result.set_result(outcome)
