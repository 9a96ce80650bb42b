"""A client of the adaptive streams for tests, and a server of a fake engine for it."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from server.http import adaptive
from server.http.running import Shelf
from server.pipelines.studio import Studio
from tests.fakes import FakeTTS
from tests.services import serving

STORY = "Once there was a fox. It lived in a wood, near a river. Every morning it went down to drink. "


class Fake:
    """A server with a fake engine, 5 times faster than real time."""

    def __init__(self, idle_s: float = 30) -> None:
        self.engine = FakeTTS(speed=5)
        self.studio, self.shelf = Studio({"fake": self.engine}), Shelf(idle_s, limit=4)

    async def run(self, scene: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async with (
            serving(adaptive.routes(self.studio, self.shelf)) as url,
            httpx.AsyncClient(base_url=url) as client,
            asyncio.timeout(20),
        ):
            await scene(client)


async def create(client: httpx.AsyncClient, **asked: object) -> str:
    answer = await client.post("/v1/tts/stream", json=asked)
    assert answer.status_code == 200
    told = answer.json()
    assert told["audio_url"] == f"/v1/tts/stream/{told['stream_id']}/audio"
    return f"/v1/tts/stream/{told['stream_id']}"


async def read(client: httpx.AsyncClient, at: str) -> bytes:
    return (await client.get(f"{at}/audio")).content


async def state(client: httpx.AsyncClient, at: str) -> str:
    return str((await client.get(at)).json()["state"])
