"""The back end over HTTP: `POST /api/tts/synthesize`."""

import asyncio
import base64
import json

import pytest

from server.pipelines.codec._tokens import from_wire
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley, until
from tests.tiers_listener import TEXT
from tests.tones import ToneTTS, heard, pitches, prose


async def test_the_back_end_streams_lines_and_answers_a_batch():
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        lines = []
        body = {"input": {"text": TEXT, "voice": "default", "stream": True}}
        async with client.stream("POST", "/api/tts/synthesize", json=body) as response:
            assert response.headers["content-type"] == "application/x-ndjson"
            lines = [json.loads(line) async for line in response.aiter_lines()]
        pcm = b"".join([await codec.decode(from_wire(line)) for line in lines[:-1]])
        assert heard(pcm) == pitches(TEXT)
        assert lines[-1]["status"] == "complete"
        batch = (await client.post("/api/tts/synthesize", json={"text": TEXT, "output_format": "pcm_16"})).json()
        assert heard(base64.b64decode(batch["audio"])) == pitches(TEXT)
    await codec.stop()


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "no JSON"),
        (b"[]", 400, "object"),
        (b'{"text": ""}', 400, "text"),
        (b'{"text": "Hi.", "voice": "tuba"}', 400, "tuba"),
        (b'{"text": "Hi.", "stream": 1}', 400, "stream"),
        (b" " * 1_100_000, 413, "larger"),
        (b'{"text": "EXPLODE now", "stream": true}', 500, "broke"),
        (b'{"text": "EXPLODE now", "stream": false}', 500, "broke"),
    ],
)
async def test_the_back_end_says_what_is_wrong_with_the_right_status(body, status, says):
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        response = await client.post("/api/tts/synthesize", content=body)
        assert response.status_code == status
        told = response.json()
        assert says in told["error"]
        assert told["tier"] == "backend"
        assert response.headers["x-request-id"] == told["requestId"]
    await codec.stop()


async def test_the_back_end_without_a_codec_refuses_tokens():
    async with parley(ToneTTS()) as url, asked(url) as client:
        response = await client.post("/api/tts/synthesize", json={"text": "Hi.", "stream": True})
        assert response.status_code == 503
        assert response.json()["code"] == "engine_unavailable"


async def test_a_failure_in_the_middle_is_the_last_line():
    codec = fake_codec()
    async with parley(ToneTTS(), codec) as url, asked(url) as client:
        body = {"text": "A good beginning.\n\nThen EXPLODE now.", "stream": True}
        lines = (await client.post("/api/tts/synthesize", json=body)).text.splitlines()
        assert [json.loads(line)["status"] for line in lines] == ["streaming", "error"]
        assert json.loads(lines[1])["error"] == "the voice broke"
    await codec.stop()


async def test_a_client_that_leaves_a_batch_stops_its_voice():
    tts = ToneTTS(delay=0.01)
    async with parley(tts, None) as url, asked(url) as client:
        body = {"text": prose(9_000), "output_format": "pcm_16"}
        request = asyncio.create_task(client.post("/api/tts/synthesize", json=body))
        await until(lambda: len(tts.said) > 2)
        request.cancel()
        await until(lambda: not tts.open_now)
        assert len(tts.said) < 15


async def test_a_client_that_leaves_the_back_end_stops_its_voice():
    codec, tts = fake_codec(), ToneTTS(delay=0.01)
    async with parley(tts, codec) as url, asked(url) as client:
        async with client.stream(
            "POST", "/api/tts/synthesize", json={"text": prose(9_000), "stream": True}
        ) as response:
            await anext(response.aiter_lines())
        await until(lambda: not tts.open_now)
        assert len(tts.said) < 15
    await codec.stop()
