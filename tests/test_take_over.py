"""A client that is back before its old connection was missed: a reload on a slow machine, a network that changed."""

import pytest

from tests import fakes
from tests.wire import address, connected, serving


async def test_a_conversation_follows_its_client_to_a_new_connection() -> None:
    rack = fakes.rack(fakes.FakeLLM("Well hello.", "Still here."))
    async with serving(rack) as server, connected(address(server)) as old:
        id = (await old.until("session.created"))["session"]
        await old.send("user.text", text="remember me")
        await old.until("reply.done")
        async with connected(address(server), f"?session={id}") as new:
            created = await new.until("session.created")
            assert (created["session"], created["resumed"]) == (id, True)
            ended = await old.until("error")
            assert (ended["code"], ended["fatal"]) == ("taken_over", True)
            await new.send("history.get")
            assert [line["text"] for line in (await new.until("history"))["messages"]] == ["remember me", "Well hello."]


async def test_what_was_heard_before_a_reload_is_kept() -> None:
    text = "One two three four. Five six seven eight. Nine ten eleven twelve."
    async with serving(fakes.rack(fakes.FakeLLM(text))) as server:
        async with connected(address(server)) as old:
            id = (await old.until("session.created"))["session"]
            await old.send("user.text", text="count")
            await old.until("reply.sentence", 2)
        async with connected(address(server), f"?session={id}") as new:
            await new.until("session.created")
            await new.send("history.get")
            [asked, heard] = (await new.until("history"))["messages"]
            assert asked["text"] == "count"
            assert heard["cut"]
            assert 0 < len(heard["text"]) < len(text)


async def test_who_comes_back_with_nothing_said_is_greeted_and_takes_no_second_seat() -> None:
    """As the page does when Start is pressed: one connection gives way to another that can be heard."""
    async with serving(fakes.rack(), server={"sessions": 1}) as server, connected(address(server)) as old:
        id = (await old.until("session.created"))["session"]
        async with connected(address(server), f"?session={id}&greet=1&character=finn") as new:
            assert (await new.until("session.created"))["session"] == id
            greeting = await new.until("reply.done")
            assert "Finn here" in greeting["text"]
        async with connected(address(server), f"?session={id}&greet=1&character=finn") as again:
            assert (await again.until("session.created"))["resumed"]
            await again.send("ping")
            await again.until("pong")
            assert not again.of("reply.started"), "it goes on: nobody is greeted twice"


@pytest.mark.parametrize("first", ["leaves", "stays"])
async def test_the_replies_of_a_conversation_are_counted_on(first: str) -> None:
    async with serving(fakes.rack(fakes.FakeLLM("Well hello."))) as server, connected(address(server)) as old:
        id = (await old.until("session.created"))["session"]
        await old.send("user.text", text="remember me")
        await old.until("reply.done")
        await old.send("say", text="Never heard of.")
        assert (await old.until("reply.started", 2))["reply"] == 2
        if first == "leaves":
            await old.socket.close()
        async with connected(address(server), f"?session={id}") as new:
            await new.send("user.text", text="and again")
            started = await new.until("reply.started")
            assert (started["reply"], started["turn"]) == (3, 3)
