"""The page in headless Chromium: the microphone, the keyboard, and doing without either."""

import asyncio

import numpy as np
import pytest

from tests.browser import chromium, open_page, phase
from tests.scripted_server import scripted_server, tone
from tests.talking_page import TEXT, heard_ms, talking, until


async def test_the_microphone_arrives_as_20_ms_frames_until_it_is_muted() -> None:
    async with talking() as (server, page):
        await page.wait_for_function("() => window.parley.state.microphone")
        await asyncio.wait_for(until(lambda: len(server.heard) > 20), 10)
        assert {len(frame) for frame in server.heard} == {640}
        beeps = lambda: any(np.abs(np.frombuffer(frame, "<i2")).max() > 300 for frame in server.heard)  # noqa: E731
        await asyncio.wait_for(until(beeps), 10)
        await page.click("#main-button")
        await phase(page, "muted")
        muted = len(server.heard) + 5  # some were on their way
        await asyncio.wait_for(until(lambda: len(server.heard) > muted + 80), 10)
        assert not any(map(any, server.heard[muted:])), "silence, so that the server sees the turn's end"
        await page.wait_for_timeout(1_000)
        quiet = len(server.heard)
        await page.wait_for_timeout(300)
        assert len(server.heard) == quiet, "then nothing at all"


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
        await asyncio.wait_for(until(lambda: len(server.heard) > before + 20), 10)
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


async def test_the_talk_key_is_heard_though_one_was_muted_before() -> None:
    async with talking() as (server, page):
        await page.click("#main-button")
        await phase(page, "muted")
        await page.click("#mode")
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        spoken = len(server.heard)
        await page.keyboard.down("Space")
        beeps = lambda: any(np.abs(np.frombuffer(frame, "<i2")).max() > 300 for frame in server.heard[spoken:])  # noqa: E731
        await asyncio.wait_for(until(beeps), 10)
        await page.keyboard.up("Space")
        await server.got("user.commit")
        await server.tell("transcript.final", text="", turn=1)
        await page.click("#mode")
        await server.tell("session.updated", turn={"mode": "auto", "silence_ms": 500})
        await phase(page, "muted")
        muted = len(server.heard) + 20  # some were on their way
        await asyncio.wait_for(until(lambda: len(server.heard) > muted + 60), 10)
        assert not any(map(any, server.heard[muted:])), "hands-free is as muted as it was"


async def test_hands_free_chosen_while_the_talk_key_is_held_lets_it_go() -> None:
    async with talking() as (server, page):
        await page.click("#mode")
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        await page.keyboard.down("Space")
        await phase(page, "hearing")
        await page.click("#mode")
        await server.got("session.update", 2)
        await server.tell("session.updated", turn={"mode": "auto", "silence_ms": 500})
        await page.keyboard.up("Space")
        await phase(page, "listening")
        assert not server.sent("user.commit")


async def test_nothing_is_heard_from_the_moment_the_talk_key_is_chosen() -> None:
    """What followed the change on the wire would be a turn that the server has begun, and nobody the key for."""
    async with talking() as (server, page):
        await asyncio.wait_for(until(lambda: len(server.heard) > 5), 10)
        await page.click("#mode")
        await server.got("session.update")
        heard = len(server.heard)
        await page.wait_for_timeout(300)  # the server takes its time to answer
        assert len(server.heard) == heard
        await page.click("#mode")
        assert (await server.got("session.update", 2))["turn"] == {"mode": "auto"}


async def test_the_keyboard_stays_where_it_is() -> None:
    """A button that can do nothing for a moment keeps the focus."""
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await phase(page, "ready")
        await page.evaluate(ASKS)
        await page.focus("#main-button")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#main-button:has-text('Asking')")
        await page.keyboard.press("Enter")
        await page.evaluate("() => window.allow()")
        await page.wait_for_selector("#main-button:has-text('Mute')")
        assert await page.evaluate("() => document.activeElement.id") == "main-button"
        await server.speak(1, TEXT, tone(5_000))
        await phase(page, "speaking")
        await page.focus("#stop")
        await page.keyboard.press("Enter")
        await phase(page, "listening")
        await page.wait_for_selector("#stop[aria-disabled=true]")
        assert await page.evaluate("() => document.activeElement.id") == "stop"
        await page.fill("#say-text", "Hello")
        await page.focus("#send")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#send[aria-disabled=true]")
        await page.evaluate("() => new Promise(requestAnimationFrame)")
        assert await page.evaluate("() => document.activeElement.id") == "send"
        await page.keyboard.press("Enter")
        await page.fill("#say-text", "Again")
        await page.keyboard.press("Enter")
        await server.got("user.text", 2)
        assert [each["text"] for each in server.sent("user.text")] == ["Hello", "Again"]


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


async def test_a_slip_of_the_finger_is_no_turn() -> None:
    async with talking() as (server, page):
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        await page.keyboard.press("Space")
        await server.got("user.clear")
        await phase(page, "ready")
        assert not server.sent("user.commit")


async def test_who_cannot_hold_a_button_clicks_it_twice() -> None:
    async with talking() as (server, page):
        await server.tell("session.updated", turn={"mode": "manual", "silence_ms": 500})
        await phase(page, "ready")
        before = len(server.heard)
        click = "() => document.querySelector('#main-button').click()"  # as assistive technology does
        await page.evaluate(click)
        await phase(page, "hearing")
        await asyncio.wait_for(until(lambda: len(server.heard) > before + 10), 10)
        await page.evaluate(click)
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


async def test_esc_that_an_input_method_takes_stops_nobody() -> None:
    composing = "() => dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', isComposing: true }))"
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 200)
        await page.evaluate(composing)
        await heard_ms(server, 1, 600)
        assert not server.sent("reply.interrupt")
        await page.keyboard.press("Escape")
        await server.got("reply.interrupt")


async def test_typing_needs_no_microphone() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await server.connected()
        await page.fill("#say-text", "Hello")
        await page.click("#send")
        await server.got("user.text")
        await server.speak(1, TEXT, tone(500))
        await heard_ms(server, 1, 500)
        assert not server.heard


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


ASKS = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  const allowed = new Promise((allow) => (window.allow = allow));
  navigator.mediaDevices.getUserMedia = async (wanted) => (await allowed, ask(wanted));
}"""
FAILS = """() => {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotReadableError') };
}"""
NO_SOUND = """() => {
  delete window.AudioWorkletNode;
  Object.defineProperty(navigator, 'mediaDevices', { value: undefined });
}"""


async def test_while_the_browser_asks_nothing_is_said_to_be_wrong() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await page.evaluate(ASKS)
        await page.click("#main-button")
        await page.wait_for_selector("#main-button[aria-disabled=true]:has-text('Asking')")
        assert await page.inner_text("#hint") == "Allow the microphone, or type."
        assert await page.locator(".notice").count() == 0
        await page.evaluate("() => window.allow()")
        await page.wait_for_selector("#main-button[aria-disabled=false]:has-text('Mute')")


async def test_what_is_typed_while_the_browser_asks_goes_on_when_it_is_allowed() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await phase(page, "ready")
        await page.evaluate(ASKS)
        await page.click("#main-button")
        await page.fill("#say-text", "Hello")
        await page.keyboard.press("Enter")
        await server.got("user.text")
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 200)
        await page.evaluate("() => window.allow()")
        await page.wait_for_selector("#main-button:has-text('Mute')")
        await heard_ms(server, 1, 600)
        assert len(server.queries) == 1
        assert await page.locator(".line.reply del").count() == 0


async def test_who_types_first_is_not_told_of_a_missing_microphone() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url) as page:
        await page.fill("#say-text", "Hello")
        await page.click("#send")
        await server.got("user.text")
        assert await page.inner_text("#main-button") == "Start"
        await page.click("#main-button")
        await page.wait_for_selector("#main-button:has-text('Mute')")
        assert len(server.queries) == 1, "what was typed goes on"


async def test_where_nothing_can_sound_one_reads_along() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, "about:blank") as page:
        await page.add_init_script(f"({NO_SOUND})()")
        await page.goto(server.url)
        await page.click("#main-button")
        await server.connected(2)
        assert await page.locator(".notice").count() == 1, "one reason, one message"
        assert "that needs https" in await page.inner_text(".notice")
        await server.speak(1, TEXT, tone(1_000))
        await phase(page, "speaking")
        assert await page.locator(".coming").count() == 0
        await server.tell("reply.done", reply=1, text=TEXT, audio_ms=1_000)
        await phase(page, "ready")
        assert await page.inner_text(".line.reply .text") == TEXT


async def test_another_microphone_that_fails_leaves_the_one_there_is() -> None:
    async with talking() as (server, page):
        await page.evaluate(FAILS)
        await page.click("#open-settings")
        await page.select_option("[name=microphone]", index=1)
        await page.wait_for_selector(".notice:has-text('in use by another program')")
        await page.click("#settings footer >> text=Done")
        assert await page.inner_text("#main-button") == "Mute"
        before = len(server.heard)
        await asyncio.wait_for(until(lambda: len(server.heard) > before + 5), 10)
