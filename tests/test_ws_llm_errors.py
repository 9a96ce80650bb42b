"""`/ws/llm` over real sockets: bad input, models that fail, strangers, and crowds."""

import asyncio
from ssl import SSLContext

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from server.pipelines.llm import openai
from server.ws import chunked_llm
from tests.fakes import FakeLLM
from tests.llm_pen import FIRST, SENTENCE, pen, scene, scripted
from tests.llm_server import TEXT, Fault, tokens


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


async def test_half_a_character_from_the_model_is_told_as_a_question_mark() -> None:
    async with scene(FakeLLM("so \ud83d it goes")) as url, pen(url) as p:
        await p.start(stream_tokens=True)
        assert (await p.until("done"))["text"].split() == ["so", "?", "it", "goes"]
        await p.send("ping")
        await p.until("pong")


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


async def test_a_failure_that_nobody_foresaw_is_an_error_and_holds_no_slot() -> None:
    async with scene(FakeLLM(ValueError("what?"), "Fine."), slots=1) as url, pen(url) as p:
        await p.start()
        assert (await p.next()) == {"stream_id": "s1", "error": "internal error: ValueError", "code": "error"}
        await p.start()
        assert (await p.next())["full_text"].strip() == "Fine."


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


async def test_health_asks_over_the_connection_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as (server, p, url), httpx.AsyncClient() as http:
        await p.start(pause=FIRST)
        await p.next()
        read: list[object] = []
        monkeypatch.setattr(SSLContext, "load_verify_locations", lambda *given, **named: read.append(given))
        for _ in range(3):
            assert (await http.get(url.replace("ws:", "http:") + "/health")).json()["status"] == "ok"
        assert not read  # certificates: tens of milliseconds in which nobody is served
        server.api_key = "secret"
        assert (await http.get(url.replace("ws:", "http:") + "/health")).json()["status"] == "ok"  # it does answer


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
