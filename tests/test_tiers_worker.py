"""The Cloudflare Worker in the real runtime (npm's workerd), between real servers and a real listener."""

import asyncio
import base64
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from tests.fake_codec import fake_codec
from tests.test_tiers_runpod import Api, spoken
from tests.tiers_app import asked, parley, serving, until, upstream
from tests.tones import ToneTTS, heard, pitches, prose

EDGE = Path(__file__).parent.parent / "deploy" / "cloudflare"
TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4
BODY = {"text": TEXT, "voice": "flute", "service": "a"}


@pytest.fixture(scope="module")
def runtime() -> None:
    """Cloudflare's runtime, installed with npm where it is not there yet."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed; the Worker runs in Cloudflare's own runtime (npm's workerd)")
    if not (EDGE / "node_modules" / "workerd").is_dir():
        done = subprocess.run(["npm", "install", "--no-package-lock"], cwd=EDGE, capture_output=True, timeout=300)
        if done.returncode:
            pytest.skip("npm's workerd cannot be installed: npm --prefix deploy/cloudflare install")


@asynccontextmanager
async def worker(services: dict, **variables: str):
    """The Worker with these services: a client of it."""
    bindings = {"SERVICES": json.dumps(services), "ALLOWED_ORIGINS": "https://a.example", **variables}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(EDGE / "local.mjs"),
        json.dumps(bindings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdin
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            line = b""
            while not line.startswith(b"ready "):
                line = await process.stdout.readline()
                assert line, "the Worker did not start"
        draining = asyncio.create_task(process.stdout.read())
        async with asked(line.split()[1].decode()) as client:
            yield client
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
        await draining
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def listen(client, body=BODY, **more):
    pcm = b""
    async with client.stream("POST", "/api/tts/stream", json=body, **more) as response:
        try:
            async for piece in response.aiter_bytes():
                pcm += piece
        except httpx.RemoteProtocolError as error:
            return response, pcm, str(error)
        return response, pcm, ""


def chunk(number: int, *values: int) -> dict:
    sound = base64.b64encode(np.full(2_400, values[0], "<i2").tobytes()).decode()
    return {"status": "streaming", "chunk": number, "format": "pcm_16", "sample_rate": 48_000, "audio_chunk": sound}


@pytest.mark.timeout(420)
async def test_through_the_edge_all_is_heard_and_what_is_asked_wrongly_is_told(runtime):
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
            ({"voice": "tuba"}, 502, "tuba"),
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
async def test_what_the_network_and_the_service_do_wrong_is_told_at_the_edge(runtime):
    now = SimpleNamespace()

    async def play(answer):
        await now.script(answer)

    async with (
        upstream(play) as back,
        worker({"a": {"kind": "ndjson", "url": back}}, CHUNK_TIMEOUT_MS="900") as client,
    ):
        # split and joined
        messages = [
            chunk(1, 500) | {"text": 'a "quoted" } brace é'},
            chunk(2, 600),
            {"status": "complete", "total_chunks": 2},
        ]
        data = "".join(json.dumps(m, ensure_ascii=False) for m in messages).encode()
        for size in (7, 1_000, len(data)):

            async def cut(answer, size=size):
                await answer.head(kind="application/json")
                for at in range(0, len(data), max(size, len(data) // 60)):
                    await answer.piece(data[at : at + max(size, len(data) // 60)])
                await answer.end()

            now.script = cut
            _, pcm, end = await listen(client)
            assert end == ""
            assert pcm == np.repeat([500, 600], 2_400).astype("<i2").tobytes()

        # the first piece is heard while the second is not there yet
        go = asyncio.Event()

        async def in_two(answer):
            await answer.head()
            await answer.line(chunk(1, 500))
            await go.wait()
            await answer.line(chunk(2, 600))
            await answer.line({"status": "complete"})
            await answer.end()

        now.script = in_two
        async with client.stream("POST", "/api/tts/stream", json=BODY) as response:
            stream = response.aiter_bytes()
            assert len(await anext(stream)) == 4_800
            go.set()
            assert len(b"".join([piece async for piece in stream])) == 4_800

        # bare audio, cut in the middle of samples
        async def bare(answer):
            await answer.head(kind="audio/pcm")
            for at in range(0, 3_001, 1_001):
                await answer.piece(bytes(range(256))[: min(1_001, 3_001 - at)] * 1)
            await answer.end()

        now.script = bare
        response, pcm, end = await listen(client)
        assert (response.status_code, end, len(pcm) % 2) == (200, "", 0)

        # objects under no name, and a chunk without sound between two with it
        unnamed = [chunk(1, 500), chunk(2, 0) | {"audio_chunk": ""}, chunk(3, 600), {"status": "complete"}]
        for size in (1, 1_000_000):

            async def nameless(answer, size=size):
                data = "".join(map(json.dumps, unnamed)).encode()
                await answer.head(kind="application/octet-stream")
                await answer.piece(data[:size])
                await answer.piece(data[size:]) if data[size:] else None
                await answer.end()

            now.script = nameless
            _, pcm, end = await listen(client)
            assert (end, pcm) == ("", np.repeat([500, 600], 2_400).astype("<i2").tobytes())

        async def wrong_rate(answer):
            await answer.head(kind="audio/pcm", x_sample_rate="24000")
            await answer.piece(bytes(200))
            await answer.end()

        now.script = wrong_rate
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (502, "upstream_garbled")

        # before the first sound: JSON
        async def answered(answer, status, body, kind="application/json"):
            await answer.head(status, kind)
            await answer.piece(body)
            await answer.end()

        tokens = {"status": "streaming", "tokens": [1], "embedding": [0]}
        for arguments, status, code in [
            (("401 Unauthorized", b"no"), 502, "upstream_auth"),
            (("429 Too Many Requests", b"no"), 503, "upstream_busy"),
            (("500 Internal Server Error", b"no"), 502, "upstream_failed"),
            (("200 OK", b"<html>", "text/html"), 502, "upstream_garbled"),
            (("200 OK", b"ID3", "audio/mpeg"), 502, "upstream_garbled"),
            (("200 OK", b'{"status": "error", "error": "lost"}'), 502, "upstream_failed"),
            (("200 OK", b'{"status": "complete"}'), 502, "upstream_garbled"),
            (("200 OK", b'{"half": '), 502, "upstream_died"),
            (("200 OK", json.dumps(tokens).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"sample_rate": 24_000}).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"audio_chunk": "?"}).encode()), 502, "upstream_garbled"),
            (("200 OK", json.dumps(chunk(1, 5) | {"format": "pcm_f32"}).encode()), 502, "upstream_garbled"),
            (("200 OK", b'{"audio_chunk": "", "chunk": 1}{"status": "complete"}'), 502, "upstream_garbled"),
            (("200 OK", b"\1\0" * 50, "audio/L16;rate=24000"), 502, "upstream_garbled"),
        ]:

            async def at_once(answer, arguments=arguments):
                await answered(answer, *arguments)

            now.script = at_once
            response, body, _ = await listen(client)
            assert (response.status_code, json.loads(body)["code"]) == (status, code), arguments

        async def silent(answer):
            await answer.left()

        now.script = silent
        response, body, _ = await listen(client)
        assert (response.status_code, json.loads(body)["code"]) == (504, "upstream_timeout")

        # after it: the stream breaks off, and no JSON lies in the audio
        async def dies(answer):
            answer.die()

        async def ends(answer):
            await answer.end()

        async def errs(answer):
            await answer.line({"status": "error", "error": "lost"})

        async def skips(answer):
            await answer.line(chunk(3, 600))

        async def hangs(answer):
            await answer.left()

        for then in (dies, ends, errs, skips, hangs):

            async def then_fails(answer, then=then):
                await answer.head()
                await answer.line(chunk(1, 500))
                await asyncio.sleep(0.05)
                await then(answer)

            now.script = then_fails
            response, pcm, end = await listen(client)
            assert response.status_code == 200
            assert "incomplete chunked read" in end, then.__name__
            assert pcm == np.full(2_400, 500, "<i2").tobytes()


@pytest.mark.timeout(420)
async def test_the_edge_polls_runpod_cancels_and_can_be_turned_off(runtime):
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
