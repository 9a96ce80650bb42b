"""The "read aloud" view in headless Chromium, against the application: what it plays, says and offers."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from server.audio import read_wav
from tests.browser import all_played, chromium, open_page, told
from tests.fake_codec import fake_codec
from tests.tiers_app import application, parley, serving, upstream
from tests.tiers_listener import tokens_of
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall."


@asynccontextmanager
async def reading(tts: Any = None, codec: Any = None, **tiers: Any) -> Any:
    """The page, at the view that reads aloud."""
    app = application(tts or ToneTTS(), codec, tiers=tiers)
    async with serving(app) as url, chromium() as chrome, open_page(chrome, f"{url}/?tap=1#read") as page:
        await page.wait_for_selector("#read-start:not([disabled])")
        yield page


async def read(page: Any, text: str = TEXT) -> None:
    await page.fill("#read-text", text)
    await page.click("#read-start")


async def state(page: Any, text: str) -> None:
    await page.wait_for_selector(f"#read-state:has-text('{text}')")


async def sounded(page: Any) -> np.ndarray:
    """From the first sample that is not silent to the last."""
    samples = await all_played(page)
    places = np.flatnonzero(np.abs(samples) > 1e-3)
    assert places.size, "nothing was played"
    return samples[places[0] : places[-1] + 1]


async def download(page: Any) -> bytes:
    async with page.expect_download() as starting:
        await page.click("#read-download")
    file = await (await starting.value).path()
    pcm, rate = read_wav(await asyncio.to_thread(file.read_bytes))
    assert rate == 48_000
    return pcm


async def test_a_text_is_read_without_a_gap_and_can_be_kept() -> None:
    far, near = fake_codec(), fake_codec()
    async with (
        parley(ToneTTS(), far) as back,
        reading(codec=near, services={"echotts": {"url": back}}) as page,
    ):
        text = f"{TEXT} {prose(90)}"
        await read(page, text)
        await state(page, "Reading")
        await state(page, "Read to the end")
        samples = await sounded(page)
        assert heard((samples * 32767).astype("<i2").tobytes()) == pitches(text)[: len(samples) // 7_680]
        assert abs(len(samples) - len(pitches(text)) * 7_680) < 48  # not a sample more or less than was sent
        quiet = np.convolve(np.abs(samples) < 1e-3, np.ones(480), "valid")
        assert quiet.max() < 480  # 10 ms of silence would be a gap
        assert not await told(page, "underrun")
        figures = await page.inner_text("#read-figures")
        assert "first sound after" in figures
        assert "chunk" in figures
        pcm = await download(page)
        assert len(pcm) == len(pitches(text)) * 2 * 7_680
        assert heard(pcm) == pitches(text)


async def test_streaming_switched_off_reads_in_one_piece() -> None:
    async with reading(streaming=False) as page:
        assert await page.is_disabled("#read-streaming")
        await read(page)
        await state(page, "Read to the end")
        assert heard(await download(page)) == pitches(TEXT)
        assert await page.is_hidden("#read-note")


async def test_the_user_may_ask_for_one_piece() -> None:
    async with reading() as page:
        await page.uncheck("#read-streaming")
        await read(page)
        await state(page, "Reading, fetched in one piece")
        await state(page, "Read to the end")
        assert heard(await download(page)) == pitches(TEXT)


async def test_a_stream_that_breaks_off_is_said_and_the_whole_recording_goes_on_where_it_was() -> None:
    first, second = "Seven kettles.", "Two lanterns beyond."

    async def script(answer: Any) -> None:
        await answer.head()
        if answer.body["stream"]:
            await answer.line(await tokens_of(first))
            await asyncio.sleep(0.1)
            answer.die()
            return
        whole = (await tokens_of(f"{first} {second}")) | {"status": "complete"}
        await answer.piece(json.dumps({k: v for k, v in whole.items() if k != "chunk"}).encode())
        await answer.end()

    codec = fake_codec()
    async with (
        upstream(script) as back,
        serving(application(ToneTTS(), codec, tiers={"services": {"a": {"kind": "ndjson", "url": back}}})) as url,
        chromium() as chrome,
        broken_off(chrome, f"{url}/?tap=1#read") as page,
    ):
        await page.wait_for_selector("#read-start:not([disabled])")
        await read(page)
        await page.wait_for_selector("#read-note:has-text('Streaming failed: The connection to')")
        assert "Getting the whole recording instead." in await page.inner_text("#read-note")
        await state(page, "Read to the end")
        samples = await sounded(page)
        assert heard((samples * 32767).astype("<i2").tobytes())[:4] == pitches(f"{first} {second}")[:4]
        assert heard(await download(page)) == pitches(f"{first} {second}")
    await codec.stop()


@asynccontextmanager
async def broken_off(chrome: Any, url: str) -> Any:
    """As `open_page`, where the browser's own word about the broken connection is no error of the page's."""
    async with await chrome.new_context() as fresh:
        page = await fresh.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(15_000)
        await page.goto(url)
        yield page
        assert not errors, errors


async def test_what_cannot_be_read_is_said_in_plain_words() -> None:
    async with (
        serving(application(ToneTTS(), None, tiers={"services": {"local": {"kind": "local"}}})) as url,
        chromium() as chrome,
        broken_off(chrome, f"{url}/?tap=1#read") as page,
    ):
        await page.wait_for_selector("#read-start:not([disabled])")
        await page.fill("#read-voice", "tuba")
        await read(page)
        await state(page, "It could not be read")
        assert "No voice 'tuba'; there are: flute, bell." in await page.inner_text("#read-note")
        assert await page.is_hidden("#read-download")


async def test_stop_and_escape_silence_it_and_keep_what_came() -> None:
    async with reading() as page:
        for stop in ("#read-stop", None):
            await read(page, prose(900))
            await state(page, "Reading")
            await page.wait_for_function("() => document.querySelector('#read-progress').value > 300")
            await (page.click(stop) if stop else page.keyboard.press("Escape"))
            await state(page, "Stopped")
            await all_played(page)
            await page.evaluate("() => window.parley.tap.clear()")
            assert not (await all_played(page)).any()
            assert await page.is_visible("#read-download")


async def test_a_long_text_waits_on_the_page_and_is_not_all_given_to_the_speaker() -> None:
    async with reading() as page:
        await read(page, prose(3_000))
        await page.wait_for_selector("#read-download", state="attached")
        await page.wait_for_function("() => document.querySelector('#read-progress').max > 60000")
        await page.wait_for_function("() => document.querySelector('#read-progress').value > 200")
        assert await page.evaluate("() => document.querySelector('#read-progress').value") < 20_000
        await page.click("#tab-talk")
        await page.click("#tab-read")
        await state(page, "Stopped")


async def test_the_view_offers_the_characters_voices_and_fits_a_phone() -> None:
    async with reading() as page:
        await page.wait_for_function("() => document.querySelectorAll('#read-voices option').length > 0")
        assert await page.is_hidden("#open-timing"), "there are no turns here"
        await page.click("#tab-talk")
        assert await page.is_visible("#open-timing")
        await page.wait_for_function("() => window.parley.state.session")
        await page.click("#tab-read")
        await page.wait_for_function("() => document.querySelectorAll('#read-voices option').length > 1")
        values = await page.evaluate("() => [...document.querySelectorAll('#read-voices option')].map((o) => o.value)")
        assert values[0] == "default"
        assert len(values) > 1
        await read(page)  # the voice is left empty: the service's own
        await state(page, "Read to the end")
        await page.set_viewport_size({"width": 360, "height": 740})
        assert await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
