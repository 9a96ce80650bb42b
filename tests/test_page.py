"""The page in headless Chromium against a scripted server: what it shows of a conversation."""

import itertools
from typing import Any

import pytest

from tests.browser import chromium, open_page, phase
from tests.scripted_server import CAST, scripted_server, tone
from tests.talking_page import TEXT, heard_ms, talking


async def test_a_whole_conversation() -> None:
    async with talking() as (server, page):
        assert server.queries[-1] == {"session": "s1", "greet": "1", "character": "ada"}
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
        announced = await page.locator("#announcer p").all_inner_texts()
        assert announced == ["Ready", "You: How do I find a treasure?", f"Ada: {TEXT}"]


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


async def test_who_spoke_last_stays_in_the_picture() -> None:
    async with talking() as (server, page):
        await server.tell("session.updated", turn={"mode": "auto"}, characters=CAST)
        await server.speak(1, "Aye.", tone(300), character="finn")
        await heard_ms(server, 1, 299)
        await server.tell("reply.done", reply=1, text="Aye.", audio_ms=300)
        await phase(page, "listening")
        assert await page.inner_text("#speaker-name") == "Finn"
        await server.tell("session.updated", turn={"mode": "auto"}, characters=CAST[:1])
        await page.wait_for_selector("#speaker-name:text-is('Ada')")


async def test_who_is_sent_away_in_mid_reply_is_in_the_picture_to_its_end() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(600))
        await phase(page, "speaking")
        await server.tell("session.updated", turn={"mode": "auto"}, characters=CAST[1:])
        await page.wait_for_selector(".cast li.present:has-text('Finn')")
        assert await page.inner_text("#speaker-name") == "Ada"
        await heard_ms(server, 1, 599)
        await server.tell("reply.done", reply=1, text=TEXT, audio_ms=600)
        await page.wait_for_selector("#speaker-name:text-is('Finn')")


LEVEL = "() => Number(document.querySelector('#stage').style.getPropertyValue('--level'))"


async def test_the_ring_is_as_wide_as_the_voice_is_loud() -> None:
    async with (
        scripted_server() as server,
        chromium() as chrome,
        open_page(chrome, server.url, reduced_motion="no-preference") as page,
    ):
        await page.fill("#say-text", "Hello")
        await page.click("#send")
        await server.got("user.text")
        await server.speak(1, TEXT, tone(20_000))
        await page.wait_for_function(f"() => ({LEVEL})() > 0.05")
        await page.click("#open-settings")
        await page.fill("[name=volume]", "0")
        await page.wait_for_function(f"() => ({LEVEL})() < 0.01")
        assert await page.evaluate("() => document.body.dataset.phase") == "speaking"
        await page.fill("[name=volume]", "1")
        await page.wait_for_function(f"() => ({LEVEL})() > 0.05")


async def test_the_latency_view_adds_up() -> None:
    async with talking() as (server, page):
        await page.click("#open-timing")
        await page.wait_for_selector("#timing-empty")
        await server.tell("turn.metrics", turn=1, reply=1, first_token=4, first_sent=46)  # a greeting: nobody waited
        await server.tell("transcript.final", text="Which map?", turn=2)
        await server.tell(
            "turn.metrics",
            turn=2,
            reply=2,
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
        assert await page.inner_text("#timing-rows .row-head") == "Turn 2\n600 ms"
        widths = await bar.locator(".piece").evaluate_all(
            "all => all.map((each) => each.getBoundingClientRect().width)"
        )
        assert widths[0] / sum(widths) == pytest.approx(500 / 600, abs=0.02)
        await page.fill("#say-text", "And this one?")
        await page.keyboard.press("Enter")
        await server.tell("transcript.final", text="And this one?", turn=3)
        await server.tell("turn.metrics", turn=3, reply=3, first_token=2, first_sent=20)
        await page.wait_for_selector("#timing-rows .row-head:has-text('Turn 3, typed')")
        assert await page.inner_text("#timing-median") == "600 ms", "who types waits for no silence"


def lines(count: int) -> list[dict[str, Any]]:
    """A history of so many lines."""
    line = {"text": "It was dark, and the kettle was on. " * 4, "character": "finn"}
    return [{"role": ("user", "assistant")[i % 2], "turn": i // 2, **line} for i in range(count)]


async def test_a_reader_is_left_where_they_are_until_they_type_or_ask_for_the_newest_line() -> None:
    below = "() => { const { scrollHeight, scrollTop, clientHeight } = document.querySelector('#transcript');"
    below += " return scrollHeight - scrollTop - clientHeight }"
    async with talking() as (server, page):
        await server.tell("history", messages=lines(200))
        await page.wait_for_function("() => document.querySelectorAll('.line').length === 200")
        assert await page.evaluate(below) < 2
        assert await page.evaluate("() => document.documentElement.scrollHeight") == 800, "the page itself is no longer"
        for back in ("typing", "button"):
            await page.evaluate("() => document.querySelector('#transcript').scrollTo(0, 1000)")
            await page.wait_for_selector("#latest:not([hidden])")
            await server.tell("transcript.final", text=f"Before {back}?", turn=300)
            await page.wait_for_selector(f".line :text-is('Before {back}?')", state="attached")
            assert await page.evaluate("() => document.querySelector('#transcript').scrollTop") == 1000
            await page.fill("#say-text", "Well?")
            await (page.keyboard.press("Enter") if back == "typing" else page.click("#latest"))
            await page.wait_for_selector("#latest", state="hidden")
            assert await page.evaluate(below) < 2
        await page.set_viewport_size({"width": 390, "height": 420})
        await page.wait_for_function(f"() => ({below})() < 2")
        assert await page.is_hidden("#latest"), "a keyboard that opens is no reader who scrolls away"


async def test_the_word_that_sounds_stays_in_view() -> None:
    async with talking() as (server, page):
        await server.tell("history", messages=lines(8))
        long = "and so it went on and on " * 120
        await server.speak(1, long, tone(20_000))
        await heard_ms(server, 1, 500)
        place = await page.evaluate("""() => {
          const list = document.querySelector('#transcript').getBoundingClientRect();
          return (document.querySelector('.coming').getBoundingClientRect().top - list.top) / list.height;
        }""")
        assert 0.2 < place < 0.8
        assert await page.is_hidden("#latest")


async def test_text_that_runs_from_right_to_left() -> None:
    async with talking() as (server, page):
        await server.tell("transcript.final", text="كيف حالك اليوم؟", turn=1)
        await server.tell("transcript.final", text="Fine.", turn=2)
        await page.wait_for_function("() => document.querySelectorAll('.line').length === 2")
        ways = await page.locator(".line .text").evaluate_all(
            "all => all.map((each) => getComputedStyle(each).direction)"
        )
        assert ways == ["rtl", "ltr"]


SMALL = [(320, 454), (375, 553), (390, 420), (390, 844), (844, 390), (768, 1024)]


BOXES = """names => names.map((name) => {
  const { left, top, right, bottom } = document.querySelector(name).getBoundingClientRect();
  return [left, top, right, bottom].map(Math.round);
})"""


async def test_it_fits_small_screens() -> None:
    """Nothing beyond the edges and nothing over anything else, though a message takes its share."""
    names = ["#stage", "#transcript", "#composer", "#main-button", "#stop", "#mode"]
    async with talking() as (server, page):
        await server.tell("error", code="llm_failed", message="It said: " + "no " * 60, fatal=False)
        await server.tell("history", messages=lines(8))
        await page.wait_for_selector(".notice")
        await page.wait_for_selector(".line")
        for width, height in SMALL:
            await page.set_viewport_size({"width": width, "height": height})
            boxes = await page.evaluate(BOXES, names)
            for name, (left, top, right, bottom) in zip(names, boxes, strict=True):
                assert 0 <= left < right <= width, (width, height, name)
                assert 0 <= top < bottom <= height, (width, height, name)
                assert bottom - top >= 36, (width, height, name)
            for a, b in itertools.combinations(boxes, 2):
                assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (width, height, a, b)
