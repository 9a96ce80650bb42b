"""A listener of the middleware for the tiers' tests: what it asks, what it hears, and what a service would send it."""

import asyncio

import httpx

from server.pipelines.codec._tokens import to_wire
from server.pipelines.engines import Voice
from tests.fake_codec import fake_codec
from tests.tones import ToneTTS

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4
BODY = {"text": TEXT, "voice": "flute", "service": "echotts"}


async def tokens_of(text: str) -> dict:
    codec = fake_codec()
    tts = ToneTTS()
    pcm = b"".join([piece.pcm async for piece in tts.open(Voice()).speak(text)])
    made = to_wire(await codec.encode(pcm, 24_000))
    await codec.stop()
    return {"status": "streaming", "chunk": 1, "format": "linacodec_tokens", **made}


DONE = {"status": "complete", "total_chunks": 1}


def service(url: str, kind: str = "ndjson", **more) -> dict:
    return {"echotts": {"kind": kind, "url": url, **more}}


async def listen(
    client: httpx.AsyncClient, body=BODY, begun: asyncio.Event | None = None, **more
) -> tuple[httpx.Response, bytes, str]:
    """The response, the body as far as it came, and how it ended. `begun` is set with the first sound."""
    pcm = b""
    async with client.stream("POST", "/api/tts/stream", json=body, **more) as response:
        try:
            async for piece in response.aiter_bytes():
                pcm += piece
                if begun:
                    begun.set()
        except httpx.RemoteProtocolError as error:
            return response, pcm, str(error)
        return response, pcm, ""
