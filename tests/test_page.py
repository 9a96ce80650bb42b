"""The page in headless Chromium against a scripted server: what it shows of a conversation."""

import pytest

from tests.browser import phase
from tests.scripted_server import tone
from tests.talking_page import TEXT, heard_ms, talking


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


async def test_several_characters_can_be_in_the_room() -> None:
    async with talking() as (server, page):
        await page.click("text=Finn")
        assert (await server.got("session.update"))["characters"] == ["finn"]
        await page.click("[aria-label='Bring Finn in too']")
        assert (await server.got("session.update", 2))["characters"] == ["ada", "finn"]


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
