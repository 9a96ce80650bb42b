"""`/ws/llm` over real sockets: streams cancelled, told at the same time, and the slots they hold."""

import asyncio

import httpx

from server.pipelines.llm import openai
from tests.llm_pen import FIRST, pen, scene, scripted
from tests.llm_server import LLMServer
from tests.services import until


async def test_cancel_takes_effect_within_a_token_and_the_server_learns_of_it() -> None:
    async with scripted(delay=0.03, text="word " * 300) as (server, p, url):
        await p.start(stream_tokens=True)
        for _ in range(3):
            await p.next()
        await p.send("cancel_stream", stream_id="s1")
        ended = await p.until("done")
        cancelled = await p.until("cancelled")
        assert ended["reason"] == "cancelled"
        assert cancelled["full_text"] == p.text
        assert cancelled["tokens"] <= 6
        await server.idle()
        assert server.requests[0].aborted
        assert server.requests[0].sent < 20
        async with httpx.AsyncClient() as http:
            assert (await http.get(url.replace("ws:", "http:") + "/health")).json()["active_streams"] == 0
        await p.send("continue_stream", stream_id="s1")
        assert (await p.next()) == {"stream_id": "s1", "error": "Stream not found", "code": "bad_message"}


async def test_end_stream_does_not_wait_for_the_chunk_either() -> None:
    async with scripted(delay=0.03, text="word " * 300) as (server, p, _):
        await p.start(stream_tokens=True)
        await p.next()
        await p.send("end_stream", stream_id="s1")
        await p.until("ended")
        await server.idle()
        assert server.requests[0].sent < 20


async def test_pings_are_answered_during_a_chunk() -> None:
    async with scripted(delay=0.02, text="word " * 300) as (_, p, _):
        await p.start(stream_tokens=True)
        await p.next()
        await p.send("ping")
        await p.until("pong")
        assert "done" not in {frame.get("type") for frame in p.frames}


async def test_untagged_chunks_are_told_one_after_the_other_and_a_queued_one_can_be_cancelled() -> None:
    async with scripted(delay=0.01, text="one two three four five six.") as (_, p, _):
        for id in ("a", "b", "c"):
            await p.start(id, stream_tokens=True)
        await p.send("cancel_stream", stream_id="b")
        assert (await p.until("cancelled"))["stream_id"] == "b"
        await p.until("done")
        await p.until("done")
        assert p.text == "one two three four five six." * 2
        done = [frame for frame in p.frames if frame.get("type") == "done"]
        assert {frame["text"] for frame in done} == {"one two three four five six."}


async def test_tagged_streams_are_made_at_the_same_time() -> None:
    async with scripted(delay=0.01, text="one two three four five six.") as (_, p, _):
        for id in ("a", "b"):
            await p.start(id, stream_tokens=True, tagged=True)
        done = [await p.until("done"), await p.until("done")]
        order = [frame["stream_id"] for frame in p.frames if frame.get("type") == "token"]
        assert {frame["stream_id"] for frame in done} == {"a", "b"}
        assert order != sorted(order)
        assert order.count("a") == order.count("b")


# slots


async def test_slots_are_limited_and_freed_at_the_end_and_on_disconnect() -> None:
    async with scripted(slots=2) as (_, p, url):
        async with pen(url) as other:
            await other.start("x", pause=FIRST)
            await other.next()
            await p.start("a", pause=FIRST)
            await p.next()
            await p.start("b")
            refused = await p.next()
            assert (refused["stream_id"], refused["error"]) == ("b", "No slots available (max 2)")
            assert (refused["code"], refused["retry_after"]) == ("no_slots", 1)
        for _ in range(100):
            await p.start("b", pause=FIRST)
            if "error" not in await p.next():
                break
            await asyncio.sleep(0.01)
        assert p.frames[-1]["status"] == "started"
        await p.send("end_stream", stream_id="a")
        await p.next()
        await p.start("a", pause=FIRST)
        assert (await p.next())["status"] == "started"


async def test_a_disconnect_in_the_middle_stops_the_model() -> None:
    async with (
        LLMServer("word " * 500, delay=0.01) as server,
        scene(openai.create(base_url=f"{server.host}/v1")) as url,
    ):
        async with pen(url) as p:
            await p.start(stream_tokens=True)
            await p.next()
            p.socket.transport.abort()
        await until(lambda: server.requests[0].done.is_set())
        assert server.requests[0].aborted


async def test_streams_of_two_connections_may_have_the_same_name() -> None:
    async with scripted(text=lambda messages: messages[-1]["content"]) as (_, p, url), pen(url) as other:
        await p.send("start_stream", stream_id="s", messages=[{"role": "user", "content": "Mine."}])
        await other.send("start_stream", stream_id="s", messages=[{"role": "user", "content": "Yours."}])
        assert (await p.next())["full_text"] == "Mine."
        assert (await other.next())["full_text"] == "Yours."
