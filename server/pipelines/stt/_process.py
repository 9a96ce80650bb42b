"""One worker process, its decoders, and the utterances they are in."""

import asyncio
import contextlib
import logging
import sys
from dataclasses import dataclass, field
from typing import Protocol

from server.errors import EngineUnavailable
from server.pipelines.stt import _worker as wire
from server.pipelines.stt._utterance import Utterance

log = logging.getLogger(__name__)

LOADING = 60.0  # s a worker may take to load its decoders
LEAVING = 2.0  # s it may take to end when told to, before it is killed
PAUSE = 5.0  # s, the longest wait between two attempts to start it again
SENDS = {"begin": wire.BEGIN, "audio": wire.AUDIO, "end": wire.END}


@dataclass(eq=False)
class Job:
    """An utterance on its way through the pool; `changed` is set whenever there is something new to see."""

    utterance: Utterance
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""
    worker: "Worker | None" = None
    decoder: int = 0


class Owner(Protocol):
    """Whom a worker tells what happens."""

    def pump(self, job: Job) -> None: ...
    def fill(self) -> None: ...
    def orphaned(self, job: Job) -> None: ...
    def despair(self, reason: str) -> None: ...


class Worker:
    """A process with `streams` decoders, started again whenever it dies, until it is stopped."""

    def __init__(self, owner: Owner, streams: int, setup: str) -> None:
        self._owner = owner
        self._setup = setup
        self._process: asyncio.subprocess.Process | None = None
        self.jobs: list[Job | None] = [None] * streams  # by decoder
        self.ready = False

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def free(self) -> int:
        """How many decoders have nothing to do."""
        return self.jobs.count(None) if self.ready else 0

    async def start(self) -> None:
        """Returns when the decoders are loaded. Raises `EngineUnavailable`."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", wire.__file__, self._setup),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal is for the server alone
        )
        try:
            async with asyncio.timeout(LOADING):
                await self._read()
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            await self._kill()
            raise EngineUnavailable("pocketsphinx could not load its model; its message is above") from error
        self.ready = True

    async def live(self) -> None:
        """Pass on what the process answers; when it dies, hand its utterances back and start another."""
        while True:
            try:
                while True:
                    self._take(*await self._read())
            except asyncio.IncompleteReadError:
                log.warning("a speech recognition worker died; starting another")
            self.ready = False
            orphans, self.jobs = self.jobs, [None] * len(self.jobs)
            for job in filter(None, orphans):
                self._owner.orphaned(job)
            await self._kill()
            await self._restart()

    async def _restart(self) -> None:
        pause = 0.1
        while not self.ready:
            try:
                await self.start()
            except (EngineUnavailable, OSError) as error:
                log.error("a speech recognition worker does not start: %s", error)
                self._owner.despair(str(error))
                await asyncio.sleep(pause)
                pause = min(2 * pause, PAUSE)
        self._owner.fill()

    async def _read(self) -> tuple[int, int, int, str]:
        source = self._process.stdout if self._process else None
        assert source is not None
        what, decoder, number, length = wire.HEADER.unpack(await source.readexactly(wire.HEADER.size))
        return what, decoder, number, (await source.readexactly(length)).decode()

    def _take(self, what: int, decoder: int, number: int, body: str) -> None:
        job = self.jobs[decoder]
        if job is None or job.utterance.number != number:
            return  # it was dropped meanwhile
        if what == wire.TEXT:
            job.utterance.heard(body)
        elif what == wire.FINAL:
            mean, _, text = body.partition("\n")
            job.utterance.ended(mean, text)
        else:
            job.error = f"pocketsphinx failed: {body}"
        self._owner.pump(job)

    def assign(self, job: Job) -> None:
        job.worker, job.decoder = self, self.jobs.index(None)
        self.jobs[job.decoder] = job

    def release(self, job: Job, drop: bool) -> None:
        """The decoder is free; with `drop`, in the middle of the utterance."""
        if drop:
            self._send(job, wire.DROP, b"")
        self.jobs[job.decoder] = None
        job.worker = None

    def advance(self, job: Job) -> None:
        """Send what the utterance wants sent. Not more than one unanswered piece of each is in the pipe, so this
        never has to wait for room there."""
        while step := job.utterance.step():
            self._send(job, SENDS[step[0]], step[1])

    def _send(self, job: Job, what: int, body: bytes) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.write(wire.HEADER.pack(what, job.decoder, job.utterance.number, len(body)) + body)

    async def stop(self) -> None:
        """Closing its input is what ends the process."""
        self.ready = False
        if self._process and self._process.stdin:
            self._process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVING):
                    await self._process.wait()
        await self._kill()

    async def _kill(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._process = None
