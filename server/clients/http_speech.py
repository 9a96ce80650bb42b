"""Text to speech over HTTP: whole, in chunks, or by an adaptive stream that text is appended to."""

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from server.clients.link import ConnectionLost, Refused
from server.clients.speech import Words, words_of
from server.errors import later


class HTTPSpeech:
    """Use as a block. `url` is like `http://localhost:8000`. What is asked for is as the endpoints have it: `voice`,
    `language`, `model`, `sample_rate`, ... Raises `Refused`, `ConnectionLost`."""

    def __init__(self, url: str, *, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(None, connect=5)
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False)

    async def __aenter__(self) -> "HTTPSpeech":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def whole(self, text: str, **asked: Any) -> tuple[bytes, int]:
        """`text` as PCM (or in the `response_format` asked for), and its rate in Hz."""
        answer = await self._send("POST", "/v1/audio/speech", {"input": text, **asked})
        return answer.content, int(answer.headers["x-sample-rate"])

    async def stream(self, text: str, **asked: Any) -> AsyncGenerator[bytes, None]:
        """`text` as PCM in the chunks asked for (`preset`, or `first_chunk_frames` and so on). Closing it stops the
        server."""
        async with self._body("POST", "/v1/audio/speech/stream", json={"input": text, **asked}) as answer:
            async for chunk in answer.aiter_raw():
                yield chunk

    async def events(self, text: str, **asked: Any) -> AsyncGenerator[bytes | Words, None]:
        """`text` as PCM, and when each word of it sounds."""
        body = {"input": text, "stream_format": "ndjson", **asked}
        async with self._body("POST", "/v1/audio/speech", json=body) as answer:
            async for event in _events(answer):
                yield event

    @asynccontextmanager
    async def adaptive(self, **asked: Any) -> AsyncIterator["AdaptiveStream"]:
        """A stream to append text to and to read from; cancelled with the block unless it has been read out."""
        told = (await self._send("POST", "/v1/tts/stream", asked)).json()
        stream = AdaptiveStream(self, told["stream_id"], told["sample_rate"])
        try:
            yield stream
        finally:
            if not stream.over:
                with suppress(Refused, ConnectionLost):  # then it is gone, or will be
                    await self._send("DELETE", f"/v1/tts/stream/{stream.id}")

    async def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise ConnectionLost(f"{self._http.base_url}: {error}") from error
        _check(answer)
        return answer

    @asynccontextmanager
    async def _body(self, method: str, path: str, **more: Any) -> AsyncIterator[httpx.Response]:
        try:
            async with self._http.stream(method, path, **more) as answer:
                if answer.is_error:
                    await answer.aread()
                _check(answer)
                yield answer
        except httpx.TransportError as error:
            raise ConnectionLost(f"{self._http.base_url}: {error}") from error


class AdaptiveStream:
    """Text in from one task, audio out in another, PCM at `rate` Hz."""

    def __init__(self, client: HTTPSpeech, id: str, rate: int) -> None:
        self.id, self.rate, self.over = id, rate, False
        self._client = client

    async def append(self, text: str) -> None:
        await self._client._send("POST", f"/v1/tts/stream/{self.id}/append", {"text": text})

    async def close(self) -> None:
        """No more text."""
        await self._client._send("POST", f"/v1/tts/stream/{self.id}/close")

    async def status(self) -> dict[str, Any]:
        return dict((await self._client._send("GET", f"/v1/tts/stream/{self.id}")).json())

    async def audio(self) -> AsyncGenerator[bytes, None]:
        """All of it, until the stream is closed and said. May be asked for before there is any text."""
        async with self._client._body("GET", f"/v1/tts/stream/{self.id}/audio") as answer:
            async for chunk in answer.aiter_raw():
                yield chunk
        self.over = True

    async def events(self) -> AsyncGenerator[bytes | Words, None]:
        """The same, with words, whose `start` and `end` are characters of all that was appended."""
        query = {"stream_format": "ndjson"}
        async with self._client._body("GET", f"/v1/tts/stream/{self.id}/audio", params=query) as answer:
            async for event in _events(answer):
                yield event
        self.over = True


async def _events(answer: httpx.Response) -> AsyncGenerator[bytes | Words, None]:
    async for line in answer.aiter_lines():
        match json.loads(line):
            case {"type": "speech.audio.delta", "audio": data}:
                yield base64.b64decode(data)
            case {"type": "speech.audio.words", "words": words}:
                yield Words(0, words_of(words))
            case {"type": "error", "error": error}:
                raise Refused(error["message"], code=error["code"])


def _check(answer: httpx.Response) -> None:
    if answer.is_error:
        try:
            detail, code = answer.json()["detail"], answer.json().get("error", {}).get("code", "refused")
        except (ValueError, KeyError, TypeError, AttributeError):
            detail, code = answer.text[:200], "refused"
        raise Refused(str(detail), code=code, retry_after=later(answer.headers.get("retry-after")))
