"""Speaking to a back end over HTTP: a stream of its messages, or of bare audio.

Closing the generator closes the connection, which is how the back end learns that nobody listens any more.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from server.errors import UpstreamError, later
from server.pipelines.tiers.chunks import Audio, Complete, Part, Reading, reason
from server.pipelines.tiers.objects import LARGEST, Objects
from server.pipelines.tiers.services import Service
from server.pipelines.tts._pcm_stream import Decoder, Unplayable, announced

PATH = "/api/tts/synthesize"  # of another Parley
WHOLE = 8 * LARGEST  # bytes of a message that holds a whole text's PCM: half an hour
PATIENCE_S = 0.05  # for the end of a body whose last message has come
OBJECTS = ("json", "ndjson", "jsonl")  # in a content type
OBJECT = b'{"'  # how one begins, where the content type says nothing of it


def client() -> httpx.AsyncClient:
    """Connections to all services. Times are kept by who reads; this one only gives up on connecting."""
    return httpx.AsyncClient(timeout=httpx.Timeout(None, connect=5), limits=httpx.Limits(max_connections=None))


def headers(service: Service, id: str = "") -> dict[str, str]:
    told = {"Authorization": f"Bearer {service.key}"} if service.key else {}
    return told | ({"X-Request-Id": id} if id else {})


def url(service: Service) -> str:
    base = service.url.rstrip("/")
    return base if service.kind != "parley" or base.endswith(PATH) else base + PATH


async def parts(
    http: httpx.AsyncClient, service: Service, body: dict[str, Any], id: str = ""
) -> AsyncGenerator[Part, None]:
    """What the service answers to `body`, ending with `Complete`. Raises `UpstreamError`."""
    try:
        async with http.stream("POST", url(service), json=body, headers=headers(service, id)) as response:
            await refuse(response)
            async with aclosing(_read(response, service, LARGEST if body["stream"] else WHOLE)) as read:
                async for part in read:
                    yield part
    except httpx.HTTPError as error:
        raise failure(error, url(service)) from error


async def _read(response: httpx.Response, service: Service, largest: int) -> AsyncGenerator[Part, None]:
    kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
    stream = response.aiter_bytes()
    objects = any(kind.endswith(known) for known in OBJECTS) or kind.startswith("text/")
    if not objects and not kind.startswith("audio/"):
        head = await _begun(stream)
        objects, stream = head.startswith(OBJECT), _behind(head, stream)
    source = _messages(stream, largest) if objects else _sound(stream, response.headers, service)
    async with aclosing(source):
        async for part in source:
            yield part


async def _begun(stream: AsyncIterator[bytes]) -> bytes:
    """Enough of a body to see whether it is an object."""
    head = b""
    while len(head) < len(OBJECT) and (data := await anext(stream, b"")):
        head += data
    return head


async def _behind(head: bytes, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for data in stream:
        yield data


async def _messages(stream: AsyncIterator[bytes], largest: int) -> AsyncGenerator[Part, None]:
    objects, reading = Objects(largest), Reading()
    async for data in stream:
        for message in objects.push(data):
            for part in reading.read(message):
                if reading.complete:
                    await _drained(stream)
                yield part
                if reading.complete:
                    return
    objects.finish()
    reading.finish()


async def _drained(stream: AsyncIterator[bytes]) -> None:
    """A body read to its end gives its connection back for the next request. It is due at once, so waits are short."""
    with contextlib.suppress(TimeoutError, httpx.HTTPError):
        async with asyncio.timeout(PATIENCE_S):
            async for _ in stream:
                pass


async def _sound(stream: AsyncIterator[bytes], told: Mapping[str, str], service: Service) -> AsyncGenerator[Part, None]:
    """Bare PCM or WAV, as it comes."""
    try:
        kind, _, parameters = told.get("content-type", "").partition(";")
        kind = f"{kind};rate={service.rate};{parameters}"  # the last one holds
        format, _ = announced(dict(told) | {"content-type": kind})
        decoder = Decoder(format, format.rate)
        async for data in stream:
            if pcm := decoder.push(data):
                yield Audio(pcm, format.rate)
        if pcm := decoder.finish():
            yield Audio(pcm, format.rate)
    except Unplayable as error:
        raise UpstreamError(f"{service.url} sent {error}", code="upstream_garbled") from None
    yield Complete()


async def refuse(response: httpx.Response) -> None:
    """Raises `UpstreamError` for a status of 300 and more."""
    if response.is_success:
        return
    told, wait = _told((await response.aread()).decode(errors="replace").strip()), None
    match response.status_code:
        case 401 | 403:
            code, status = "upstream_auth", 502
        case 429 | 503:
            code, status, wait = "upstream_busy", 503, later(response.headers.get("retry-after"))
        case 504 | 408:
            code, status = "upstream_timeout", 504
        case _:
            code, status = "upstream_failed", 502
    said = f"{response.url} answered {response.status_code}: {told}"
    raise UpstreamError(said, code=code, status=status, retry_after=wait)


def _told(body: str) -> str:
    """Why, out of an error's body."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        message = None
    return reason(message) if isinstance(message, dict) else body[:200] or "no reason given"


def failure(error: httpx.HTTPError, where: str) -> UpstreamError:
    """A connection that failed."""
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.UnsupportedProtocol():
            return UpstreamError(f"nothing answers at {where}", code="upstream_unreachable")
        case httpx.TimeoutException():
            return UpstreamError(f"{where} sent nothing in time", code="upstream_timeout", status=504)
        case _:
            return UpstreamError(f"the connection to {where} broke: {error}", code="upstream_died")
