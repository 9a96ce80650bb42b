"""Who may ask the tiers, how many at once, and what is counted."""

import asyncio

import pytest

from server.http.tiers.progress import KEPT, Ledger
from server.pipelines.admission import Admission
from tests.fake_codec import fake_codec
from tests.tiers_app import application, asked, parley, serving, until, upstream
from tests.tiers_listener import BODY, listen, service, tokens_of
from tests.tones import ToneTTS


async def test_only_so_many_streams_at_once():
    async def script(answer):
        await answer.head()
        await answer.line(await tokens_of("One."))
        await answer.left()

    codec = fake_codec()
    async with (
        upstream(script) as back,
        parley(None, codec, services=service(back), streams=1) as url,
        asked(url) as client,
    ):
        first = {"X-Request-Id": "first"}
        async with client.stream("POST", "/api/tts/stream", json=BODY, headers=first) as response:
            await anext(response.aiter_bytes())
            refused = await client.post("/api/tts/stream", json=BODY)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        ended = "/api/tts/streams/first"
        async with asyncio.timeout(3):
            while (await client.get(ended)).json()["status"] == "streaming":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            assert response.status_code == 200
    await codec.stop()


@pytest.mark.parametrize("stream", [True, False])
async def test_only_so_many_other_servers_at_once(stream):
    tts = ToneTTS(delay=30)
    body = {"text": "One.", "stream": stream, "output_format": "pcm_16"}
    async with parley(tts, streams=1) as url, asked(url) as client:
        first = asyncio.create_task(client.post("/api/tts/synthesize", json=body))
        await until(lambda: tts.speaking)
        refused = await client.post("/api/tts/synthesize", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert (refused.json()["code"], refused.json()["tier"]) == ("engine_busy", "backend")
        first.cancel()
        await until(lambda: not tts.speaking)
        tts.delay = 0
        for text, status in (("EXPLODE", 500), ("One.", 200)):
            assert (await client.post("/api/tts/synthesize", json=body | {"text": text})).status_code == status


@pytest.mark.parametrize("path", ["synthesize", "stream", "batch"])
async def test_speech_takes_turns_at_the_engine_like_all_that_is_asked_for(path: str):
    tts, queue = ToneTTS(delay=30), Admission(1, waiting=1)
    body = {"text": "One.", "voice": "bell", "output_format": "pcm_16"}
    body |= {} if path == "synthesize" else {"service": "local"}
    async with parley(tts, queue=queue) as url, asked(url) as client:
        first = asyncio.create_task(client.post(f"/api/tts/{path}", json=body))
        await until(lambda: tts.speaking)
        assert (queue.running, list(queue._open)) == (1, ["127.0.0.1"])
        second = asyncio.create_task(client.post(f"/api/tts/{path}", json=body))
        await until(lambda: queue.queued)
        refused = await client.post(f"/api/tts/{path}", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["code"] == "engine_busy"
        tts.delay = 0
        first.cancel()
        assert (await second).status_code == 200
        await until(lambda: not tts.open_now)
    assert (queue.running, queue.queued) == (0, 0)


async def test_they_are_the_turns_of_the_engine_that_speaks():
    tts = ToneTTS(delay=30)
    app = application(tts, None)
    async with serving(app) as url, asked(url) as client:
        asking = asyncio.create_task(client.post("/api/tts/stream", json=BODY | {"service": "local"}))
        await until(lambda: tts.speaking)
        assert [queue.running for queue in app.state.rack.admissions.values()] == [1]
        asking.cancel()


@pytest.mark.parametrize("id", [lambda n: "the-same", lambda n: f"me-{n}"])
def test_streams_are_counted_whatever_their_ids(id):
    ledger = Ledger()
    streams = [ledger.open(id(n), "a") for n in range(KEPT + 5)]
    assert ledger.running() == KEPT + 5
    for progress in streams[1:]:
        progress.end = "ok"
    assert ledger.running() == 1


async def test_cors_lets_in_the_pages_that_are_configured_and_no_other():
    async with parley(ToneTTS(), origins=("https://a.example",)) as url, asked(url) as client:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        good = await client.options("/api/tts/stream", headers={"Origin": "https://a.example"} | ask)
        assert good.status_code == 200
        assert good.headers["access-control-allow-origin"] == "https://a.example"
        bad = await client.options("/api/tts/stream", headers={"Origin": "https://b.example"} | ask)
        assert "access-control-allow-origin" not in bad.headers
        body = BODY | {"service": "local"}
        refused = await client.post("/api/tts/stream", json=body, headers={"Origin": "https://b.example"})
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden_origin")
        served = await client.post("/api/tts/stream", json=body, headers={"Origin": "https://a.example"})
        assert served.status_code == 200
        assert served.headers["access-control-allow-origin"] == "https://a.example"
        assert (await client.post("/api/tts/stream", json=body, headers={"Origin": url})).status_code == 200


async def test_all_pages_may_ask_where_that_is_configured():
    async with parley(ToneTTS(), origins=("*",)) as url, asked(url) as client:
        body = BODY | {"service": "local"}
        served = await client.post("/api/tts/stream", json=body, headers={"Origin": "https://b.example"})
        assert (served.status_code, served.headers["access-control-allow-origin"]) == (200, "*")
        refused = await client.post("/api/tts/stream", json={}, headers={"Origin": "https://b.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, "*")


async def test_the_token_is_asked_for_everywhere():
    async with parley(ToneTTS(), token="secret") as url, asked(url) as client:
        for path in ("stream", "batch", "synthesize"):
            refused = await client.post(f"/api/tts/{path}", json=BODY, headers={"X-Request-Id": "me-4"})
            assert (refused.status_code, refused.json()["requestId"]) == (401, "me-4")
            assert refused.headers["x-request-id"] == "me-4"
        assert (await client.get("/api/tts/services")).status_code == 401
        good = await client.get("/api/tts/services", headers={"Authorization": "Bearer secret"})
        assert good.json()["services"] == [{"name": "local", "kind": "local", "format": "pcm_16"}]


async def test_stages_are_counted():
    from prometheus_client import REGISTRY

    def count(stage):
        return REGISTRY.get_sample_value("parley_tier_seconds_count", {"stage": stage}) or 0

    before = {stage: count(stage) for stage in ("first_chunk", "chunk", "decode", "first_byte")}
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        parley(None, near, services=service(back, "parley")) as url,
        asked(url) as client,
    ):
        await listen(client, headers={"X-Request-Id": "counted"})
        told = (await client.get("/api/tts/streams/counted")).json()
    assert (told["status"], told["chunks"] > 1) == ("complete", True)
    assert count("first_chunk") - before["first_chunk"] == count("first_byte") - before["first_byte"] == 1
    assert count("decode") - before["decode"] == told["chunks"]
    await far.stop()
    await near.stop()
