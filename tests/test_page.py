"""The page in headless Chromium against a scripted server: what it shows, what it sends, and every sample it plays."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from tests.browser import QUANTUM, all_played, chromium, open_page, phase, start_of, told
from tests.scripted_server import RATE, ScriptedServer, scripted_server, tone

FADE = RATE // 100
TEXT = "You follow the map, and never the man who sold it to you."


@asynccontextmanager
async def talking(query: str = "?tap=1", **browser: Any) -> AsyncIterator[tuple[ScriptedServer, Any]]:
    """A page whose user has pressed Start."""
    async with (
        scripted_server() as server,
        chromium(**browser) as chrome,
        open_page(chrome, server.url + query) as page,
    ):
        await page.click("#main-button")
        await server.connected(2)
        await phase(page, "listening")
        yield server, page


async def heard_ms(server: ScriptedServer, reply: int, ms: float) -> None:
    """Once the page has told that `ms` of `reply` have sounded."""
    for count in itertools.count(1):
        told = await server.got("playback", count)
        if told["reply"] == reply and told["ms"] >= ms:
            return


def floats(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


def sounding(samples: np.ndarray) -> tuple[int, int]:
    """Where sound begins and ends."""
    places = np.flatnonzero(samples)
    assert places.size, "nothing was played"
    return int(places[0]), int(places[-1]) + 1


async def test_a_whole_conversation() -> None:
    async with talking() as (server, page):
        assert server.queries[-1] == {"greet": "1", "character": "ada"}
        await server.tell("user.started", at_ms=100)
        await phase(page, "hearing")
        await server.tell("transcript.partial", text="how do i")
        await page.wait_for_selector(".line.user.partial :text('how do i')")
        await server.tell("user.stopped", at_ms=900)
        await server.tell("transcript.final", text="How do I find a treasure?", turn=1)
        await phase(page, "thinking")
        await page.wait_for_selector(".line.user:not(.partial) :text-is('How do I find a treasure?')")
        pcm = tone(2_000)
        await server.speak(1, TEXT, pcm)
        await phase(page, "speaking")
        assert await page.inner_text("#speaker-name") == "Ada"
        await page.wait_for_function("() => document.querySelectorAll('.said').length > 3")
        assert await page.locator(".coming").count() > 0
        await heard_ms(server, 1, 1_999)
        await server.tell("reply.done", reply=1, text=TEXT, audio_ms=2_000)
        await phase(page, "listening")
        assert await page.inner_text(".line.reply .text") == TEXT
        assert await page.locator(".coming").count() == 0


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


async def test_what_was_cut_off_is_struck_through() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(4_000))
        await phase(page, "speaking")
        await server.tell("user.started", at_ms=5_000)
        await server.tell("reply.paused", reply=1, heard_ms=600, reason="speech")
        await phase(page, "paused")
        unheard = "and never the man who sold it to you."
        await server.tell(
            "reply.interrupted", reply=1, heard_ms=650, heard="You follow the map,", unheard=unheard, reason="speech"
        )
        await phase(page, "hearing")
        assert (await page.inner_text(".line.reply del")).endswith(unheard)
        assert (await page.inner_text(".line.reply .text")).startswith("You follow the map,")


async def test_a_backchannel_leaves_no_line() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(4_000))
        await phase(page, "speaking")
        await server.tell("reply.paused", reply=1, heard_ms=300, reason="speech")
        await server.tell("user.started", at_ms=5_000)
        await server.tell("transcript.partial", text="mhm")
        await page.wait_for_selector(".line.user.partial")
        await server.tell("reply.resumed", reply=1, heard_ms=300, reason="backchannel")
        await server.tell("user.stopped", at_ms=5_400)
        await phase(page, "speaking")
        await page.wait_for_selector(".line.user", state="detached")


async def test_the_microphone_arrives_as_20_ms_frames_until_it_is_muted() -> None:
    async with talking() as (server, page):
        await page.wait_for_function("() => window.parley.state.microphone")
        await asyncio.wait_for(_until(lambda: len(server.heard) > 20), 10)
        assert {len(frame) for frame in server.heard} == {640}
        beeps = lambda: any(np.abs(np.frombuffer(frame, "<i2")).max() > 300 for frame in server.heard)  # noqa: E731
        await asyncio.wait_for(_until(beeps), 10)
        await page.click("#main-button")
        await phase(page, "muted")
        await asyncio.wait_for(_until(lambda: not any(map(any, server.heard[-5:]))), 10)


async def _until(condition: Any) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_push_to_talk_on_the_space_bar() -> None:
    async with talking() as (server, page):
        await page.click("#mode")
        assert (await server.got("session.update"))["turn"] == {"mode": "manual"}
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 200)
        before = len(server.heard)
        await page.keyboard.down("Space")
        await phase(page, "hearing")
        await server.got("reply.interrupt")
        await asyncio.wait_for(_until(lambda: len(server.heard) > before + 20), 10)
        assert not server.sent("user.commit")
        await page.keyboard.up("Space")
        await server.got("user.commit")
        spoken = len(server.heard)
        await phase(page, "thinking")
        await server.tell("transcript.final", text="", turn=1)
        await phase(page, "ready")
        await page.click("#say-text")
        await page.keyboard.type("two words")
        assert await page.input_value("#say-text") == "two words"
        assert len(server.heard) == spoken, "nothing is heard while the key is up"
        assert len(server.sent("user.commit")) == 1


async def test_holding_the_button_talks_too() -> None:
    async with talking() as (server, page):
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        await page.hover("#main-button")
        await page.mouse.down()
        await phase(page, "hearing")
        await page.wait_for_timeout(300)
        await page.mouse.up()
        await server.got("user.commit")


async def test_a_typed_turn_interrupts_and_is_shown_once() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 200)
        await page.fill("#say-text", "Which map?")
        await page.keyboard.press("Enter")
        assert (await server.got("user.text"))["text"] == "Which map?"
        assert server.received[server.received.index(server.sent("user.text")[0]) - 1]["type"] == "playback"
        await phase(page, "thinking")
        await server.tell("reply.interrupted", reply=1, heard_ms=250, heard="You", unheard="follow.", reason="text")
        await server.tell("transcript.final", text="Which map?", turn=2)
        await server.speak(2, "That one.", tone(1_000))
        await phase(page, "speaking")
        assert await page.locator(".line.user").all_inner_texts() == ["You\n\nWhich map?"]


async def test_typing_needs_no_microphone() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await server.connected()
        await page.fill("#say-text", "Hello")
        await page.click("#send")
        await server.got("user.text")
        await server.speak(1, TEXT, tone(500))
        await heard_ms(server, 1, 500)
        assert not server.heard


async def test_a_lost_connection_comes_back_without_a_reload() -> None:
    async with talking() as (server, page):
        await server.speak(3, TEXT, tone(5_000))
        await heard_ms(server, 3, 200)
        asked = len(server.sent("history.get"))
        await server.drop(1011)
        await phase(page, "disconnected")
        await server.connected(3)
        assert server.queries[-1]["session"] == "s1"
        await phase(page, "listening")
        await server.got("history.get", asked + 1)
        assert await page.locator(".line.reply del").count() == 1, "what was cut by the loss is struck through"
        await server.speak(1, "I am back.", tone(600))
        await heard_ms(server, 1, 600)
        assert await page.locator(".line.reply").count() == 2


async def test_a_reload_goes_on_with_the_conversation() -> None:
    async with talking() as (server, page):
        await server.tell("transcript.final", text="Hello?", turn=1)
        await page.wait_for_selector(".line.user")
        asked = len(server.sent("history.get"))
        await page.reload()
        await server.connected(3)
        assert server.queries[-1]["session"] == "s1"
        await server.got("history.get", asked + 1)
        lines: list[dict[str, Any]] = [
            {"role": "user", "text": "Hello?", "turn": 1},
            {"role": "assistant", "text": "Good day to", "turn": 1, "character": "finn", "cut": True},
        ]
        await server.tell("history", messages=lines)
        await page.wait_for_selector(".line.reply del")
        assert await page.locator(".line .who").all_inner_texts() == ["You", "Finn"]
        await page.click("#main-button")
        await phase(page, "listening")
        assert len(server.queries) == 3, "a conversation that goes on is not greeted again"


async def test_several_characters_can_be_in_the_room() -> None:
    async with talking() as (server, page):
        await page.click("text=Finn")
        assert (await server.got("session.update"))["characters"] == ["finn"]
        await page.click("[aria-label='Bring Finn in too']")
        assert (await server.got("session.update", 2))["characters"] == ["ada", "finn"]


async def test_errors_are_said_in_plain_words() -> None:
    async with talking() as (server, page):
        await server.tell("error", code="llm_unreachable", message="connect ECONNREFUSED", fatal=False)
        notice = page.locator(".notice.error")
        assert await notice.inner_text() == "The language model cannot be reached.\n\nconnect ECONNREFUSED"
        await notice.get_by_label("Close this message").click()
        await page.wait_for_selector(".notice", state="detached")
        await server.tell("error", code="idle", message="nothing was said (server.idle_s)", fatal=True)
        await server.drop(1008, "nothing was said")
        await page.wait_for_selector("text=the server let the conversation go")
        await phase(page, "disconnected")
        await page.click("text=Connect again")
        await phase(page, "listening")


async def test_the_servers_notice_is_shown_until_it_is_closed_for_good() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        server.created = {"notice": "No language model is plugged in."}
        await page.reload()
        await page.click(".notice.info [aria-label='Close this message']")
        await page.reload()
        await server.connected(3)
        await page.wait_for_selector("#cast li")
        assert await page.locator(".notice").count() == 0


@pytest.mark.parametrize(
    ("trouble", "words"), [({"ask": False}, "microphone is blocked"), ({"device": False}, "No microphone was found")]
)
async def test_without_a_microphone_one_can_still_type(trouble: dict[str, bool], words: str) -> None:
    async with scripted_server() as server, chromium(**trouble) as chrome, open_page(chrome, server.url) as page:
        await page.click("#main-button")
        await page.wait_for_selector(f".notice.error:has-text('{words}')")
        await phase(page, "ready")
        await page.fill("#say-text", "Hello")
        await page.click("#send")
        await server.got("user.text")


async def test_the_token_of_the_pages_address_goes_to_the_socket() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url + "?token=s3cret"):
        await server.connected()
        assert server.queries[0] == {"token": "s3cret"}


async def test_the_latency_view_adds_up() -> None:
    async with talking() as (server, page):
        await page.click("#open-timing")
        await page.wait_for_selector("#timing-empty")
        await server.tell(
            "turn.metrics",
            turn=1,
            reply=1,
            turn_end=500,
            transcript=160,
            first_token=180,
            first_sent=560,
            first_heard=600,
        )
        bar = page.locator("#timing-rows .bar-row")
        await bar.wait_for()
        said = await bar.get_attribute("aria-label")
        assert said == (
            "Waiting for you to finish 500 ms, Understanding 0.0 ms, First word thought of 0.0 ms, "
            "Sending 60 ms, Network and player 40 ms"
        )
        assert await page.inner_text("#timing-median") == "600 ms"
        widths = await bar.locator(".piece").evaluate_all(
            "all => all.map((each) => each.getBoundingClientRect().width)"
        )
        assert widths[0] / sum(widths) == pytest.approx(500 / 600, abs=0.02)


async def test_the_settings_take_effect_at_once() -> None:
    async with talking() as (server, page):
        await page.click("#open-settings")
        await page.uncheck("[name=thinking]")
        assert (await server.got("session.update"))["interrupt"] == {"thinking": False}
        await page.check("[name=mode][value=manual]")
        assert (await server.got("session.update", 2))["turn"] == {"mode": "manual"}
        await page.select_option("[name=theme]", "dark")
        assert await page.evaluate("() => document.documentElement.dataset.theme") == "dark"
        await page.click("#settings footer >> text=Done")
        await page.reload()
        changes = await server.got("session.update", 3)
        assert changes["turn"]["mode"] == "manual"
        assert changes["interrupt"] == {"thinking": False}
