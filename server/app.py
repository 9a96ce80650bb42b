"""The application: engines opened for its lifetime, the routes, the page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from server import characters, services
from server.errors import LimitError, ParleyError
from server.http import health, page
from server.http.tiers.mount import mount
from server.lobby import Lobby
from server.rack import Rack
from server.session import Session
from server.settings import ROOT, Settings
from server.telemetry import session_id, watch_loop
from server.ws.conversation import Conversation


def create_app(settings: Settings, rack: Rack | None = None) -> Starlette:
    """Parley as an ASGI application. `rack`: engines to use instead of those that `settings` name.

    Raises `ConfigError`, `EngineUnavailable`."""
    rack = rack or Rack.of(settings)
    lobby = Lobby(settings.server.sessions, settings.server.resume_s)
    everybody = characters.read(settings.characters.directory, settings.tts.engine)
    characters.chosen(everybody, settings.characters.active)
    tiers, connections = mount(settings, rack, everybody)
    conversation = Conversation(rack, lobby, everybody, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(rack)
                await rack.stt.open(settings.language).close()  # whether it knows the language
            except ParleyError as error:
                app.state.failure = error
                raise
            await stack.enter_async_context(connections)
            watch = asyncio.create_task(watch_loop())
            yield
            watch.cancel()

    routes = [
        *health.routes(rack, lobby, _version()),
        WebSocketRoute("/ws", conversation.__call__),
        *tiers,
        *services.routes(settings, rack, everybody),
        page.mount(ROOT / "static"),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.state.lobby, app.state.rack, app.state.settings = lobby, rack, settings
    app.state.failure = None  # why the engines could not be opened
    return app


async def drain(lobby: Lobby, patience_s: float) -> None:
    """Let every conversation end its sentence, then close it with 1012; nobody new is admitted."""
    lobby.closing = True
    sessions = list(lobby.sessions)
    await asyncio.gather(*(_drain(session, patience_s) for session in sessions))
    for session in sessions:
        session.end(LimitError("the server is restarting; connect again in a moment", code="restart", close=1012))
    with suppress(TimeoutError):
        await asyncio.wait_for(lobby.emptied.wait(), 2)


async def _drain(session: Session, patience_s: float) -> None:
    session_id.set(session.id[:8])  # in a task of its own, whose lines in the log are the session's
    await session.drain(patience_s)


def _version() -> str:
    try:
        return version("parley")
    except PackageNotFoundError:
        return "unknown"
