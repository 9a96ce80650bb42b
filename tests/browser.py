"""Headless Chromium for the page's tests: a WAV as the microphone, what was played as numpy samples."""

import contextlib
import os
import shutil
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""

if not CHROMIUM:
    pytest.skip("no chromium here: apt-get install chromium, or name one in CHROMIUM", allow_module_level=True)
playwright_api = pytest.importorskip("playwright.async_api", reason="playwright is missing: pip install -e .[test]")

QUANTUM = 128  # samples an audio worklet is given at a time

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]


def microphone_wav(path: Path, pcm: bytes, rate: int = 16_000) -> Path:
    """`pcm` as a WAV for the fake microphone."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
    return path


@contextlib.asynccontextmanager
async def chromium(
    microphone: Path | None = None, *, ask: bool = True, device: bool = True, loop: bool = False
) -> AsyncIterator[Any]:
    """A browser whose microphone plays `microphone` (a beep where None). `ask=False`: permission is denied;
    `device=False`: there is no microphone."""
    flags = list(_FLAGS)
    if ask:
        flags.append("--use-fake-ui-for-media-stream")
    if device:
        flags.append("--use-fake-device-for-media-stream")
    if microphone:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}{'' if loop else '%noloop'}")
    async with playwright_api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=flags, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def open_page(browser: Any, url: str, **context: Any) -> AsyncIterator[Any]:
    """The page at `url`; a script error on it, or a line of its console that is one, fails the test."""
    options = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **context}
    async with await browser.new_context(**options) as fresh:
        page = await fresh.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: errors.append(line.text) if line.type == "error" and "WebSocket" not in line.text else None,
        )
        page.set_default_timeout(15_000)
        await page.goto(url)
        yield page
        assert not errors, errors


async def phase(page: Any, name: str) -> None:
    """Wait until the page shows the state `name`."""
    await page.wait_for_function("name => document.body.dataset.phase === name", arg=name)


async def played(page: Any) -> npt.NDArray[np.float32]:
    """All samples that have gone to the speaker so far (the page needs `?tap=1`)."""
    values = await page.evaluate("() => Array.from(window.parley.tap.samples())")
    return np.array(values, dtype=np.float32)


async def all_played(page: Any) -> npt.NDArray[np.float32]:
    """What went to the speaker, once the tap has handed over all of it up to now."""
    await page.evaluate("""async () => {
      const before = window.parley.tap.chunks.length;
      while (window.parley.tap.chunks.length < before + 4) await new Promise((done) => setTimeout(done, 5));
    }""")
    return await played(page)


async def told(page: Any, type: str) -> list[dict[str, Any]]:
    """What the player told of `type` so far: {type, reply, ms, frame}."""
    events: list[dict[str, Any]] = await page.evaluate("() => window.parley.tap.events")
    return [event for event in events if event["type"] == type]


async def start_of(page: Any, reply: int, played: npt.NDArray[np.float32], sent: npt.NDArray[np.float32]) -> int:
    """Where, in what was `played`, `reply` begins, of which at least `sent` sounded. The frame that Chromium tells a
    worklet is a quantum or two off now and then, so it is looked for around it; the samples must be exact."""
    [frame] = [event["frame"] for event in await told(page, "started") if event["reply"] == reply]
    near = int(frame - await page.evaluate("() => window.parley.tap.chunks[0].frame"))
    around = [max(0, near + quanta * QUANTUM) for quanta in (0, -1, 1, -2, 2, -3, 3)]
    found = [at for at in around if np.array_equal(played[at : at + sent.size], sent)]
    assert found, f"what was sent is not what was played: {near=}, {sent.size=}, {played.size=}"
    return found[0]
