"""A Parley in a process of its own: what it logs, and how it ends."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from server.settings import ROOT


class Process:
    """A server of its own process: its address, and what it has logged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.log = ""
        self.url = ""

    async def ready(self) -> None:
        assert self._process.stdout
        async with asyncio.timeout(60):
            while not (found := re.search(r"http://localhost:\d+", self.log)):
                line = await self._process.stdout.readline()
                assert line, f"the server ended before it was ready:\n{self.log}"
                self.log += line.decode()
        self.url = found[0]

    async def stop(self) -> int:
        """Ask it to end; its exit status."""
        if self._process.returncode is None:
            self._process.terminate()
        assert self._process.stdout
        self.log += (await self._process.stdout.read()).decode()
        return await self._process.wait()


@asynccontextmanager
async def served(*arguments: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """`python -m server serve` on a free port, ready; ended at the end of the block."""
    command = [sys.executable, "-m", "server", "serve", "--port", "0", *arguments]
    process = Process(
        await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env=os.environ | {"PARLEY_LLM_ENGINE": "eliza"} | (environment or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    )
    try:
        await process.ready()
        yield process
    finally:
        await process.stop()
