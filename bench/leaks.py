"""Many short sessions, each left in another way: what stays behind in the server."""

import asyncio
import itertools
import json
from dataclasses import dataclass

import websockets

from bench.conversation import look

AT_ONCE = 25
WARM = 1_000  # fills the caches, the heap, and the conversations that may be taken up again


@dataclass
class Leaks:
    sessions: int
    seconds: float
    tasks: int
    mb: float
    objects: int

    def __str__(self) -> str:
        return (
            f"{self.sessions} short sessions in {self.seconds:.0f} s: {self.tasks:+d} tasks, "
            f"{self.mb:+.2f} MB, {self.objects / self.sessions:+.2f} objects a session"
        )

    def budgets(self) -> list[tuple[str, bool]]:
        return [
            (f"no task outlives {self.sessions} sessions ({self.tasks:+d})", self.tasks <= 0),
            (f"memory over {self.sessions} sessions ({self.mb:+.2f} MB)", self.mb < self.sessions / 1000 * 5),
        ]


async def leaks(address: str, sessions: int) -> Leaks:
    await _many(address, WARM)
    before, began = await _settled(address), asyncio.get_running_loop().time()
    await _many(address, sessions)
    seconds = asyncio.get_running_loop().time() - began
    after = await _settled(address)
    return Leaks(
        sessions,
        seconds,
        after["tasks"] - before["tasks"],
        after["mb"] - before["mb"],
        after["objects"] - before["objects"],
    )


async def _settled(address: str) -> dict[str, float]:
    """What the server uses once the last session has ended."""
    await asyncio.sleep(1.0)
    return await look(address, collect=True)


async def _many(address: str, sessions: int) -> None:
    numbers = itertools.count()

    async def one_after_another() -> None:
        while (number := next(numbers)) < sessions:
            await _short(address, number)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


async def _short(address: str, number: int) -> None:
    """Ask, and leave: politely, with an interruption, in mid-word without goodbye, or before the answer."""
    async with websockets.connect(f"ws://{address}/ws", compression=None) as socket:
        await socket.send(bytes(640))
        await socket.send(json.dumps({"type": "user.text", "text": "Tell me about the sea."}))
        if number % 4 == 3:
            socket.transport.abort()
            return
        async for message in socket:
            if isinstance(message, bytes):
                break
        if number % 4 == 1:
            await socket.send('{"type": "reply.interrupt"}')
        if number % 4 == 2:
            socket.transport.abort()
