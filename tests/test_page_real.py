"""The page, the real server and the real embedded engines: speech into the microphone, what the speaker played."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.browser import QUANTUM, all_played, chromium, microphone_wav, open_page, phase, start_of, told
from tests.speech import say, silence
from tests.wire import running


@asynccontextmanager
async def real_server() -> AsyncIterator[str]:
    """The address of a server of its own process."""
    # A long lead: a busy machine may keep the server waiting, and what is asked here is what is played, not how early.
    settings = {"PARLEY_LLM_ENGINE": "eliza", "PARLEY_AUDIO_LEAD_MS": "1500"}
    async with running("--config", "configs/embedded.toml", **settings) as (address, _):
        yield f"http://{address}/"


class Ear:
    """What comes to the page over its sockets, as it comes: `pcm` by reply, `events`."""

    def __init__(self, page: Any) -> None:
        self.pcm: dict[int, bytes] = {}
        self.events: list[dict[str, Any]] = []
        self._reply = -1
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _received(self, frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            self.pcm[self._reply] = self.pcm.get(self._reply, b"") + frame
            return
        event = json.loads(frame)
        self.events.append(event)
        if event["type"] == "reply.audio":
            self._reply = event["reply"]

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == type]

    @property
    def heard(self) -> list[str]:
        """What was heard of each reply."""
        ends = [event for event in self.events if event["type"] in ("reply.interrupted", "reply.done")]
        return [text for event in ends if (text := event.get("heard", event.get("text")))]

    async def got(self, type: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(30):
            while len(self.of(type)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self.of(type)[count - 1]

    def samples(self, reply: int) -> np.ndarray:
        return np.frombuffer(self.pcm[reply], "<i2").astype(np.float32) / 32768


async def test_a_spoken_question_is_understood_and_answered_aloud(tmp_path: Path) -> None:
    wav = microphone_wav(
        tmp_path / "question.wav", silence(600) + say("what is your favorite machine") + silence(20_000)
    )
    async with real_server() as url, chromium(wav) as chrome, open_page(chrome, "about:blank") as page:
        ear = Ear(page)
        await page.goto(url + "?tap=1")
        await page.fill("#say-text", "Hello, Ada.")
        await page.click("#send")
        await ear.got("reply.done")
        await page.click("#main-button")
        final = await ear.got("transcript.final", 2)
        assert "favorite machine" in final["text"]
        assert len(ear.of("transcript.partial")) > 2
        done = await ear.got("reply.done", 2)
        await phase(page, "listening")
        assert (await page.inner_text(".line.reply:last-child .text")) == done["text"]
        assert await page.locator(".line.user .text").all_inner_texts() == ["Hello, Ada.", final["text"]]
        samples = await all_played(page)
        for reply in (1, 2):
            await start_of(page, reply, samples, ear.samples(reply))
        assert not await told(page, "underrun")
        metrics = await ear.got("turn.metrics", 2)
        assert metrics["turn_end"] < metrics["first_sent"] <= metrics["first_heard"]


async def test_a_greeting_is_cut_short_by_speech_and_a_reload_goes_on(tmp_path: Path) -> None:
    speech = say("please stop and listen to me now")
    wav = microphone_wav(tmp_path / "cut.wav", silence(2_000) + speech + silence(30_000))
    async with real_server() as url, chromium(wav) as chrome, open_page(chrome, "about:blank") as page:
        ear = Ear(page)
        await page.goto(url + "?tap=1")
        await page.click("#main-button")
        cut = await ear.got("reply.interrupted")
        assert cut["reason"] == "speech"
        assert cut["heard"]
        assert cut["unheard"]
        await ear.got("reply.audio", 2)
        assert "listen" in (await ear.got("transcript.final"))["text"]
        done = await ear.got("reply.done")
        await phase(page, "listening")

        samples = await all_played(page)
        [paused, *_] = await told(page, "paused")
        heard = round(paused["ms"] * (await page.evaluate("() => window.parley.tap.rate")) / 1_000)
        kept = ear.samples(cut["reply"])[: heard - 1_000]  # before the fade
        stop = heard + await start_of(page, cut["reply"], samples, kept)
        again = await start_of(page, done["reply"], samples, ear.samples(done["reply"]))
        assert not samples[stop + QUANTUM : again].any(), "silent from the pause to the next reply"
        assert abs(cut["heard_ms"] - paused["ms"]) < 1
        struck = await page.inner_text(".line.reply del")
        assert struck.endswith(cut["unheard"])

        lines = await page.locator(".line .text").all_inner_texts()
        await page.reload()
        history = await ear.got("history", 3)
        assert [each["text"] for each in history["messages"] if each["role"] == "assistant"] == ear.heard
        await page.wait_for_function("count => document.querySelectorAll('.line').length === count", arg=len(lines))
        await page.fill("#say-text", "Are you still there?")
        await page.click("#send")
        await ear.got("reply.done", 2)
        await page.wait_for_function("() => window.parley.tap.samples().some((each) => each !== 0)")
