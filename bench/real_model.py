"""llama.cpp's own server with a model made on the spot, where both can be had."""

import asyncio
import importlib.util
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests import tiny_gguf

NEEDS = "needs llama.cpp's llama-server in PATH, and pip install gguf"


def present() -> bool:
    return bool(shutil.which("llama-server")) and importlib.util.find_spec("gguf") is not None


@asynccontextmanager
async def served() -> AsyncIterator[str]:
    """Its address, with `/v1`."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "tiny.gguf")
        tiny_gguf.write(model)
        options = ("-c", "512", "-t", "1", "--jinja", "--no-webui", "--host", "127.0.0.1", "--port", "0")
        process = await asyncio.create_subprocess_exec(
            "llama-server",
            *options,
            "-m",
            str(model),
            stderr=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert process.stderr is not None
        found = None
        async with asyncio.timeout(60):
            while not found:
                found = re.search(rb"listening on (http://[\w.:]+)", await process.stderr.readline())
        swallow = asyncio.create_task(process.stderr.read())
        try:
            yield found[1].decode() + "/v1"
        finally:
            process.kill()
            await process.wait()
            await swallow
