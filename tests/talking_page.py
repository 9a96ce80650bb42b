"""A page whose user has pressed Start, against a scripted server; and what to wait for."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from tests.browser import chromium, open_page, phase
from tests.scripted_server import RATE, ScriptedServer, scripted_server

QUANTUM = 128
FADE = RATE // 100
TEXT = "You follow the map, and never the man who sold it to you."


@asynccontextmanager
async def talking(query: str = "?tap=1", **browser: Any) -> AsyncIterator[tuple[ScriptedServer, Any]]:
    """A page whose user has pressed Start."""
    async with (
        scripted_server() as server,
        chromium(**browser) as chrome,
        open_page(chrome, server.url + query) as page,
    ):
        await page.click("#main-button")
        await server.connected(2)
        await phase(page, "listening")
        yield server, page


async def heard_ms(server: ScriptedServer, reply: int, ms: float) -> None:
    """Once the page has told that `ms` of `reply` have sounded."""
    for count in itertools.count(1):
        told = await server.got("playback", count)
        if told["reply"] == reply and told["ms"] >= ms:
            return


def floats(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


def sounding(samples: np.ndarray) -> tuple[int, int]:
    """Where sound begins and ends."""
    places = np.flatnonzero(samples)
    assert places.size, "nothing was played"
    return int(places[0]), int(places[-1]) + 1


async def until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
