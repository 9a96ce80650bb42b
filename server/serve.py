"""`serve`: the application under uvicorn, with a shutdown that lets sentences end."""

import socket

import uvicorn
from starlette.applications import Starlette

from server.app import create_app, drain
from server.settings import Settings
from server.telemetry import log, set_up


class Server(uvicorn.Server):
    """uvicorn, but conversations are drained before their sockets are closed."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._parley = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host = self.config.host if self.config.host not in ("0.0.0.0", "::") else "localhost"
            log.info("Parley is ready: open http://%s:%s/", host.replace("127.0.0.1", "localhost"), self.port)

    @property
    def port(self) -> int:
        """The port it listens on, also when it was chosen by the system."""
        return int(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await drain(self._parley.state.lobby, self._parley.state.settings.server.drain_s)
        await super().shutdown(sockets)


def build(settings: Settings, app: Starlette | None = None) -> Server:
    """The server, ready to run. WebSocket compression is off: PCM does not compress."""
    app = app or create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_max_size=max(settings.server.message_bytes * 2, 65_536),
        loop="asyncio",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return Server(config, app)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    set_up(settings.server.log)
    build(settings).run()
