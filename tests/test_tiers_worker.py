"""The Cloudflare Worker in the real runtime (npm's workerd), between real servers and a real listener."""

import json

import pytest

from tests.edge import BODY, TEXT, listen, worker
from tests.fake_codec import fake_codec
from tests.runpod_api import Api, spoken
from tests.tiers_app import parley, serving, until
from tests.tones import ToneTTS, heard, pitches, prose


@pytest.mark.timeout(420)
async def test_through_the_edge_all_is_heard_and_what_is_asked_wrongly_is_told():
    far = fake_codec()
    tts = ToneTTS()
    async with (
        parley(tts, far, token="abc") as back,
        worker({"a": {"kind": "parley", "url": back}, "gone": {"url": "http://127.0.0.1:9"}}, KEY_A="abc") as client,
    ):
        for text in (TEXT, prose(4_000)):
            response, pcm, end = await listen(client, BODY | {"text": text})
            assert (response.status_code, end) == (200, "")
            assert response.headers["content-type"] == "audio/octet-stream"
            assert response.headers["cache-control"] == "no-cache, no-transform"
            assert response.headers["x-accel-buffering"] == "no"
            assert heard(pcm) == pitches(text)
            assert len(pcm) == len(pitches(text)) * 2 * 7_680

        for change, status, says in [
            ({"text": ""}, 400, "text"),
            ({"text": None}, 400, "text"),
            ({"text": "a" * 20_001}, 400, "20001"),
            ({"voice": ""}, 400, "voice"),
            ({"service": "nobody"}, 400, "there are: a, gone"),
            ({"service": "__proto__"}, 400, "there are"),
            ({"voice": "tuba"}, 502, "answered 400: voice: no 'tuba'"),
            ({"text": "EXPLODE now"}, 502, "the voice broke"),
            ({"service": "gone"}, 502, "nothing answers"),
        ]:
            response = await client.post("/api/tts/stream", json=BODY | change, headers={"X-Request-Id": "me-1"})
            assert response.status_code == status, change
            told = response.json()
            assert says in told["error"]
            assert (told["tier"], told["requestId"]) == ("middleware", "me-1")
            assert response.headers["x-request-id"] == "me-1"
        assert (await client.post("/api/tts/stream", content=b"{")).status_code == 400
        half = json.dumps(BODY | {"text": "Hello \ud83d"}).encode()
        response = await client.post("/api/tts/stream", content=half)
        assert (response.status_code, response.json()["code"]) == (400, "bad_request")
        assert "half a character" in response.json()["error"]
        assert (await client.get("/api/tts/stream")).status_code == 405
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/health")).json()["status"] == "healthy"

        # pages of other origins
        ask = {"Access-Control-Request-Method": "POST"}
        good = await client.options("/api/tts/stream", headers={"Origin": "https://a.example"} | ask)
        assert (good.status_code, good.headers["access-control-allow-origin"]) == (204, "https://a.example")
        bad = await client.post("/api/tts/stream", json=BODY, headers={"Origin": "https://b.example"})
        assert (bad.status_code, bad.json()["code"]) == (403, "forbidden_origin")
        good = await client.post("/api/tts/stream", json=BODY, headers={"Origin": "https://a.example"})
        assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, "https://a.example")

        # a listener who leaves
        tts.delay, said = 0.02, len(tts.said)
        async with client.stream("POST", "/api/tts/stream", json=BODY | {"text": prose(9_000)}) as response:
            await anext(response.aiter_bytes())
        await until(lambda: tts.open_now == 0)
        assert len(tts.said) - said < 15
    await far.stop()


@pytest.mark.timeout(420)
async def test_the_edge_polls_runpod_cancels_and_can_be_turned_off():
    api = Api(spoken(1, 2, 3), cold=1)
    service = {"kind": "runpod"}
    async with serving(api.app()) as back:
        url = f"{back}/v2/x/runsync"
        async with worker({"a": service | {"url": url}}, RUNPOD_API_KEY="k") as client:
            response, pcm, end = await listen(client)
            assert (response.status_code, end, pcm) == (200, "", b"\1\0\2\0\3\0")
            submitted, key = api.submitted[0]
            assert key == "Bearer k"
            assert submitted["input"]["output_format"] == "pcm_16"
            assert submitted["input"]["stream"] is True
            assert api.cancelled == []

            # a listener who leaves is noticed when the next chunk is there
            api.outputs, api.looks, api.pause = spoken(*range(1, 100)), 5, 0.05
            async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
                assert await anext(response.aiter_bytes())
            await until(lambda: api.cancelled == ["job-1"])
            assert len(api.outputs) > 50

            api.outputs, api.looks, api.end, api.error = [], 5, "FAILED", "out of memory"
            response, body, _ = await listen(client)
            assert (response.status_code, json.loads(body)["error"]) == (502, "RunPod's job failed: out of memory")

            for strange in ("abc", {"a": 1}, ["x"], [None], [{"output": "text"}]):
                api.strange = strange
                response, body, _ = await listen(client)
                assert (response.status_code, json.loads(body)["code"]) == (502, "upstream_garbled"), strange
    async with worker({}, ENABLE_STREAMING="False") as client:
        response, body, _ = await listen(client)
        assert response.status_code == 503
        told = json.loads(body)
        assert (told["error"], told["message"]) == ("Streaming is disabled", "Set ENABLE_STREAMING=true to enable")
