"""What goes wrong after the first byte cuts the connection, without JSON in the audio; who leaves stops the voice."""

import asyncio
import json

import pytest

from tests.fake_codec import FakeNetwork, fake_codec
from tests.tiers_app import asked, parley, upstream
from tests.tiers_listener import BODY, DONE, listen, service, tokens_of
from tests.tones import ToneTTS, heard, pitches, prose


async def dies(answer):
    answer.die()


async def ends_early(answer):
    await answer.end()


async def says_error(answer):
    await answer.line({"status": "error", "error": "out of memory"})
    await answer.end()


async def sends_garbage(answer):
    await answer.piece(b"Internal Server Error")
    await answer.end()


async def sends_bad_tokens(answer):
    await answer.line({"status": "streaming", "chunk": 2, "tokens": [99_999], "embedding": [0.0] * 128})
    await answer.left()


async def loses_a_chunk(answer):
    await answer.line((await tokens_of("Three.")) | {"chunk": 3})
    await answer.left()


async def falls_silent(answer):
    await answer.left()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (dies, "upstream_died"),
        (ends_early, "upstream_died"),
        (says_error, "upstream_failed"),
        (sends_garbage, "upstream_garbled"),
        (sends_bad_tokens, "upstream_garbled"),
        (loses_a_chunk, "upstream_garbled"),
        (falls_silent, "upstream_timeout"),
    ],
)
async def test_an_upstream_that_fails_later_cuts_the_stream_and_the_reason_can_be_asked(script, code):
    begun = asyncio.Event()

    async def then(answer):
        await answer.head()
        await answer.line(await tokens_of("One kettle."))
        await begun.wait()
        await script(answer)

    codec = fake_codec()
    async with (
        upstream(then) as back,
        parley(None, codec, services=service(back, first_timeout_s=10), chunk_timeout_s=0.5) as url,
        asked(url) as client,
    ):
        response, pcm, end = await listen(client, begun=begun, headers={"X-Request-Id": "me-2"})
        assert response.status_code == 200
        assert "incomplete chunked read" in end
        assert heard(pcm) == pitches("One kettle.")
        assert len(pcm) == 2 * 2 * 7_680
        told = (await client.get("/api/tts/streams/me-2")).json()
        assert (told["status"], told["code"], told["chunks"]) == ("failed", code, 1)
        assert told["message"]
        assert told["audio_ms"] == 320
    await codec.stop()


async def test_a_codec_that_fails_is_told_like_the_rest():
    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.line(DONE)
        await answer.end()

    network = FakeNetwork()
    network.failing = RuntimeError("device lost")
    codec = fake_codec(network)
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (500, "codec_failed")
    await codec.stop()


async def test_a_listener_who_leaves_stops_the_upstream():
    left = asyncio.Event()

    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One kettle."))
        await answer.left()
        left.set()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            await anext(response.aiter_bytes())
        async with asyncio.timeout(3):
            await left.wait()
    await codec.stop()


async def test_a_listener_who_leaves_before_the_first_byte_stops_the_upstream():
    begun, left = asyncio.Event(), asyncio.Event()

    async def script(answer):
        begun.set()
        await answer.left()
        left.set()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back)) as url, asked(url) as client:
        request = asyncio.create_task(listen(client))
        await begun.wait()
        request.cancel()
        async with asyncio.timeout(3):
            await left.wait()
    await codec.stop()
    assert not [t for t in asyncio.all_tasks() if t.get_name() in ("ahead", "delivery", "delivery-left", "codec")]


async def test_a_slow_listener_holds_up_the_voice_instead_of_filling_the_memory():
    tts = ToneTTS()
    async with (
        parley(tts, max_chars=200, longest=500_000) as url,
        asked(url) as client,
        client.stream("POST", "/api/tts/stream", json=BODY | {"service": "local", "text": prose(200_000)}) as response,
    ):
        assert response.status_code == 200
        said = -1
        while said != len(tts.said):
            said = len(tts.said)
            await asyncio.sleep(0.3)
        assert said < len(prose(200_000)) / 500 / 2
