"""RunPod: the worker behind the package's own server, and the client against an API that behaves like the real one."""

import asyncio
import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.errors import UpstreamError
from server.pipelines.codec._tokens import from_wire
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.chunks import Audio, Complete, Reading
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.pieces import LARGEST, pieces
from server.pipelines.tiers.requests import Request
from server.pipelines.tiers.runpod import Endpoint
from server.pipelines.tiers.services import Service
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley, pick_of, serving, until
from tests.tones import ToneTTS, heard, pitches, prose

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "deploy" / "runpod" / ".packages"
TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4


# Pieces for RunPod's limit


async def test_much_audio_goes_in_pieces_that_runpod_takes():
    backend = Backend(pick_of(ToneTTS()), None)
    asked = Request(prose(900), format="pcm_16")
    async with aclosing(pieces(backend.stream(asked))) as messages:
        found = [message async for message in messages]
    assert max(len(json.dumps(message)) for message in found) < 1_000_000
    assert max(len(message.get("audio_chunk", "")) for message in found) == LARGEST
    reading = Reading()
    parts = [part for message in found for part in reading.read(message)]
    reading.finish()
    assert heard(b"".join(part.pcm for part in parts[:-1])) == pitches(prose(900))
    assert [message.get("num_samples") for message in found[:-1]] == [len(part.pcm) // 2 for part in parts[:-1]]
    assert all(len(part.pcm) % 2 == 0 for part in parts[:-1])


# The client, against RunPod's API as it is documented


class Api:
    """Jobs that stream `outputs`, one of `per_look` at every look, after `cold` looks in the queue."""

    def __init__(self, outputs=(), per_look=1, cold=2, end="COMPLETED", error=None, aggregate=False):
        self.outputs, self.per_look, self.cold, self.end, self.error = list(outputs), per_look, cold, end, error
        self.aggregate, self.pause, self.strange = aggregate, 0.0, None
        self.looks, self.submitted, self.cancelled, self.busy = 0, [], [], 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/x/run", self.run, methods=["POST"]),
                Route("/v2/x/runsync", self.runsync, methods=["POST"]),
                Route("/v2/x/stream/{id}", self.stream),
                Route("/v2/x/status/{id}", self.status),
                Route("/v2/x/cancel/{id}", self.cancel, methods=["POST"]),
            ]
        )

    async def run(self, request):
        self.submitted.append((await request.json(), request.headers["authorization"]))
        return JSONResponse({"id": "job-1", "status": "IN_QUEUE"})

    async def stream(self, request):
        self.looks += 1
        await asyncio.sleep(self.pause)
        if self.strange is not None:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS", "stream": self.strange})
        if self.looks <= self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_QUEUE", "stream": []})
        now, self.outputs = self.outputs[: self.per_look], self.outputs[self.per_look :]
        held = [{"output": now}] if self.aggregate else [{"output": output} for output in now]
        status = "IN_PROGRESS" if self.outputs or (now and self.end != "COMPLETED") else self.end
        told = {"id": "job-1", "status": status, "stream": held if now else []}
        return JSONResponse(told | ({"error": self.error} if self.error else {}))

    async def runsync(self, request):
        self.submitted.append((await request.json(), request.headers["authorization"]))
        if self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS"})
        return await self.status(request)

    async def status(self, request):
        self.looks += 1
        if self.looks < self.cold:
            return JSONResponse({"id": "job-1", "status": "IN_PROGRESS"})
        return JSONResponse({"id": "job-1", "status": self.end, "output": self.outputs, "error": self.error})

    async def cancel(self, request):
        self.cancelled.append(request.path_params["id"])
        return JSONResponse({"id": "job-1", "status": "CANCELLED"})


def spoken(*values):
    chunks = [
        {"status": "streaming", "chunk": n, "format": "pcm_16", "sample_rate": 48_000, "audio_chunk": value}
        for n, value in enumerate((base64.b64encode(bytes([v, 0])).decode() for v in values), 1)
    ]
    return [*chunks, {"status": "complete", "total_chunks": len(chunks)}]


async def collected(api, batch=False):
    async with serving(api.app()) as url, client() as http:
        endpoint = Endpoint(http, Service(kind="runpod", url=f"{url}/v2/x/runsync", key="k", poll_s=0.005))
        async with aclosing(endpoint.batch({"text": "a"}) if batch else endpoint.parts({"text": "a"})) as parts:
            return [part async for part in parts]


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize(("per_look", "cold"), [(1, 0), (1, 3), (2, 1), (50, 2)])
async def test_a_job_is_submitted_and_its_stream_polled(per_look, cold, aggregate):
    api = Api(spoken(1, 2, 3), per_look, cold, aggregate=aggregate)
    parts = await collected(api)
    assert parts == [Audio(b"\1\0", 48_000), Audio(b"\2\0", 48_000), Audio(b"\3\0", 48_000), Complete()]
    assert api.submitted == [({"input": {"text": "a"}}, "Bearer k")]
    assert api.cancelled == []


@pytest.mark.parametrize("cold", [0, 3])
async def test_a_batch_is_waited_for(cold):
    parts = await collected(Api(spoken(1, 2), cold=cold), batch=True)
    assert parts == [Audio(b"\1\0", 48_000), Audio(b"\2\0", 48_000), Complete()]


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("end", ["FAILED", "CANCELLED", "TIMED_OUT"])
async def test_a_job_that_fails_is_told(end, batch):
    with pytest.raises(UpstreamError, match=f"{end.lower()}: out of memory"):
        await collected(Api(cold=0, end=end, error="out of memory"), batch)


async def test_a_job_that_fails_after_some_chunks_is_told_after_them():
    api = Api(spoken(1)[:1], cold=0, end="FAILED", error="lost")
    async with serving(api.app()) as url, client() as http:
        endpoint = Endpoint(http, Service(kind="runpod", url=f"{url}/v2/x", key="k", poll_s=0.005))
        async with aclosing(endpoint.parts({})) as parts:
            assert await anext(parts) == Audio(b"\1\0", 48_000)
            with pytest.raises(UpstreamError, match="lost"):
                await anext(parts)
        assert api.cancelled == ["job-1"]


@pytest.mark.parametrize(
    ("api", "says"),
    [
        (Api(spoken(1)[:1], cold=0), "stopped in the middle"),
        (Api(["text"], cold=0), "no JSON object"),
        (Api([{"error": "no such voice"}], cold=0), "no such voice"),
    ],
)
async def test_streams_that_are_none_are_told(api, says):
    with pytest.raises(UpstreamError, match=says):
        await collected(api)


@pytest.mark.parametrize("stream", ["abc", {"a": 1}, ["x"], [None], 5, [[]]])
async def test_answers_that_are_none_of_runpods_are_told(stream):
    api = Api()
    api.strange = stream
    with pytest.raises(UpstreamError, match="no list of outputs") as error:
        await collected(api)
    assert error.value.code == "upstream_garbled"
    assert api.cancelled == ["job-1"]


async def test_who_leaves_cancels_the_job():
    api = Api(spoken(1, 2)[:2], cold=0, end="IN_PROGRESS")
    service = {"kind": "runpod", "format": "pcm_16", "key": "k", "poll_s": 0.01}
    async with (
        serving(api.app()) as back,
        parley(services={"a": service | {"url": f"{back}/v2/x"}}) as url,
        asked(url) as listener,
    ):
        body = {"text": "Hi.", "voice": "a", "service": "a"}
        async with listener.stream("POST", "/api/tts/stream", json=body) as response:
            assert await anext(response.aiter_bytes())
            assert api.cancelled == []
        await until(lambda: api.cancelled == ["job-1"])


# The worker, behind the package's own server


@pytest.fixture(scope="module")
def packages() -> str:
    """Where the package runpod is: installed, or in a folder of its own, since it brings sixty others along."""
    if importlib.util.find_spec("runpod"):
        return str(PACKAGES)
    if not (PACKAGES / "runpod").is_dir():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(PACKAGES), "runpod>=1.7,<2"]
        done = subprocess.run(install, capture_output=True, timeout=300)
        if done.returncode:
            pytest.skip(f"the package runpod cannot be installed: {' '.join(install)}")
    return str(PACKAGES)


@asynccontextmanager
async def worker(*command: str, **environment: str):
    """The worker as a process, serving on a port of the system's choice: its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *["--rp_serve_api", "--rp_api_port", "0", "--rp_api_host", "127.0.0.1"],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    )
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            seen = ""
            while not (found := re.search(r"running on (http://[\d.:]+)", seen)):
                line = (await process.stdout.readline()).decode()
                assert line, f"the worker did not start: {seen}"
                seen += line
        draining = asyncio.create_task(process.stdout.read())
        yield found.group(1)
        process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.timeout(420)
async def test_the_worker_streams_batches_and_refuses_and_the_middleware_speaks_to_it(packages):
    near = fake_codec()
    async with worker(str(ROOT / "tests" / "runpod_worker.py"), packages) as url, httpx.AsyncClient(timeout=30) as http:
        # a batch
        body = {"input": {"text": TEXT, "voice": "flute"}}
        state = (await http.post(f"{url}/runsync", json=body)).json()
        assert state["status"] == "COMPLETED"
        assert [p for p in heard(await near.decode(from_wire(state["output"][0]))) if p >= 0] == pitches(TEXT)

        # a stream
        body = {"input": {"text": TEXT, "voice": "flute", "stream": True, "output_format": "pcm_16"}}
        job = (await http.post(f"{url}/run", json=body)).json()["id"]
        state = (await http.post(f"{url}/stream/{job}")).json()
        outputs = [held["output"] for held in state["stream"]]
        assert [output["status"] for output in outputs] == ["streaming"] * (len(outputs) - 1) + ["complete"]
        assert heard(b"".join(base64.b64decode(o["audio_chunk"]) for o in outputs[:-1])) == pitches(TEXT)

        # what is wrong
        for wrong, says in [
            ({}, "text is a required input"),
            ({"text": " "}, "text does not meet the constraints"),
            ({"text": 3}, "text should be"),
            ({"text": "Hi.", "output_format": "mp3"}, "output_format: one of"),
            ({"text": "Hi.", "stream": "yes"}, "stream"),
            ({"text": "Hi.", "colour": "red"}, "colour is not a valid input"),
            ({"text": "Hi.", "max_chars": 3}, "max_chars: 20 to 5000"),
            ({"text": "Hi.", "voice": "tuba"}, "tuba"),
            ({"text": "EXPLODE now"}, "the voice broke"),
            ({"text": "EXPLODE now", "stream": True}, "the voice broke"),
        ]:
            state = (await http.post(f"{url}/runsync", json={"input": wrong})).json()
            assert says in json.dumps(state), wrong
            assert state["output"][0]["status"] == "error"

        # all tiers: the listener, the middleware, the worker
        for format in ("linacodec_tokens", "pcm_16"):
            services = {"echotts": {"kind": "runpod", "url": f"{url}/runsync", "key": "k", "format": format}}
            async with parley(None, near, services=services) as middle, asked(middle) as listener:
                for path in ("stream", "batch"):
                    response = await listener.post(
                        f"/api/tts/{path}", json={"text": TEXT, "voice": "flute", "service": "echotts"}
                    )
                    assert response.status_code == 200
                    pcm = response.content[44:] if path == "batch" else response.content
                    assert [p for p in heard(pcm) if p >= 0] == pitches(TEXT)
                refused = await listener.post(
                    "/api/tts/stream", json={"text": TEXT, "voice": "tuba", "service": "echotts"}
                )
                assert (refused.status_code, refused.json()["code"]) == (502, "upstream_failed")
                assert "tuba" in refused.json()["error"]
    await near.stop()


@pytest.mark.timeout(420)
async def test_the_worker_as_it_is_deployed_speaks_with_a_real_engine(packages, tmp_path):
    config = tmp_path / "worker.toml"
    config.write_text(f'[tts]\nengine = "espeak"\n[characters]\ndirectory = "{ROOT / "configs" / "characters"}"\n')
    handler = str(ROOT / "deploy" / "runpod" / "handler.py")
    path = f"{ROOT}:{packages}"
    async with worker(handler, "--config", str(config), PYTHONPATH=path) as url, httpx.AsyncClient(timeout=30) as http:
        body = {"input": {"text": "Good evening, everybody.", "output_format": "pcm_16", "stream": True}}
        chunk, end = (await http.post(f"{url}/runsync", json=body)).json()["output"]
        assert (end["status"], chunk["sample_rate"]) == ("complete", 48_000)
        assert 48_000 < chunk["num_samples"] < 3 * 48_000
        body["input"] |= {"output_format": "linacodec_tokens"}
        (told,) = (await http.post(f"{url}/runsync", json=body)).json()["output"]
        assert told["code"] == "engine_unavailable"
