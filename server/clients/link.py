"""One WebSocket to a server: opened when it is needed, and again when it was lost."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from server.errors import ParleyError

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 8.0
LARGEST = 16 * 1_048_576  # bytes of one frame


class ConnectionLost(ParleyError):
    """The connection broke, or could not be opened."""

    code = "connection_lost"


class Refused(ParleyError):
    """The server will not serve us, and says why. `retry_after`: seconds, where it says when to come back."""

    code = "refused"

    def __init__(self, message: str, *, code: str = "refused", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after = code, retry_after


class Link:
    """Tries `attempts` times to connect, waiting longer each time. `address` is asked anew for every connection;
    `greet` says what has to be said on each."""

    def __init__(
        self,
        address: Callable[[], str],
        *,
        token: str = "",
        attempts: int = 5,
        greet: Callable[[ClientConnection], Awaitable[None]] | None = None,
    ) -> None:
        self.connections = 0  # so far
        self._address, self._attempts, self._greet = address, attempts, greet
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._socket: ClientConnection | None = None
        self._opening = asyncio.Lock()
        self._restarts = False  # as the server said: it may still listen, and not serve

    @property
    def open(self) -> bool:
        return self._socket is not None

    async def socket(self) -> ClientConnection:
        """The connection, opened if need be. Raises `ConnectionLost`, `Refused`."""
        async with self._opening:
            if self._socket is None:
                self._socket = await self._connect()
        return self._socket

    async def send(self, message: Mapping[str, Any] | bytes) -> None:
        """Raises `ConnectionLost`: then it is not known whether the message arrived."""
        frame = message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False)
        socket = await self.socket()
        try:
            await socket.send(frame)
        except ConnectionClosed as closed:
            raise await self._lost(socket, closed) from None

    async def receive(self) -> dict[str, Any] | bytes:
        """The next frame. Raises `ConnectionLost`, and `Refused` where the server closed for a reason."""
        socket = await self.socket()
        try:
            frame = await socket.recv()
        except ConnectionClosed as closed:
            raise await self._lost(socket, closed) from None
        return frame if isinstance(frame, bytes) else dict(json.loads(frame))

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    async def _connect(self) -> ClientConnection:
        wait = FIRST_WAIT_S
        for attempt in range(self._attempts):
            if attempt or self._restarts:
                await asyncio.sleep(wait * random.uniform(0.5, 1))
                wait = min(wait * 2, LONGEST_WAIT_S)
            try:
                return await self._opened()
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
                failed = error
            except InvalidURI as error:
                raise ConnectionLost(str(error)) from None
        raise ConnectionLost(f"no connection to {self._address()}: {failed}")

    async def _opened(self) -> ClientConnection:
        socket = await connect(
            self._address(), additional_headers=self._headers, compression=None, max_size=LARGEST, proxy=None
        )
        self.connections += 1
        if self._greet:
            await self._greet(socket)
        return socket

    async def _lost(self, socket: ClientConnection, closed: ConnectionClosed) -> ParleyError:
        if self._socket is socket:
            self._socket = None
        code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
        self._restarts = code == 1012
        if code in (1008, 1009, 1013):
            return Refused(reason or f"closed with {code}", code={1013: "busy"}.get(code, "refused"))
        return ConnectionLost(f"the connection was lost ({code} {reason})".replace(" )", ")"))
