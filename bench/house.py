"""The server under measurement, in a process of its own: Parley with engines of known delay, and `/bench`, which tells
what it uses. `python -m bench.house` prints its address; `opened` is that from the outside."""

import asyncio
import gc
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.engines import Delays, rack
from bench.wer import memory_mb
from server import events as e
from server.app import create_app
from server.serve import build
from server.session import Received, Session, Write
from server.settings import ROOT, Settings
from server.telemetry import set_up

TICK_S = 0.01
SCHEDULED = Path("/proc/self/schedstat")  # ns it ran, ns it waited for a core, and how often


class Streams:
    """Notes how long each frame of audio was written after the one before it, pauses apart."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    def timed(self, write: Write) -> Write:
        last = 0.0

        async def written(event: e.Event) -> None:
            nonlocal last
            await write(event)
            if isinstance(event, e.Audio):
                at = time.monotonic() * 1000
                self.gaps += [at - last] if last else []
                last = at
            elif isinstance(event, e.ReplyAudio | e.ReplyPaused | e.ReplyResumed):
                last = 0.0

        return written

    def install(self) -> None:
        run = Session.run

        async def timed(session: Session, received: AsyncIterator[Received], write: Write) -> None:
            await run(session, received, self.timed(write))

        Session.run = timed  # type: ignore[method-assign]


class Gauge:
    """Processor time, memory, tasks, the gaps between frames, and how late the event loop was since the last look."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._lags: list[float] = []
        self._watching: asyncio.Task[None] | None = None

    async def look(self, request: Request) -> JSONResponse:
        self._watching = self._watching or asyncio.create_task(self._watch())
        if "collect" in request.query_params:
            gc.collect()
        lags, self._lags = self._lags or [0.0], []
        gaps, self._streams.gaps = self._streams.gaps or [0.0], []
        waited = int(SCHEDULED.read_text().split()[1])  # noqa: ASYNC240
        return JSONResponse(
            {
                "waited_s": waited / 1e9,
                "gap_p99_ms": float(np.percentile(gaps, 99)),
                "gap_max_ms": max(gaps),
                "cpu_s": time.process_time(),
                "at_s": time.monotonic(),
                "mb": memory_mb([os.getpid()]),
                "tasks": len(asyncio.all_tasks()),
                "objects": len(gc.get_objects()) if "collect" in request.query_params else 0,
                "lag_p50_ms": float(np.median(lags)),
                "lag_p99_ms": float(np.percentile(lags, 99)),
                "lag_max_ms": max(lags),
            }
        )

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._lags.append(max(0.0, (time.monotonic() - due) * 1000))


def main() -> None:
    settings = Settings(
        server={"port": 0, "sessions": 4_096},
        turn={"speculative": False},
        characters={"directory": ROOT / "configs" / "characters"},
    )
    app = create_app(settings, rack(Delays()))
    streams = Streams()
    streams.install()
    app.router.routes.insert(0, Route("/bench", Gauge(streams).look))
    set_up(settings.server.log)
    server = build(settings, app)
    server.alone = True
    server.run()


@asynccontextmanager
async def opened(*command: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """The address "127.0.0.1:PORT" of a server started by `python -m command`, ended at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        cwd=ROOT,
        env=os.environ | (environment or {}),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr
    log = b""
    async with asyncio.timeout(120):
        while not (found := re.search(rb"http://localhost:(\d+)", log)):
            line = await process.stderr.readline()
            if not line:
                raise RuntimeError(f"the server did not start:\n{log.decode()}")
            log += line
    swallow = asyncio.create_task(process.stderr.read())
    try:
        yield f"127.0.0.1:{found[1].decode()}"
    finally:
        process.terminate()
        await process.wait()
        await swallow


if __name__ == "__main__":
    main()
