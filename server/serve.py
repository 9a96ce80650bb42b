"""`serve`: the application under uvicorn, with a shutdown that lets sentences end."""

import asyncio
import errno
import gc
import logging
import socket

import uvicorn
from starlette.applications import Starlette

from server.app import create_app, drain
from server.errors import ConfigError
from server.settings import Settings
from server.telemetry import log, set_up


class Server(uvicorn.Server):
    """uvicorn, but conversations are drained before their sockets are closed.

    `alone`: it has the process to itself, so what is loaded at the start is never looked at for garbage again; that
    would hold everybody up for 40 ms, now and then."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._parley = app
        self.alone = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.alone:
            gc.collect()
            gc.freeze()
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


def taken(host: str, port: int) -> str:
    """Why `port` on `host` cannot be listened on; empty where it can."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], address[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
        return ""
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine: --host 127.0.0.1, or 0.0.0.0 for all"
        return f"{port} on {host}: {error.strerror or error}; take another: --port N (make run PORT=N)"


def _cut_off(record: logging.LogRecord) -> bool:
    """Whether it tells where in the code a request was that the shutdown did not wait for any longer."""
    return isinstance(record.exc_info[1] if record.exc_info else None, asyncio.CancelledError)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises `ConfigError` or `EngineUnavailable` where that cannot begin."""
    set_up(settings.server.log)
    if reason := taken(settings.server.host, settings.server.port):
        raise ConfigError(reason)
    app = create_app(settings)
    server = build(settings, app)
    server.alone = True
    # What an engine lacks is said in one line, by who called; uvicorn would add where in the code it was noticed.
    logging.getLogger("uvicorn.error").addFilter(lambda record: app.state.failure is None and not _cut_off(record))
    try:
        server.run()
    finally:
        if app.state.failure:
            raise app.state.failure from None
