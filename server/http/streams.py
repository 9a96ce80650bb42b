"""Responses whose body is made while it is sent, and what a client is told when something is wrong."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from server.errors import (
    ConfigError,
    EngineBusy,
    EngineError,
    EngineUnavailable,
    LimitError,
    ParleyError,
    ProtocolError,
)
from server.telemetry import ERRORS, log

Head = Callable[[int | None], Mapping[str, str]]  # the headers, given the body's length where it is known


def problem(error: ParleyError) -> JSONResponse:
    """`error` as a response, in the words of both FastAPI (`detail`) and OpenAI (`error`)."""
    wait = error.retry_after
    return refusal(str(error), _status(error), error.code, {"Retry-After": str(math.ceil(wait))} if wait else None)


def unforeseen(error: Exception) -> EngineError:
    """`error`, which is a bug, as a client is told of it; the log has all of it."""
    log.error("a request failed", exc_info=error)
    return EngineError("internal error; the server's log tells more", code="internal")


def refusal(message: str, status: int, code: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The same for what needs no exception."""
    ERRORS.labels(code).inc()
    kind = "invalid_request_error" if status < 500 and status != 429 else "server_error"
    body = {"detail": message, "error": {"message": message, "type": kind, "code": code}}
    return JSONResponse(body, status, headers)


def _status(error: ParleyError) -> int:
    match error:
        case EngineBusy():
            return 429
        case EngineUnavailable():
            return 503
        case LimitError(code="unauthorized"):
            return 401
        case LimitError(code="forbidden_origin"):
            return 403
        case LimitError(code="too_long"):
            return 413
        case LimitError(close=1013):
            return 503
        case ConfigError() | ProtocolError() | LimitError():
            return 400
    return 500


class Stream(Response):
    """A response that ends, and closes `body`, as soon as the client is gone.

    What fails before the first byte is answered with its status; later the connection is cut, so that nobody takes
    half for the whole. `whole`: send nothing before everything is there, and say how long it is. `eager`: send the
    head at once, for clients that have more to do before there can be a body."""

    def __init__(
        self, body: AsyncGenerator[bytes, None], head: Head, *, whole: bool = False, eager: bool = False
    ) -> None:
        self._chunks, self._head, self._whole, self._eager = body, head, whole, eager
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(scope, receive, send))
        leaving = asyncio.ensure_future(_gone(receive))
        both = {sending, leaving}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        if not sending.cancelled():
            sending.result()

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks) as body:
            try:
                begun, over = (b"", False) if self._eager else await self._begin(body)
            except ParleyError as error:
                return await problem(error)(scope, receive, send)
            except Exception as error:
                return await problem(unforeseen(error))(scope, receive, send)
            await send(self._start(len(begun) if over else None))
            try:
                await self._rest(begun, body, send)
            except ParleyError as error:
                ERRORS.labels(error.code).inc()
                log.error("speech cut short: %s", error)
                return None  # without a last chunk: the server drops the connection
        return None

    async def _begin(self, body: AsyncGenerator[bytes, None]) -> tuple[bytes, bool]:
        """The first bytes, and whether they are all there is."""
        if self._whole:
            return b"".join([chunk async for chunk in body]), True
        first = await anext(body, None)
        return first or b"", first is None

    async def _rest(self, begun: bytes, body: AsyncGenerator[bytes, None], send: Send) -> None:
        await send({"type": "http.response.body", "body": begun, "more_body": True})
        async for chunk in body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _start(self, length: int | None) -> dict[str, object]:
        headers = [(k.lower().encode(), v.encode("latin-1")) for k, v in self._head(length).items()]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
