"""The real engine on the tiny model, and what tests ask of it."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np

from server.audio import wav
from server.pipelines.engines import Speaker, Speech, Voice
from server.pipelines.loading import load
from tests.higgs import tiny

RATE = 24_000
TEXT = "A sentence of some length, spoken by one of many."
PATIENCE = 60.0
LONG = Voice(seed=15, temperature=1.0)  # speaks TEXT for eleven seconds: these weights end where chance has it


def options(**changes: Any) -> dict[str, Any]:
    return {
        "model": str(tiny.folder()),
        "local_files_only": True,
        "device": tiny.DEVICE,
        "streams": 4,
        "max_seconds": 4.0,
    } | changes


async def started(**changes: Any) -> Any:
    engine = load("tts", "higgs", options(**changes))
    await engine.start()
    return engine


async def said(speaker: Speaker, text: str = TEXT) -> list[Speech]:
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(text)) as speech:  # type: ignore[type-var]
        return [piece async for piece in speech]


async def until(reached: Any) -> None:
    """What the engine's thread does cannot be awaited, only looked at."""
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def recording(path: Path, seconds: float = 2.0, level: float = 0.1) -> Path:
    noise = np.random.default_rng(0).normal(0, level, int(seconds * RATE))
    path.write_bytes(wav((np.clip(noise, -1, 1) * 32767).astype("<i2").tobytes(), RATE))
    return path
