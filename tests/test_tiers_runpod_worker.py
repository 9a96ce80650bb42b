"""RunPod: the worker behind the package's own server."""

import asyncio
import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from server.pipelines.codec._tokens import from_wire
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, parley
from tests.tones import heard, pitches

ROOT = Path(__file__).parent.parent
PACKAGES = ROOT / "deploy" / "runpod" / ".packages"
TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4


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
    characters = ROOT / "configs" / "characters"
    config.write_text(f'[tts]\nengine = "espeak"\n[characters]\ndirectory = "{characters}"\n[tiers]\nlongest = 40\n')
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
        body["input"]["text"] *= 2
        (told,) = (await http.post(f"{url}/runsync", json=body)).json()["output"]
        assert told["error"] == "text: 48 characters; at most 40"
