"""The page in headless Chromium: what a screen reader is told."""

from typing import Any

from tests.browser import phase
from tests.scripted_server import tone
from tests.talking_page import TEXT, heard_ms, talking

LAST = "text => document.querySelector('#announcer').lastChild?.textContent === text"


async def test_a_reload_does_not_read_the_whole_conversation_again() -> None:
    async with talking() as (server, page):
        await page.reload()
        await server.connected(3)
        lines: list[dict[str, Any]] = [
            {"role": "user", "text": "Hello?", "turn": 1},
            {"role": "assistant", "text": "Good day to", "turn": 1, "character": "finn", "cut": True},
        ]
        await server.tell("history", messages=lines)
        await page.wait_for_selector(".line.reply del")
        await server.tell("transcript.final", text="Are you there?", turn=2)
        await page.wait_for_function(LAST, arg="You: Are you there?")
        assert await page.locator("#announcer p").all_inner_texts() == ["Ready", "You: Are you there?"]


async def test_a_conversation_that_the_server_has_lost_is_told() -> None:
    async with talking() as (server, page):
        await server.tell("transcript.final", text="Hello?", turn=1)
        await page.wait_for_selector(".line.user")
        server.created = {"session": "s2", "resumed": False}
        await server.drop(1011)
        await page.wait_for_function(LAST, arg="A new conversation: the server no longer has the one above.")


async def test_a_reply_that_is_cut_off_before_it_is_heard_is_no_empty_line() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 100)
        await server.tell("reply.interrupted", reply=1, heard_ms=0, heard="", unheard=TEXT, reason="client")
        await page.wait_for_function(LAST, arg="Ada, cut off before the first word.")
        await phase(page, "listening")


async def test_what_was_heard_of_a_reply_is_the_servers_word() -> None:
    """The page stops at once, and guesses."""
    async with talking() as (server, page):
        for reply in (1, 2):
            await server.speak(reply, TEXT, tone(5_000))
            await heard_ms(server, reply, 1_000)
            await page.keyboard.press("Escape")
            await server.got("reply.interrupt", reply)
            await page.wait_for_selector(f".line.reply:nth-child({reply}) del")
            if reply == 1:
                rest = TEXT.removeprefix("You")
                await server.tell(
                    "reply.interrupted", reply=1, heard_ms=900, heard="You", unheard=rest, reason="client"
                )
                await page.wait_for_function(LAST, arg="Ada, cut off: You")
        assert await page.locator("#announcer p").count() == 2
        await server.drop(1013)  # it will not say
        await page.wait_for_function("() => document.querySelectorAll('#announcer p').length === 4")
        assert "Ada, cut off: You follow" in await page.inner_text("#announcer")
