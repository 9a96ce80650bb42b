"""Parley's back end as a RunPod serverless worker: text in, codec tokens or PCM out, chunk by chunk.

    python handler.py --config worker.toml                                   on RunPod
    python handler.py --config worker.toml --rp_serve_api --rp_api_port 8001  the package's own server, to try it

Input: text, voice, stream, output_format (linacodec_tokens or pcm_16), voice_options, engine. Output: the messages of
`/api/tts/synthesize`. A failure is `{"error": ...}`, which makes the job one that failed.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import runpod
from runpod.serverless.utils.rp_validator import validate

from server import characters
from server.errors import ParleyError
from server.http.tiers.mount import picker
from server.pipelines.loading import load
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.pieces import pieces
from server.pipelines.tiers.requests import FORMATS, request
from server.pipelines.tiers.services import TierRules
from server.rack import Rack
from server.settings import EngineSettings, Settings, read
from server.telemetry import log, set_up

Open = Callable[[], Awaitable[Backend]]
LONGEST = TierRules().longest
SCHEMA: dict[str, dict[str, Any]] = {
    "text": {"type": str, "required": True, "constraints": lambda text: isinstance(text, str) and text.strip() != ""},
    "voice": {"type": str, "required": False, "default": "default"},
    "service": {"type": str, "required": False, "default": ""},
    "engine": {"type": str, "required": False, "default": ""},
    "stream": {"type": bool, "required": False, "default": False},
    "output_format": {"type": str, "required": False, "default": FORMATS[0], "constraints": lambda f: f in FORMATS},
    "sample_rate": {"type": int, "required": False, "default": 48_000},
    "max_chars": {"type": int, "required": False, "default": 0},
    "voice_options": {"type": dict, "required": False, "default": {}},
}


def handler(open: Open, longest: int = LONGEST) -> Callable[[dict[str, Any]], AsyncGenerator[dict[str, Any], None]]:
    """The job's generator, for texts of `longest` characters at the most. The engines are opened with the first job, in
    the loop that serves all."""
    opening = asyncio.Lock()
    backend: Backend | None = None

    async def opened() -> Backend:
        nonlocal backend
        async with opening:
            backend = backend or await open()
            return backend

    async def work(job: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        given = job.get("input")
        checked = (
            validate(dict(given), SCHEMA) if isinstance(given, dict) else {"errors": ["input: an object is needed"]}
        )
        if wrong := checked.get("errors"):
            yield {"error": "; ".join(map(str, wrong)), "status": "error", "code": "bad_message"}
            return
        try:
            asked, back = request(checked["validated_input"], longest), await opened()
            if not asked.stream:
                yield await back.batch(asked)
                return
            async with aclosing(pieces(back.stream(asked))) as messages:
                async for message in messages:
                    yield message
        except ParleyError as error:
            log.warning("job failed: %s", error)
            yield {"error": str(error), "status": "error", "code": error.code}

    return work


async def engines(settings: Settings) -> Backend:
    """The voices and the codec of `settings`, opened. Raises `ConfigError`, `EngineUnavailable`."""

    def made(kind: Any, chosen: EngineSettings) -> Any:
        return load(kind, chosen.engine, chosen.options) if chosen.engine else None

    rack = Rack(
        None, None, None,  # it neither hears nor thinks
        made("tts", settings.tts),
        voices={name: made("tts", engine) for name, engine in settings.voices.items()},
        codec=made("codec", settings.codec),
    )  # fmt: skip
    await rack.__aenter__()
    everybody = characters.read(settings.characters.directory)
    rules = settings.tiers
    return Backend(picker(rack, everybody), rack.codec, max_chars=rules.max_chars, first_chars=rules.first_chars)


def start(open: Open, at_once: int, longest: int = LONGEST) -> None:
    """Serve jobs until the worker is stopped; `at_once` of them."""
    runpod.serverless.start(
        {
            "handler": handler(open, longest),
            "concurrency_modifier": lambda current: at_once,
            "return_aggregate_stream": True,  # /runsync and /status answer with everything, too
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_name("worker.toml"))
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest  # the package reads the others
    set_up()
    settings = read(options.config)
    start(lambda: engines(settings), settings.tiers.streams, settings.tiers.longest)


if __name__ == "__main__":
    main()
