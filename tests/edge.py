"""The Cloudflare Worker in the real runtime (npm's workerd), and a listener of it."""

import asyncio
import base64
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from tests import tiers_listener
from tests.tiers_app import asked

EDGE = Path(__file__).parent.parent / "deploy" / "cloudflare"
TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow. " * 4
BODY = {"text": TEXT, "voice": "flute", "service": "a"}


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
    runtime()
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
    return await tiers_listener.listen(client, body, **more)


def chunk(number: int, *values: int) -> dict:
    sound = base64.b64encode(np.full(2_400, values[0], "<i2").tobytes()).decode()
    return {"status": "streaming", "chunk": number, "format": "pcm_16", "sample_rate": 48_000, "audio_chunk": sound}
