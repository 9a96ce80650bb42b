"""`/ws/llm` over real sockets, before a scripted OpenAI-compatible server: chunks, pauses, cancelling, bad input."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.pipelines.engines import LLM
from server.pipelines.llm import eliza, openai
from server.ws import chunked_llm
from tests.fakes import FakeLLM
from tests.llm_server import TEXT, Fault, LLMServer, tokens
from tests.services import serving, until

ASK = [{"role": "user", "content": "Good evening?"}]
FIRST = {"max_tokens": 10, "sentence_boundary": False}
SENTENCE = {"sentence_boundary": True}


class Pen:
    """One client."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []

    async def send(self, action: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"action": action, **fields}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            self.frames.append(json.loads(await self.socket.recv()))
        return self.frames[-1]

    async def until(self, *types: str) -> dict[str, Any]:
        """The next frame whose `type` or `status` is one of `types`; "error" for errors."""
        while True:
            frame = await self.next()
            if frame.get("type") in types or frame.get("status") in types or ("error" in types and "error" in frame):
                return frame

    async def start(self, id: str = "s1", *, pause: Any = None, **fields: Any) -> None:
        await self.send("start_stream", stream_id=id, messages=ASK, pause=pause, **fields)

    @property
    def text(self) -> str:
        return "".join(frame["content"] for frame in self.frames if frame.get("type") == "token")


@asynccontextmanager
async def scene(llm: LLM, **options: Any) -> AsyncIterator[str]:
    await llm.start()
    try:
        async with serving(chunked_llm.routes(llm, **options)) as url:
            yield url.replace("http", "ws") + "/ws/llm"
    finally:
        await llm.stop()


@asynccontextmanager
async def pen(url: str) -> AsyncIterator[Pen]:
    async with connect(url, compression=None) as socket:
        yield Pen(socket)


@asynccontextmanager
async def scripted(flavour: str = "openai", **options: Any) -> AsyncIterator[tuple[LLMServer, Pen, str]]:
    slots = options.pop("slots", 8)
    async with LLMServer(flavour=flavour, **options) as server:
        llm = openai.create(base_url=f"{server.host}/v1")
        async with scene(llm, slots=slots) as url, pen(url) as p:
            yield server, p, url


# chunks


@pytest.mark.parametrize("flavour", ["openai", "vllm", "llama.cpp"])
async def test_token_mode_says_the_answer_in_chunks_and_nothing_is_lost_between(flavour: str) -> None:
    async with scripted(flavour) as (server, p, _):
        await p.start(pause=FIRST, stream_tokens=True)
        first = await p.until("paused", "done")
        assert first["type"] == "paused"
        assert first["reason"] == "max_tokens"
        assert first["tokens"] == 10
        assert first["text"] == "".join(tokens(TEXT)[:10]) == p.text
        assert isinstance(first["ttft_ms"], float)
        assert isinstance(first["elapsed_ms"], float)
        assert "stream_id" not in first
        chunks = [first]
        while chunks[-1]["type"] == "paused":
            await p.send("continue_stream", stream_id="s1", pause=SENTENCE)
            chunks.append(await p.until("paused", "done"))
        assert p.text == "".join(chunk["text"] for chunk in chunks) == TEXT
        assert [chunk["reason"] for chunk in chunks[1:]] == ["sentence_boundary"] * (len(chunks) - 2) + [
            "sentence_boundary_eos"
        ]
        assert len(server.requests) == (1 if flavour == "openai" else len(chunks))


async def test_a_sentence_is_a_real_one_and_never_holds_the_next_one_s_first_token() -> None:
    async with scripted() as (_, p, _):
        await p.start(pause=SENTENCE)
        said = [(await p.next())["text"]]
        while not p.frames[-1]["done"]:
            await p.send("continue_stream", stream_id="s1", pause=SENTENCE)
            said.append((await p.next())["text"])
    assert [text.strip() for text in said] == [
        "Good evening.",
        "Dr. Smith paid 3.14 dollars for it.",
        "“Is that so? I never knew,” she said.",
        "Then they walked home, talking about the weather, the moon and the price of tea.",
        "It was late.",
        "Nobody else was about!",
    ]


async def test_buffered_mode_has_the_reference_s_fields() -> None:
    async with scripted() as (_, p, _):
        await p.start(pause=FIRST)
        first = await p.next()
        assert first == {
            "stream_id": "s1", "status": "started", "text": "".join(tokens(TEXT)[:10]), "tokens": 10, "paused": True,
            "reason": "max_tokens", "done": False, "ttft_ms": first["ttft_ms"],
            "full_text": "".join(tokens(TEXT)[:10]),
        }  # fmt: skip
        await p.send("continue_stream", stream_id="s1")
        rest = await p.next()
        assert "status" not in rest
        assert (rest["paused"], rest["done"], rest["reason"], rest["full_text"]) == (False, True, "eos", TEXT)
        await p.send("continue_stream", stream_id="s1")
        over = await p.next()
        assert (over["reason"], over["text"], over["tokens"], over["paused"], over["done"]) == (
            "already_done", "", 0, False, True,
        )  # fmt: skip
        assert "ttft_ms" not in over
        await p.send("end_stream", stream_id="s1")
        ended = await p.next()
        assert (ended["stream_id"], ended["status"], ended["tokens"]) == ("s1", "ended", len(tokens(TEXT)))


async def test_after_the_end_token_mode_says_already_done() -> None:
    async with scripted(text="Short.") as (_, p, _):
        await p.start(stream_tokens=True)
        assert (await p.until("done"))["reason"] == "eos"
        await p.send("continue_stream", stream_id="s1")
        over = await p.next()
        assert (over["type"], over["reason"], over["ttft_ms"]) == ("done", "already_done", 0)
        assert "elapsed_ms" not in over


async def test_both_limits_mean_whichever_comes_first_and_zero_means_none() -> None:
    async with scripted() as (_, p, _):
        await p.start("a", pause={"max_tokens": 2, "sentence_boundary": True})
        assert (await p.next())["reason"] == "max_tokens"
        await p.start("b", pause={"max_tokens": 50, "sentence_boundary": True})
        assert (await p.next())["reason"] == "sentence_boundary"
        await p.start("c", pause={"max_tokens": 0, "min_tokens": 10})
        assert (await p.next())["reason"] == "eos"


async def test_an_answer_without_a_word() -> None:
    async with scripted(text="") as (_, p, _):
        await p.start("a", stream_tokens=True)
        assert (await p.next())["reason"] == "empty_response"
        await p.start("b")
        assert (await p.next())["reason"] == "eos"


async def test_settings_reach_the_server() -> None:
    async with scripted() as (server, p, _):
        await p.start("a", pause=FIRST)
        await p.next()
        await p.start("b", temperature=0.1, max_tokens=5, top_p=0.5, stop=["x"], model="other")
        await p.next()
    assert server.requests[0].body["temperature"] == 0.7
    body = server.requests[1].body
    assert (body["temperature"], body["top_p"], body["stop"], body["model"]) == (0.1, 0.5, ["x"], "other")


async def test_the_offline_conversationalist_serves_too() -> None:
    async with scene(eliza.create()) as url, pen(url) as p:
        await p.start(pause={"max_tokens": 1}, stream_tokens=True)
        await p.until("paused")
        await p.send("continue_stream", stream_id="s1")
        assert (await p.until("done"))["text"]


# at any moment


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


# what goes wrong


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ("nonsense", "not JSON"),
        (b"\0\1", "binary"),
        ("[1]", "not a JSON object"),
        ("[" * 50_000, "not JSON"),
        ("{}", "Unknown action: None"),
        ('{"action": "fly", "stream_id": "s"}', "Unknown action: fly"),
        ('{"action": ["x"]}', "Unknown action"),
        ('{"action": "start_stream"}', "stream_id required"),
        ('{"action": "start_stream", "stream_id": ""}', "stream_id required"),
        ('{"action": "start_stream", "stream_id": ["s"]}', "stream_id required"),
        ('{"action": "end_stream"}', "stream_id required"),
        ('{"action": "start_stream", "stream_id": "s", "messages": [{"role": "user"}]}', "content"),
        ('{"action": "start_stream", "stream_id": "s", "messages": [{"role": ["x"], "content": "x"}]}', "role"),
        ('{"action": "start_stream", "stream_id": "s", "messages": "x"}', "messages"),
        ('{"action": "start_stream", "stream_id": "s", "pause": {"max_tokens": -1}}', "max_tokens"),
        ('{"action": "start_stream", "stream_id": "s", "temperature": NaN}', "temperature"),
        ('{"action": "start_stream", "stream_id": "s", "top_p": Infinity}', "top_p"),
        (r'{"action": "\ud800"}', "Unknown action: \ufffd"),
        ('{"action": "continue_stream", "stream_id": "s"}', "Stream not found"),
        ('{"action": "cancel_stream", "stream_id": "s"}', "Stream not found"),
    ],
)
async def test_bad_input_is_an_error_and_never_a_dropped_socket(frame: str | bytes, error: str) -> None:
    async with scene(FakeLLM("Fine."), slots=1) as url, pen(url) as p:
        await p.socket.send(frame)
        told = await p.next()
        assert error in told["error"]
        assert ("stream_id" in told) == (isinstance(frame, str) and '"stream_id": "s"' in frame and "fly" not in frame)
        await p.start()  # and no slot was lost to it
        assert (await p.next())["full_text"].strip() == "Fine."


async def test_half_a_character_is_no_harm_and_null_is_nothing() -> None:
    async with scripted() as (server, p, _):
        await p.socket.send(
            r'{"action": "start_stream", "stream_id": "\ud800", '
            r'"messages": [{"role": "user", "content": "Hi \ud83d."}],'
            r' "pause": {"max_tokens": 3, "sentence_boundary": null}, "temperature": null, "tagged": null}'
        )
        told = await p.next()
        assert (told["stream_id"], told["reason"]) == ("\ufffd", "max_tokens")
    assert server.requests[0].body["messages"][0]["content"] == "Hi \ufffd."


async def test_chunks_asked_for_without_end_are_refused() -> None:
    async with scripted(first=0.2) as (_, p, _):
        await p.start(pause={"max_tokens": 1})
        for _ in range(chunked_llm.WAITING):
            await p.send("continue_stream", stream_id="s1", pause={"max_tokens": 1})
        assert (await p.until("error"))["code"] == "too_many"
        assert (await p.until("started"))["tokens"] == 1  # and what was asked for before comes
        for _ in range(chunked_llm.WAITING - 1):
            await p.next()
        assert p.frames[-1]["full_text"] == TEXT


async def test_the_same_name_twice_and_ending_what_is_not_there() -> None:
    async with scene(FakeLLM("Fine.")) as url, pen(url) as p:
        await p.start()
        await p.next()
        await p.start()
        assert (await p.next())["error"] == "Stream s1 already exists"
        for id in ("s1", "s1", "never"):
            await p.send("end_stream", stream_id=id)
            ended = await p.next()
            assert (ended["stream_id"], ended["status"]) == (id, "ended")


@pytest.mark.parametrize("mode", ["token", "buffered"])
async def test_a_model_that_dies_in_the_middle_is_told_with_what_there_was(mode: str) -> None:
    async with scripted(always=Fault(die_after=4)) as (_, p, _):
        await p.start(stream_tokens=mode == "token")
        while "reason" not in await p.next():
            pass
        told = p.frames[-1]
        assert told["reason"] == "connection_error"
        assert told["text"] == "".join(tokens(TEXT)[:4])
        assert told["code"].startswith("llm_")


async def test_a_model_that_cannot_be_had_is_an_error_and_holds_no_slot() -> None:
    async with scripted(slots=1, plan=[Fault(status=401), Fault(status=400)]) as (_, p, _):
        for code in ("llm_auth", "llm_bad_request"):
            await p.start(stream_tokens=True)
            told = await p.next()
            assert (told["stream_id"], told["code"]) == ("s1", code)
        await p.start()
        assert (await p.next())["status"] == "started"


async def test_a_stranger_is_turned_away() -> None:
    async with scene(FakeLLM(), allowed=lambda connection: False) as url, pen(url) as p:
        assert (await p.next())["code"] == "unauthorized"
        with pytest.raises(ConnectionClosed, match="1008"):
            await p.next()


async def test_health_tells_whether_the_model_is_there() -> None:
    async with scripted() as (server, p, url), httpx.AsyncClient() as http:
        await p.start(pause=FIRST)
        await p.next()
        health = (await http.get(url.replace("ws:", "http:") + "/health")).json()
        assert health == {
            "status": "ok", "llama_server": "healthy", "llama_url": f"{server.host}/v1", "active_streams": 1,
            "slot_cooldown_ms": 0,
        }  # fmt: skip
        assert "start_stream" in (await http.get(url.replace("ws:", "http:"))).json()["actions"]
        async with pen(url + "/ws") as appended:  # a client that appends /ws to the address it is given
            await appended.send("ping")
            assert await appended.next() == {"status": "pong"}
    async with scene(openai.create(base_url="http://127.0.0.1:9/v1")) as url, httpx.AsyncClient() as http:
        health = (await http.get(url.replace("ws:", "http:") + "/health")).json()
        assert (health["status"], health["llama_server"]) == ("degraded", "unreachable")


async def test_many_connections_at_once_get_each_their_own_answer() -> None:
    async with scripted(text=lambda messages: messages[-1]["content"] * 3, slots=12, delay=0.002) as (_, _, url):

        async def one(number: int) -> None:
            async with pen(url) as p:
                ask = [{"role": "user", "content": f"Number {number} speaks. "}]
                await p.send("start_stream", stream_id="s", messages=ask, pause=FIRST, stream_tokens=True)
                while (await p.until("paused", "done"))["type"] == "paused":
                    await p.send("continue_stream", stream_id="s", pause=SENTENCE)
                assert p.text == f"Number {number} speaks. " * 3

        await asyncio.gather(*map(one, range(12)))
