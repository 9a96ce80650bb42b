"""A line that can be cut between the clients and a server, and servers behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.app import create_app
from server.http import adaptive
from server.http import speech as speech_http
from server.pipelines.studio import Studio
from server.serve import Server, build
from server.settings import ServerSettings
from server.settings import read as read_settings
from server.ws import chunked_llm
from server.ws import speech as speech_ws
from tests import fakes
from tests.fakes import FakeLLM, FakeTTS
from tests.services import serving

TEXT = "Good evening to you. It is late. Sleep well."
ASK = [{"role": "user", "content": "Hello?"}]


class Line:
    """A TCP relay before a server, so that connections can be cut and the server can seem to be away."""

    def __init__(self, port: int) -> None:
        self._port, self.port, self.away = port, 0, False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            return writer.transport.abort()
        far_reader, far = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, far}
        await asyncio.gather(_pump(reader, far), _pump(far_reader, writer))
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


@asynccontextmanager
async def services(
    tts: FakeTTS | None = None, llm: FakeLLM | None = None, **options: object
) -> AsyncIterator[tuple[Line, Studio]]:
    studio = Studio({"fake": tts or FakeTTS(speed=10)}, waiting=1)
    routes = [
        *speech_http.routes(studio), *adaptive.routes(studio), *speech_ws.routes(studio),
        *chunked_llm.routes(llm or FakeLLM(TEXT), slots=2),
    ]  # fmt: skip
    async with serving(routes) as url, Line(int(url.rpartition(":")[2])) as line, asyncio.timeout(20):
        yield line, studio


@asynccontextmanager
async def parley(**server: object) -> AsyncIterator[Line]:
    settings = read_settings().model_copy(update={"server": ServerSettings(port=0, **server)})  # type: ignore[arg-type]
    running: Server = build(settings, create_app(settings, fakes.rack(llm=FakeLLM("Well hello there. How are you?"))))
    running.config.load()
    running.lifespan = running.config.lifespan_class(running.config)
    await running.startup()
    try:
        async with Line(running.port) as line, asyncio.timeout(20):
            yield line
    finally:
        await running.shutdown()
