"""`/ws/llm`: a language model's answers in chunks, each made when it is asked for, and cancelled within a token."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from server.access import accepted
from server.errors import LimitError, ParleyError, ProtocolError
from server.incoming import given
from server.pipelines.engines import LLM
from server.pipelines.quoting import brief
from server.telemetry import ERRORS, log
from server.ws.answers import Answer, Continue, Pause, Slots, Start
from server.ws.wire import Wire

PROBE_S = 5.0
WAITING = 64  # chunks of one answer that were asked for and are not yet made
ACTIONS = "start_stream, continue_stream, cancel_stream, end_stream, ping"

Allowed = Callable[[HTTPConnection], bool]


def routes(llm: LLM, *, slots: int = 8, allowed: Allowed = lambda connection: True) -> list[BaseRoute]:
    """The socket, its health and its description, each also where clients that append to an address look for them."""
    places = Slots(slots)

    async def answers(socket: WebSocket) -> None:
        await socket.accept(accepted(socket.scope.get("subprotocols", [])))
        async with Wire(socket) as wire:
            try:
                if not allowed(socket):
                    raise LimitError("a token is needed: ?token=...", code="unauthorized")
            except LimitError as error:
                return await wire.refuse(error)
            await Connection(llm, places, wire).run()
        return None

    async def health(request: Request) -> Response:
        url, alive = await probed(llm)
        return JSONResponse(
            {
                "status": "ok" if alive else "degraded",
                "llama_server": "healthy" if alive else "unreachable",
                "llama_url": url,
                "active_streams": places.used,
                "slot_cooldown_ms": 0,
            }
        )

    async def described(request: Request) -> Response:
        return JSONResponse(
            {
                "service": "chunked LLM",
                "websocket": "/ws/llm",
                "health": "/ws/llm/health",
                "actions": ACTIONS.split(", "),
            }
        )

    return [
        WebSocketRoute("/ws/llm", answers),
        WebSocketRoute("/ws/llm/ws", answers),
        Route("/ws/llm/health", health),
        Route("/ws/llm", described),
    ]


class Connection:
    """One client and its answers. Chunks that are not tagged are made one at a time, in the order they were asked."""

    def __init__(self, llm: LLM, slots: Slots, wire: Wire) -> None:
        self._llm, self._slots, self._wire = llm, slots, wire
        self._answers: dict[str | int, Answer] = {}
        self._order = asyncio.Lock()

    async def run(self) -> None:
        """Until the client leaves."""
        try:
            async with aclosing(self._wire.messages()) as messages:
                async for message in messages:
                    await self._take(message)
        except LimitError as error:  # it does not read
            await self._wire.refuse(error)
        finally:
            for answer in list(self._answers.values()):
                for task in answer.tasks:
                    task.cancel()
                await self._drop(answer)

    async def _take(self, message: dict[str, Any] | ProtocolError) -> None:
        named = {} if isinstance(message, ProtocolError) or "stream_id" not in message else message
        try:
            if isinstance(message, ProtocolError):
                raise message
            await self._obey(message)
        except LimitError as error:
            if error.code == "not_reading":
                raise
            self._complain(error, named)
        except ParleyError as error:
            self._complain(error, named)

    async def _obey(self, message: dict[str, Any]) -> None:
        action = message.get("action")
        if action == "ping":
            return self._wire.tell({"status": "pong"})
        if action not in ("start_stream", "continue_stream", "cancel_stream", "end_stream"):
            message.pop("stream_id", None)
            raise ProtocolError(f"Unknown action: {brief(str(action))}")
        id = message.get("stream_id")
        if not id or isinstance(id, bool) or not isinstance(id, str | int):
            message.pop("stream_id", None)
            raise ProtocolError("stream_id required")
        match action:
            case "start_stream":
                self._start(id, given(Start, message))
            case "continue_stream":
                self._make(self._found(id), given(Continue, message).pause)
            case "cancel_stream":
                answer = self._found(id)
                bill = await self._drop(answer)
                full = {"full_text": answer.generation.text}
                await self._wire.put(answer, {"stream_id": id, "status": "cancelled"} | full | bill)
            case "end_stream":
                bill = await self._drop(self._answers[id]) if id in self._answers else {}
                await self._wire.put(None, {"stream_id": id, "status": "ended"} | bill)
        return None

    def _start(self, id: str | int, start: Start) -> None:
        if id in self._answers:
            raise ProtocolError(f"Stream {brief(str(id))} already exists")
        self._slots.take()
        answer = self._answers[id] = Answer(id, self._llm, start, asyncio.Lock() if start.tagged else self._order)
        self._make(answer, start.pause)

    def _make(self, answer: Answer, pause: Pause | None) -> None:
        """Raises `LimitError` for a client that asks for more and more before it has read what it asked for."""
        if len(answer.tasks) >= WAITING:
            raise LimitError(
                f"{WAITING} chunks of stream {brief(str(answer.id))} are asked for already", code="too_many"
            )
        task = asyncio.create_task(self._chunk(answer, pause))
        answer.tasks.add(task)
        task.add_done_callback(answer.tasks.discard)

    async def _chunk(self, answer: Answer, pause: Pause | None) -> None:
        try:
            if not await answer.chunk(pause, partial(self._wire.put, answer)):
                self._forget(answer)
        except Exception as error:
            log.exception("an answer failed")
            self._forget(answer)
            failed = {"stream_id": answer.id, "error": f"internal error: {type(error).__name__}", "code": "error"}
            await self._wire.put(answer, failed)

    async def _drop(self, answer: Answer) -> dict[str, Any]:
        """Its end, and its slot is free."""
        try:
            return await answer.end()
        finally:
            self._forget(answer)

    def _forget(self, answer: Answer) -> None:
        if self._answers.get(answer.id) is answer:
            del self._answers[answer.id]
            self._slots.give_back()

    def _found(self, id: str | int) -> Answer:
        try:
            return self._answers[id]
        except KeyError:
            raise ProtocolError("Stream not found") from None

    def _complain(self, error: ParleyError, named: dict[str, Any]) -> None:
        ERRORS.labels(error.code).inc()
        whose = {"stream_id": named["stream_id"]} if "stream_id" in named else {}
        wait = error.retry_after
        later = {"retry_after": wait} if wait else {}
        self._wire.tell(whose | {"error": str(error), "code": error.code} | later)


async def probed(llm: LLM) -> tuple[str, bool]:
    """Where the model is served (empty: in this process), and whether somebody answers there."""
    endpoint = getattr(getattr(llm, "chosen", llm), "endpoint", None)
    if endpoint is None:
        return "", True
    return endpoint.base_url, await endpoint.answers(PROBE_S)
