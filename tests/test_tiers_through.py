"""Through all three tiers over real sockets: what is said is what is heard, streamed and in a batch."""

import asyncio

import pytest

from server.audio import read_wav
from server.pipelines.engines import Speech
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley, upstream
from tests.tiers_listener import BODY, DONE, TEXT, listen, service, tokens_of
from tests.tones import ToneTTS, heard, pitches, prose


@pytest.mark.parametrize("format", ["linacodec_tokens", "pcm_16"])
@pytest.mark.parametrize("length", [100, 500, 2_000, 10_000])
async def test_through_all_tiers_not_one_sample_is_lost(format, length):
    text = prose(length)
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, services=service(back, "parley", format=format)) as url,
        asked(url) as client,
    ):
        response, pcm, end = await listen(client, BODY | {"text": text})
        assert response.status_code == 200
        assert response.headers["content-type"] == "audio/octet-stream"
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-length" not in response.headers
        assert end == ""
        assert heard(pcm) == pitches(text)
        assert len(pcm) == len(pitches(text)) * 2 * 7_680
    await far.stop()
    await near.stop()


async def test_the_first_audio_comes_while_the_rest_is_not_even_spoken():
    far, near, tts = fake_codec(), fake_codec(), ToneTTS(delay=0.02)
    async with (
        parley(tts, far) as back,
        parley(None, near, services=service(back, "parley")) as url,
        asked(url) as client,
        client.stream("POST", "/api/tts/stream", json=BODY | {"text": prose(10_000)}) as response,
    ):
        await anext(response.aiter_bytes())
        assert len(tts.said) < 15
    await far.stop()
    await near.stop()


async def test_the_local_service_needs_neither_network_nor_codec():
    async with parley(ToneTTS(rate=16_000)) as url, asked(url) as client:
        response, pcm, end = await listen(client, BODY | {"service": "local"})
        assert (response.status_code, end) == (200, "")
        assert heard(pcm) == pitches(TEXT)
        assert len(pcm) == len(pitches(TEXT)) * 2 * 7_680


async def test_batch_is_one_wav_and_goes_on_when_streaming_is_off():
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, streaming=False, services=service(back, "parley")) as url,
        asked(url) as client,
    ):
        response = await client.post("/api/tts/stream", json=BODY)
        assert response.status_code == 503
        told = response.json()
        assert (told["error"], told["message"]) == ("Streaming is disabled", "Set ENABLE_STREAMING=true to enable")
        assert told["requestId"] == response.headers["x-request-id"]
        assert response.headers["cache-control"] == "no-store"
        assert (await client.get("/api/tts/services")).json()["streaming"] is False
        response = await client.post("/api/tts/batch", json=BODY)
        assert response.headers["content-type"] == "audio/wav"
        pcm, rate = read_wav(response.content)
        assert rate == 48_000
        assert [p for p in heard(pcm) if p >= 0] == pitches(TEXT)
    await far.stop()
    await near.stop()


class Talkative(ToneTTS):
    """Speaks as slowly as people do: a second for twelve characters."""

    def open(self, voice):
        engine = self

        class Speaker:
            async def speak(self, text):
                yield Speech(bytes(2 * (len(text) * engine.rate // 12)))

            async def close(self): ...

        return Speaker()


@pytest.mark.parametrize("format", ["linacodec_tokens", "pcm_16"])
async def test_a_batch_may_be_ten_minutes_in_one_message(format):
    text = prose(7_300)
    far, near = fake_codec(), fake_codec()
    async with parley(Talkative(), far) as back:
        services = service(back + "/api/tts/synthesize", format=format)
        async with parley(None, near, services=services) as url, asked(url) as client:
            response = await client.post("/api/tts/batch", json=BODY | {"text": text})
            assert response.status_code == 200
            assert len(response.content) > 600 * 96_000
    await far.stop()
    await near.stop()


@pytest.mark.parametrize(("kind", "streams"), [("parley", True), ("ndjson", False)])
async def test_another_parley_is_asked_for_a_stream_even_for_a_batch(kind, streams):
    seen = []

    async def script(answer):
        seen.append(answer.body["stream"])
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.line(DONE)
        await answer.end()

    codec = fake_codec()
    async with upstream(script) as back, parley(None, codec, services=service(back, kind)) as url, asked(url) as client:
        response = await client.post("/api/tts/batch", json=BODY)
        assert (response.status_code, seen) == (200, [streams])
    await codec.stop()


async def test_twenty_listeners_at_once_each_hear_their_own_text():
    far, near = fake_codec(), fake_codec()
    texts = [prose(300 + 7 * n)[n:] for n in range(20)]
    async with (
        parley(ToneTTS(), far, streams=40) as back,
        parley(None, near, services=service(back, "parley"), streams=40) as url,
        asked(url) as client,
    ):
        got = await asyncio.gather(*(listen(client, BODY | {"text": text}) for text in texts))
        for (_, pcm, end), text in zip(got, texts, strict=True):
            assert end == ""
            assert heard(pcm) == pitches(text)
    await far.stop()
    await near.stop()
