"""The decoders of all worker processes, shared by all who speak."""

import asyncio
import json
import os
from collections import deque
from typing import Any

from server.pipelines.stt._process import Job, Worker

DEATHS = 1  # workers an utterance may outlive: what kills one after the other must not do so for ever


class Pool:
    """Gives decoders to utterances. An utterance gets one with its first audio and keeps it to its end; when none is
    free it waits with its audio, and catches up afterwards."""

    def __init__(self, workers: int, streams: int, decoder: dict[str, Any]) -> None:
        setup = json.dumps({"streams": streams, "decoder": decoder})
        self.workers = [Worker(self, streams, setup) for _ in range(workers)]
        self._waiting: deque[Job] = deque()
        self._lives: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns when all decoders are loaded. Raises `EngineUnavailable`."""
        starts = [asyncio.ensure_future(worker.start()) for worker in self.workers]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.wait(starts)
            await self.stop()
            raise
        self._lives = [asyncio.create_task(worker.live(), name="stt worker") for worker in self.workers]
        self.fill()

    async def stop(self) -> None:
        """Ends every process; who still waits for words is told."""
        for life in self._lives:
            life.cancel()
        if self._lives:
            await asyncio.wait(self._lives)
            self._lives.clear()
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        for job in [*self._waiting, *(job for worker in self.workers for job in worker.jobs if job)]:
            self._fail(job, "the recogniser is stopped")

    def pump(self, job: Job) -> None:
        """Move an utterance on as far as it goes without waiting."""
        if job.error:
            self.release(job, drop=False)
        elif job.worker:
            job.worker.advance(job)
            if job.utterance.result is not None:
                self.release(job, drop=False)
        elif job.utterance.unheard and job not in self._waiting:
            self._waiting.append(job)
            self.fill()
        job.changed.set()

    def release(self, job: Job, drop: bool = True) -> None:
        """The utterance needs no decoder any more; with `drop`, it is not even at its end."""
        if job in self._waiting:
            self._waiting.remove(job)
        if job.worker:
            job.worker.release(job, drop)
            self.fill()

    def fill(self) -> None:
        """Give free decoders to who has waited longest."""
        while self._waiting:
            worker = max(self.workers, key=lambda worker: worker.free)
            if not worker.free:
                return
            job = self._waiting.popleft()
            worker.assign(job)
            self.pump(job)

    def orphaned(self, job: Job) -> None:
        """Its worker died: the utterance begins again on another, before all who wait."""
        job.worker = None
        job.utterance.deaths += 1
        if job.utterance.deaths > DEATHS:
            self._fail(job, "speech recognition died twice of this utterance")
            return
        job.utterance.replay()
        self._waiting.appendleft(job)
        self.fill()

    def despair(self, reason: str) -> None:
        """A worker does not start. If it was the last one, who waits is told rather than kept waiting."""
        if not any(worker.ready for worker in self.workers):
            for job in list(self._waiting):
                self._fail(job, reason)

    def _fail(self, job: Job, error: str) -> None:
        job.error = error
        self.release(job, drop=False)
        job.changed.set()


def default_workers() -> int:
    """One core is left to the event loop."""
    return max(1, min(4, (os.cpu_count() or 2) - 1))
