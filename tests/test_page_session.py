"""The page in headless Chromium: connections lost and regained, errors, and what it keeps in mind."""

from typing import Any

from tests.browser import chromium, open_page, phase
from tests.scripted_server import scripted_server, tone
from tests.talking_page import TEXT, heard_ms, talking
from tests.wire import serving


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


async def test_what_sounds_ends_with_the_connection() -> None:
    async with talking() as (server, page):
        await server.speak(1, TEXT, tone(5_000))
        await heard_ms(server, 1, 200)
        await server.drop(1013)  # the page waits some seconds before it asks again
        await page.wait_for_function(
            "() => window.parley.tap.events.some(({ type, reply }) => type === 'flushed' && reply === 1)"
        )
        assert len(server.queries) == 2
        await phase(page, "disconnected")


async def test_what_was_being_said_when_the_connection_was_lost_leaves_no_line() -> None:
    async with talking() as (server, page):
        await server.tell("user.started", at_ms=100)
        await server.tell("transcript.partial", text="and then I")
        await page.wait_for_selector(".line.user.partial")
        await server.drop(1011)
        await page.wait_for_selector(".line.user", state="detached")
        await server.connected(3)
        await phase(page, "listening")


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


async def test_what_is_to_be_forgotten_without_a_connection_is_forgotten_with_the_next_one() -> None:
    async with talking() as (server, page):
        await server.tell("transcript.final", text="My secret.", turn=1)
        await page.wait_for_selector(".line.user")
        await server.drop(1011)
        await phase(page, "disconnected")
        await page.click("#open-settings")
        await page.click("#clear")
        await page.wait_for_selector(".line.user", state="detached")
        await server.connected(3)
        await server.got("history.clear")
        await server.tell("history", messages=[{"role": "user", "text": "My secret.", "turn": 1}])  # crossed on the way
        await server.tell("history", messages=[])
        await server.tell("transcript.final", text="Hello?", turn=2)
        await page.wait_for_selector(".line.user")
        assert await page.locator(".line .text").all_inner_texts() == ["Hello?"]
        asked = len(server.sent("history.get"))
        await server.drop(1011)
        await server.got("history.get", asked + 1)
        assert len(server.sent("history.clear")) == 1, "it was forgotten once"


async def test_a_conversation_keeps_its_characters_whoever_another_tab_has_chosen() -> None:
    async with talking() as (server, page):
        await page.click("text=Finn")
        assert (await server.got("session.update"))["characters"] == ["finn"]
        asked = len(server.sent("history.get"))
        await server.drop(1011)
        await server.connected(3)
        assert (await server.got("session.update", 2))["characters"] == ["finn"], "asked for here, perhaps in vain"
        await server.got("history.get", asked + 1)
        await page.reload()  # to the server it is Ada's, as if Finn had been asked for elsewhere
        await server.got("history.get", asked + 2)
        assert len(server.sent("session.update")) == 2
        await page.evaluate("() => sessionStorage.clear()")
        await page.reload()
        assert (await server.got("session.update", 3))["characters"] == ["finn"], "a new one begins with the latest"


async def test_errors_are_said_in_plain_words() -> None:
    async with talking() as (server, page):
        await server.tell("error", code="llm_unreachable", message="connect ECONNREFUSED", fatal=False)
        notice = page.locator(".notice.error")
        assert await notice.inner_text() == "The language model cannot be reached.\n\nconnect ECONNREFUSED"
        await notice.get_by_label("Close this message").click()
        await page.wait_for_selector(".notice", state="detached")
        await server.tell("error", code="tts_unreachable", message="check [tts] base_url", fatal=False)
        voice = "The voice failed, so the rest of this reply stays silent.\n\ncheck [tts] base_url"
        assert await notice.inner_text() == voice
        await notice.get_by_label("Close this message").click()
        await server.tell("error", code="idle", message="nothing was said (server.idle_s)", fatal=True)
        await server.drop(1008, "nothing was said")
        await page.wait_for_selector("text=the server let the conversation go")
        await phase(page, "disconnected")
        await page.click("text=Connect again")
        await phase(page, "listening")
        await server.tell("error", code="idle", message="nothing was said (server.idle_s)", fatal=True)
        await server.drop(1008, "nothing was said")
        await page.locator(".notice").get_by_label("Close this message").click()
        await page.click("#main-button:has-text('Connect')")  # without the message there is still a way back
        await phase(page, "listening")
        assert await page.locator(".notice").count() == 0


async def test_a_reply_that_came_to_nothing_does_not_go_on_thinking() -> None:
    """As the server tells it of a model that cannot be reached."""
    async with talking() as (server, page):
        await server.tell("transcript.final", text="Hello?", turn=1)
        await server.tell("reply.started", reply=1, turn=1, character="ada")
        await page.wait_for_selector(".line.reply [aria-label=thinking]")
        await server.tell("error", code="llm_unreachable", message="connect ECONNREFUSED", fatal=False)
        await server.tell("reply.done", reply=1, text="", audio_ms=0)
        await page.wait_for_selector(".line.reply", state="detached")
        await phase(page, "listening")
        assert await page.locator("#announcer p").all_inner_texts() == ["Ready", "You: Hello?"]


async def test_what_could_not_be_transcribed_leaves_no_half_line() -> None:
    async with talking() as (server, page):
        await server.tell("user.started", at_ms=100)
        await server.tell("transcript.partial", text="and then I")
        await page.wait_for_selector(".line.user.partial")
        await server.tell("user.stopped", at_ms=900)
        await server.tell("error", code="stt_failed", message="it broke", fatal=False)
        await page.wait_for_selector(".line.user", state="detached")
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


GAP = """() => {
  const [one, two] = document.querySelectorAll('.cast li');
  return two.getBoundingClientRect().left - one.querySelector('.join').getBoundingClientRect().right;
}"""


async def test_a_picture_from_elsewhere_and_a_name_that_is_too_long() -> None:
    """Under the headers that the real server sends."""
    async with (
        scripted_server() as elsewhere,
        serving() as server,
        chromium() as chrome,
        open_page(chrome, f"http://127.0.0.1:{server.port}/") as page,
    ):
        await phase(page, "ready")
        picture = f"{elsewhere.url}pictures/pip.svg"
        await page.evaluate("picture => document.querySelector('.cast .card img').src = picture", picture)
        await page.wait_for_function("() => document.querySelector('.cast .card img').naturalWidth > 0")
        await page.evaluate("() => document.querySelector('.cast .name').textContent = 'Wolfeschlegelstein'.repeat(3)")
        for width in (1280, 390):
            await page.set_viewport_size({"width": width, "height": 800})
            assert await page.evaluate(GAP) >= 0
            assert await page.locator(".cast .name").nth(1).evaluate("name => name.clientWidth") > 20


async def test_the_token_of_the_pages_address_goes_to_the_socket() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url + "?token=s3cret"):
        await server.connected()
        assert server.queries[0] == {"token": "s3cret"}


async def test_a_token_that_is_wrong_is_not_told_to_be_missing() -> None:
    async with scripted_server() as server, chromium() as chrome, open_page(chrome, server.url + "?token=no") as page:
        await phase(page, "ready")
        await server.tell("error", code="unauthorized", message="the token is missing or wrong", fatal=True)
        await server.drop(1008)
        words = "This server asks for its access token. It belongs in the address of this page: ?token=... at the end."
        await page.wait_for_selector(f".notice:has-text('{words}')")


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


async def test_settings_that_are_chosen_without_a_connection_stay_chosen() -> None:
    async with talking() as (server, page):
        await server.drop(1013)  # the page waits some seconds before it asks again
        await phase(page, "disconnected")
        await page.click("#open-settings")
        await page.uncheck("[name=speaking]")
        await page.fill("[name=silence]", "1200")
        await page.click("#settings footer >> text=Done")
        await page.click("#open-settings")
        assert not await page.is_checked("[name=speaking]")
        assert await page.is_checked("[name=thinking]")
        assert await page.input_value("[name=silence]") == "1200"
        told = await server.got("session.update")
        assert told["interrupt"] == {"speaking": False}
        assert told["turn"] == {"mode": "auto", "silence_ms": 1200}
