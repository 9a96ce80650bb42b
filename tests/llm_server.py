"""A scripted OpenAI-compatible server on loopback, for tests: it says what it is told, as fast or badly as it is told.

    async with LLMServer("Hello there. How are you?", delay=0.01) as server:
        engine = create(base_url=server.url)                 # "http://127.0.0.1:PORT/v1"

What it says: `text`, a string or a function of the request's messages (a list of dicts; without the assistant message
that is being continued). It is cut into `tokens(text)`, much as a model would; each is one event. The same messages
always earn the same text.

How it behaves (constructor arguments, all attributes that may be changed between requests):
  delay        seconds before each token              first        seconds before the first one, instead
  flavour      "openai" knows no prefill and refuses unknown fields with 400
               "vllm"   continues the last message with `continue_final_message` (400 beside `add_generation_prompt`),
                        answers /version
               "llama.cpp" continues when the last message is the assistant's, takes `id_slot`, answers /props, /health
               "ollama" is owned by "library"; continues as llama.cpp does
  api_key      when set, any other key earns 401      models       what GET /v1/models lists; [] is a proper empty list
  plan         a list of `Fault`s; each chat request takes the first away and suffers it; none left: all is well
  always       a `Fault` for every request that finds no plan
  thinking     text sent as `reasoning_content` before the answer
  burst        tokens per event (default 1)
  echoes       repeats the message that is continued in its first event, as some versions of llama.cpp do
  trims        drops spaces at the end of a message that is continued, as many chat templates do

    Fault(status=429, headers={"retry-after": "7"}, message="slow down")    an HTTP error
    Fault(stall_after=3)     sends three tokens, then nothing, until the client leaves
    Fault(die_after=3)       sends three tokens, then drops the connection
    Fault(error_after=3)     sends three tokens, then an error event
    Fault(garbage_after=3)   sends three tokens, then what is no JSON
    Fault(hang=True)         accepts the request and never answers

What it saw: `requests`, a list of `Seen` in order of arrival, each with
  body, headers, messages, prompt (as a chat template would write it), sent (tokens), text (what was sent),
  finish ("stop", "length", or None), aborted (the client left before the end), done (an Event: it is over)
  cached       characters of the prompt that an earlier prompt with its answer begins with: what a cache saves
and `hits`, a count of all requests by path. `await server.arrived(n)` waits for the n-th
request, `await server.idle()` until none is in flight.
"""

import asyncio
import collections
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

OWNERS = {"vllm": "vllm", "llama.cpp": "llamacpp", "ollama": "library"}
TEXT = (
    "Good evening. Dr. Smith paid 3.14 dollars for it. “Is that so? I never knew,” she said. Then they walked home, "
    "talking about the weather, the moon and the price of tea. It was late. Nobody else was about!"
)


def tokens(text: str) -> list[str]:
    """Words with the space before them, digits one by one, marks one by one: much as a model's tokenizer cuts."""
    return re.findall(r"\s?[^\W\d_]{1,8}|\s?\d|\s?[^\w\s]|\s+|_", text)


@dataclass(frozen=True)
class Fault:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "scripted failure"
    stall_after: int | None = None
    die_after: int | None = None
    error_after: int | None = None
    garbage_after: int | None = None
    hang: bool = False


@dataclass
class Seen:
    body: dict[str, Any]
    headers: dict[str, str]
    prompt: str = ""
    sent: int = 0
    text: str = ""
    finish: str | None = None
    aborted: bool = False
    cached: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return self.body["messages"]


class LLMServer:
    def __init__(
        self,
        text: str | Callable[[list[dict[str, Any]]], str] = TEXT,
        *,
        delay: float = 0.0,
        first: float | None = None,
        flavour: str = "openai",
        api_key: str = "",
        models: Sequence[str] = ("scripted-1",),
        plan: Sequence[Fault] = (),
        always: Fault | None = None,
        thinking: str = "",
        burst: int = 1,
        trims: bool = False,
        echoes: bool = False,
    ) -> None:
        self.text, self.delay, self.first, self.flavour, self.api_key = text, delay, first, flavour, api_key
        self.models, self.plan, self.always, self.thinking, self.burst = (
            list(models),
            list(plan),
            always,
            thinking,
            burst,
        )
        self.requests: list[Seen] = []
        self.hits: collections.Counter[str] = collections.Counter()
        self.host = ""  # "http://127.0.0.1:PORT"
        self.owner = ""  # `owned_by` of the models; empty: as the flavour has it
        self._news = asyncio.Condition()
        self.trims, self.echoes = trims, echoes
        self._known: list[str] = []  # every prompt and answer so far

    @property
    def url(self) -> str:
        return f"{self.host}/v1"

    async def arrived(self, count: int) -> None:
        """Waits until so many chat requests have come."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    async def idle(self) -> None:
        for seen in list(self.requests):
            await seen.done.wait()

    async def __aenter__(self) -> Self:
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            *(Route(path, self._facts) for path in ("/v1/models", "/version", "/props", "/health", "/{path:path}")),
        ]
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.host = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="critical", lifespan="off", timeout_graceful_shutdown=1
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        await self._server.startup([self._socket])  # without its main loop, which ticks ten times a second
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if running := list(self._server.server_state.tasks):
            for task in running:
                task.cancel()
            await asyncio.wait(running)
        self._socket.close()

    async def _facts(self, request: Request) -> Response:
        path = request.url.path
        self.hits[path] += 1
        if path == "/v1/models":
            if not self._allowed(request):
                return _error(401, "Incorrect API key provided", {})
            owner = self.owner or OWNERS.get(self.flavour, "openai")
            data = [{"id": name, "object": "model", "created": 1, "owned_by": owner} for name in self.models]
            return JSONResponse({"object": "list", "data": data})
        if path == "/version" and self.flavour == "vllm":
            return JSONResponse({"version": "0.11.0"})
        if path == "/props" and self.flavour == "llama.cpp":
            return JSONResponse({"default_generation_settings": {}, "total_slots": 1, "chat_template": ""})
        if path == "/health" and self.flavour in ("vllm", "llama.cpp"):
            return JSONResponse({"status": "ok"})
        return JSONResponse({"detail": "Not Found"}, 404)

    async def _chat(self, request: Request) -> Any:
        self.hits[request.url.path] += 1
        seen = Seen(await request.json(), dict(request.headers))
        async with self._news:
            self.requests.append(seen)
            self._news.notify_all()
        fault = self.plan.pop(0) if self.plan else self.always or Fault()
        if not self._allowed(request):
            fault = Fault(status=401, message="Incorrect API key provided")
        if (refused := self._refusal(seen.body)) and not fault.status:
            fault = Fault(status=400, message=refused)
        if fault.status:
            seen.done.set()
            return _error(fault.status, fault.message, fault.headers, self._param(fault.message))
        said = self._prepare(seen)
        return _Stream(self._events(seen, said, fault), seen, hang=fault.hang)

    def _allowed(self, request: Request) -> bool:
        return not self.api_key or request.headers.get("authorization") == f"Bearer {self.api_key}"

    def _refusal(self, body: dict[str, Any]) -> str:
        if self.flavour == "openai":
            strange = {"continue_final_message", "add_generation_prompt", "id_slot", "cache_prompt"} & set(body)
            return f"Unrecognized request argument supplied: {min(strange)}" if strange else ""
        both = body.get("continue_final_message") and body.get("add_generation_prompt", True)
        return "Cannot set both `continue_final_message` and `add_generation_prompt` to True." if both else ""

    def _param(self, message: str) -> str | None:
        """Which parameter an error is about."""
        return None

    def _prepare(self, seen: Seen) -> str:
        """Write the prompt, look it up in the cache, and say what of the answer is already there."""
        last = seen.messages[-1]
        prefills = self.flavour in ("llama.cpp", "ollama") or seen.body.get("continue_final_message")
        said = last["content"] if prefills and last["role"] == "assistant" else None
        said = said.rstrip() if said and self.trims else said
        earlier = seen.messages if said is None else seen.messages[:-1]
        turns = "".join(f"<|{m['role']}|>{m['content']}<|end|>" for m in earlier)
        seen.prompt = f"{turns}<|assistant|>{said or ''}"
        seen.cached = max((_shared(seen.prompt, known) for known in self._known), default=0)
        return said or ""

    async def _events(self, seen: Seen, said: str, fault: Fault) -> AsyncIterator[bytes]:
        earlier = seen.messages[:-1] if said else seen.messages
        answer = self.text if isinstance(self.text, str) else self.text(earlier)
        budget = seen.body.get("max_tokens") or seen.body.get("max_completion_tokens") or 100_000
        place = len(self._known)
        self._known.append(seen.prompt)
        yield _event({"role": "assistant", "content": ""})
        thoughts = tokens("" if said else self.thinking)[:budget]
        for token in thoughts:
            yield _event({"reasoning_content": token})
        budget -= len(thoughts)
        rest = _after(answer, said)
        if self.echoes and said and rest:
            rest[0] = said + rest[0]
        for group in [rest[i : i + self.burst] for i in range(0, len(rest), self.burst)]:
            if seen.sent >= budget:
                break
            await asyncio.sleep(self.first if self.first is not None and not seen.sent else self.delay)
            for event in _broken(fault, seen.sent):
                yield await event
            yield _event({"content": "".join(group)})
            seen.sent += len(group)
            seen.text += "".join(group)
            self._known[place] = seen.prompt + seen.text
        for event in _broken(fault, seen.sent):
            yield await event
        seen.finish = "length" if seen.sent >= budget and seen.sent < len(rest) else "stop"
        yield _event({}, seen.finish)
        if (seen.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": len(tokens(seen.prompt)), "completion_tokens": seen.sent, "total_tokens": 0}
            yield _event(None, usage=usage)
        yield b"data: [DONE]\n\n"


def _shared(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _after(answer: str, said: str) -> list[str]:
    """The tokens of `answer` that follow `said`; one that `said` ends in the middle of is cut."""
    if not answer.startswith(said):
        return tokens(f" [the answer does not begin with {said!r}]")
    at, rest = 0, []
    for token in tokens(answer):
        if at + len(token) > len(said):
            rest.append(token[max(0, len(said) - at) :])
        at += len(token)
    return rest


def _broken(fault: Fault, sent: int) -> list[Any]:
    async def stall() -> bytes:
        await asyncio.Event().wait()
        return b""

    async def die() -> bytes:
        raise ConnectionAbortedError

    async def error() -> bytes:
        return b"data: " + json.dumps({"error": {"message": fault.message, "code": 500}}).encode() + b"\n\n"

    async def garbage() -> bytes:
        return b"data: {no json\n\n"

    broken = {stall: fault.stall_after, die: fault.die_after, error: fault.error_after, garbage: fault.garbage_after}
    return [act() for act, after in broken.items() if after is not None and sent >= after]


def _event(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "scripted-1", "choices": choices}
    return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"


def _error(status: int, message: str, headers: dict[str, str], param: str | None = None) -> Response:
    body = {"message": message, "type": "scripted", "code": None, "param": param}
    return JSONResponse({"error": body}, status, headers)


class _Stream(Response):
    """Server-sent events that stop the moment the client leaves, as good servers do."""

    def __init__(self, events: AsyncIterator[bytes], seen: Seen, *, hang: bool) -> None:
        super().__init__(media_type="text/event-stream")
        self.events, self.seen, self.hang = events, seen, hang

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._send(send))
        left = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            self.seen.aborted = not work.done()
        finally:
            for task in (work, left):
                task.cancel()
            await asyncio.wait([work, left])
            self.seen.done.set()
        if not work.cancelled() and work.exception():
            raise ConnectionAbortedError

    async def _send(self, send: Send) -> None:
        if self.hang:
            await asyncio.Event().wait()
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with contextlib.aclosing(self.events):
            async for event in self.events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
