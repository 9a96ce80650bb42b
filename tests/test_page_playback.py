"""The page in headless Chromium: every sample it plays, and how far it says it got."""

import numpy as np
import pytest

from tests.browser import all_played, phase, start_of, told
from tests.scripted_server import RATE, tone
from tests.talking_page import FADE, QUANTUM, TEXT, floats, heard_ms, sounding, talking


async def test_what_is_played_is_what_was_sent_and_its_progress_is_told() -> None:
    async with talking() as (server, page):
        pcm = tone(1_500)
        await server.speak(1, TEXT, pcm)
        await heard_ms(server, 1, 1_500)
        samples = await all_played(page)
        begin, _ = sounding(samples)
        whole = floats(pcm)
        np.testing.assert_array_equal(samples[begin : begin + whole.size], whole)
        tail = samples[begin + whole.size :]
        assert np.all(np.diff(np.abs(tail[: RATE // 20])) <= 0), "the end dies away"
        assert not tail[RATE // 20 :].any()
        progress = [each["ms"] for each in server.sent("playback")]
        assert progress == sorted(progress)
        assert progress[-1] == pytest.approx(1_500)
        assert max(np.diff([0, *progress])) < 160


async def test_a_stalled_network_makes_a_gap_and_loses_nothing() -> None:
    async with talking() as (server, page):
        pcm = tone(1_000)
        await server.speak(1, TEXT, pcm[: RATE // 2])
        await heard_ms(server, 1, 249)
        await page.wait_for_function("() => window.parley.tap.events.some(({ type }) => type === 'dry')")
        await server.play(1, pcm[RATE // 2 :], announce=False)
        await heard_ms(server, 1, 1_000)
        samples = await all_played(page)
        begin, end = sounding(samples)
        first, rest = floats(pcm[: RATE // 2]), floats(pcm[RATE // 2 :])
        np.testing.assert_array_equal(samples[begin : begin + first.size], first)
        again = int(np.flatnonzero(samples == rest[FADE])[-1]) - FADE
        np.testing.assert_array_equal(samples[again + FADE : again + rest.size], rest[FADE:])
        assert end - begin > first.size + rest.size
        assert np.abs(np.diff(samples[begin : again + FADE])).max() < 0.02, "no click around the gap"
        assert len(await told(page, "underrun")) == 1


async def test_a_voice_that_breaks_up_is_explained() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(200))
        for gap in range(1, 6):
            assert await page.locator(".notice").count() == 0
            await page.wait_for_function(
                "count => window.parley.tap.events.filter(({ type }) => type === 'dry').length === count", arg=gap
            )
            await server.play(1, tone(300), announce=False)
        await page.wait_for_selector(".notice:has-text('the voice breaks up')")


async def test_after_a_gap_the_page_asks_for_audio_further_ahead_and_no_further_than_it_has_use_for() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(200))
        for gap, lead in enumerate((600, 1_200, 1_500), start=1):
            await page.wait_for_function(
                "count => window.parley.tap.events.filter(({ type }) => type === 'dry').length === count", arg=gap
            )
            await server.play(1, tone(300), announce=False)
            assert (await server.got("session.update", gap))["lead_ms"] == lead
            await server.tell("session.updated", lead_ms=lead, turn={"mode": "auto", "silence_ms": 500})
        await page.wait_for_function("() => window.parley.tap.events.filter(({ type }) => type === 'dry').length === 4")
        await server.play(1, tone(300), announce=False)
        await heard_ms(server, 1, 1_400)
        assert len(server.sent("session.update")) == 3


async def test_a_pause_holds_and_goes_on_from_the_very_sample() -> None:
    async with talking() as (server, page):
        pcm = tone(3_000)
        await server.speak(1, TEXT, pcm)
        await heard_ms(server, 1, 300)
        await server.tell("reply.paused", reply=1, heard_ms=300, reason="speech")
        await phase(page, "paused")
        held = server.sent("playback")[-1]["ms"]
        silent = await all_played(page)
        assert server.sent("playback")[-1]["ms"] == held
        assert not silent[-QUANTUM * 16 :].any()
        await server.tell("reply.resumed", reply=1, heard_ms=held, reason="noise")
        await phase(page, "speaking")
        await heard_ms(server, 1, 3_000)
        samples, whole = await all_played(page), floats(pcm)
        begin, _ = sounding(samples)
        stop = round(held * RATE / 1_000)
        np.testing.assert_array_equal(samples[begin : begin + stop - FADE], whole[: stop - FADE])
        fading = samples[begin + stop - FADE : begin + stop]
        np.testing.assert_allclose(fading, whole[stop - FADE : stop] * (1 - np.arange(1, FADE + 1) / FADE), atol=1e-4)
        again = begin + stop + int(np.flatnonzero(samples[begin + stop :])[0])
        rising = samples[again : again + FADE]
        np.testing.assert_allclose(rising, whole[stop : stop + FADE] * np.arange(1, FADE + 1) / FADE, atol=1e-4)
        np.testing.assert_array_equal(samples[again + FADE : again + whole.size - stop], whole[stop + FADE :])


@pytest.mark.parametrize("way", ["Escape", "button"])
async def test_stop_is_silence_within_a_quantum_and_tells_how_far_it_got(way: str) -> None:
    async with talking() as (server, page):
        pcm = tone(5_000)
        await server.speak(1, TEXT, pcm)
        await heard_ms(server, 1, 400)
        await (page.keyboard.press("Escape") if way == "Escape" else page.click("#stop"))
        await server.got("reply.interrupt")
        at = server.received.index({"type": "reply.interrupt"})
        position = server.received[at - 1]
        assert position["type"] == "playback"
        assert position["reply"] == 1
        samples = await all_played(page)
        begin, end = sounding(samples)
        stop = round(position["ms"] * RATE / 1_000)
        assert 0 <= begin + stop - end <= 1, "the position is what has sounded, to the sample"
        np.testing.assert_array_equal(samples[begin : begin + stop - QUANTUM], floats(pcm)[: stop - QUANTUM])
        steps = np.abs(np.diff(samples[begin + stop - QUANTUM : begin + stop + 1]))
        assert steps.max() < 1.2 * samples[begin + stop - QUANTUM] / QUANTUM, "faded evenly: no click"
        await phase(page, "listening")


async def test_a_late_frame_of_an_old_reply_is_never_played() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(2_000))
        await heard_ms(server, 1, 200)
        await server.tell(
            "reply.interrupted", reply=1, heard_ms=200, heard="You follow", unheard="the map.", reason="speech"
        )
        await server.play(1, tone(500), announce=False)
        await server.play(1, tone(500))
        await page.wait_for_selector("del")
        fresh = tone(600, start=7_000)
        await server.speak(2, "Well.", fresh, character="finn")
        await heard_ms(server, 2, 600)
        samples = await all_played(page)
        offset = await start_of(page, 2, samples, floats(fresh))
        [start] = [each["frame"] for each in await told(page, "started") if each["reply"] == 2]
        [gone] = [each["frame"] for each in await told(page, "flushed") if each["reply"] == 1]
        assert not samples[gone - start + offset + 2 * QUANTUM : offset].any()
