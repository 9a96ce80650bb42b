"""Who may connect, how many, how much and how fast: the limits of the conversation, over a real socket."""

import asyncio
import json
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx
import pytest
import websockets
from starlette.websockets import WebSocketState

from server import limits
from server.errors import LimitError
from server.settings import Settings
from server.ws.conversation import LAST_WORD_S, _Wire
from server.ws.protocol import JSON
from tests import fakes
from tests.live import served
from tests.talk import COUNT
from tests.virtual_time import run
from tests.wire import address, connected, serving


@pytest.mark.parametrize("text", ["x" * 6_000, "é" * 3_000])
async def test_a_message_that_is_too_big_closes_with_1009(text: str):
    async with serving(server={"message_bytes": 5_000}) as server, connected(address(server)) as client:
        await client.socket.send(json.dumps({"type": "say", "text": text}, ensure_ascii=False))
        error = await client.until("error")
        assert (error["code"], error["fatal"]) == ("too_big", True)
        await client.when(lambda: client.closed)
        assert client.closed[0] == 1009


async def test_the_session_beyond_the_limit_is_told_1013_and_why():
    async with serving(server={"sessions": 2}) as server:
        async with connected(address(server)) as one, connected(address(server)) as two:
            await one.until("session.created")
            await two.until("session.created")
            async with connected(address(server)) as three:
                error = await three.until("error")
                assert "server.sessions" in error["message"]
                assert error["retry_after"] == 5
                await three.when(lambda: three.closed)
                assert three.closed[0] == 1013
        async with connected(address(server)) as four:
            await four.until("session.created")


@pytest.mark.parametrize(("when", "close", "later"), [("restart", 1012, None), ("starting", 1013, 2)])
async def test_who_comes_while_it_starts_or_shuts_down_is_told_so(when: str, close: int, later: float | None):
    async with serving() as server:
        state = server._parley.state
        state.lobby.closing, state.rack.ready = when == "restart", when != "starting"
        async with connected(address(server)) as client:
            error = await client.until("error")
            assert (error["code"], error.get("retry_after")) == (when, later)
            await client.when(lambda: client.closed)
            assert client.closed[0] == close


async def test_who_comes_while_the_last_sentences_end_is_told_so_and_those_who_watch_see_it():
    async with serving(fakes.rack(fakes.FakeLLM(COUNT))) as server, connected(address(server)) as client:
        await client.send("user.text", text="count")
        await client.until("reply.audio")
        server.should_exit = True
        async with httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{server.port}") as http:
            while (health := await http.get("/health")).status_code == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert health.json()["status"] == "stopping"
        async with connected(address(server)) as late:
            assert (await late.until("error"))["code"] == "restart"
        assert (await client.until("reply.interrupted"))["reason"] == "shutdown"


async def test_a_client_that_is_back_before_it_was_missed_is_no_session_more():
    async with serving(server={"sessions": 1}) as server, connected(address(server)) as lost:
        id = (await lost.until("session.created"))["session"]
        async with connected(address(server), f"?session={id}") as back:
            assert (await back.until("session.created"))["resumed"] is True


async def test_a_flood_is_throttled_and_then_closed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "PATIENCE_S", 2.0)
    async with serving() as server, connected(address(server)) as client:
        await client.until("session.created")
        with suppress(websockets.ConnectionClosed):
            for _ in range(5_000):
                await client.socket.send(bytes(32_000))
                await asyncio.sleep(0.005)
        await client.when(lambda: client.closed)
        assert client.closed[0] == 1008
        assert client.of("error")[-1]["code"] == "flood"


def test_frames_without_audio_are_a_flood_too():
    class Flooding:
        """A socket on which empty frames come as fast as they are read."""

        query_params: ClassVar[dict[str, str]] = {}
        frames = 100_000

        async def receive(self) -> dict[str, Any]:
            self.frames -= 1
            return {"type": "websocket.receive", "bytes": b""} if self.frames else {"type": "websocket.disconnect"}

    async def read() -> None:
        session = SimpleNamespace(input_rate=16_000)
        async for _ in _Wire(Flooding(), JSON, Settings()).received(session):  # type: ignore[arg-type]
            pass

    with pytest.raises(LimitError, match="flood"):
        run(read())


def test_the_last_word_to_a_client_that_does_not_read_is_not_waited_for():
    class Deaf:
        query_params: ClassVar[dict[str, str]] = {}
        application_state = WebSocketState.CONNECTED

        async def send_text(self, text: str) -> None:
            await asyncio.Event().wait()

        close = send_bytes = send_text

    async def refuse() -> float:
        await _Wire(Deaf(), JSON, Settings()).refuse(LimitError("enough"))  # type: ignore[arg-type]
        return asyncio.get_running_loop().time()

    assert run(asyncio.wait_for(refuse(), 60)) == LAST_WORD_S


async def test_a_file_sent_at_once_is_heard_whole():
    async with serving(fakes.rack(fakes.FakeLLM("Well hello."))) as server, connected(address(server)) as client:
        text = " ".join(f"word{i}" for i in range(40))
        pcm = fakes.silence(200) + fakes.voice(text) + fakes.silence(1500)
        for i in range(0, len(pcm), 32_000):
            await client.socket.send(pcm[i : i + 32_000])
        assert (await client.until("transcript.final"))["text"] == text


async def test_a_token_is_asked_for_and_taken_three_ways():
    async with serving(server={"token": "s3cret"}) as server:
        where = address(server)
        for query, options in [
            ("", {}),
            ("?token=wrong", {}),
            ("", {"additional_headers": {"Authorization": "Bearer x"}}),
            ("", {"additional_headers": {"Authorization": "Basic s3cret"}}),
        ]:
            async with connected(where, query, **options) as client:
                assert (await client.until("error"))["code"] == "unauthorized"
                await client.when(lambda client=client: client.closed)
                assert client.closed[0] == 1008
        for query, options in [
            ("?token=s3cret", {}),
            ("", {"additional_headers": {"Authorization": "Bearer s3cret"}}),
            ("", {"subprotocols": ["parley.v1", "parley.token.s3cret"]}),
        ]:
            async with connected(where, query, **options) as client:
                await client.until("session.created")


async def test_a_token_is_not_in_the_log():
    secret = {"PARLEY_SERVER_TOKEN": "s3cret"}
    async with (
        served("--config", "configs/embedded.toml", environment=secret) as process,
        connected(process.url.removeprefix("http://"), "?token=s3cret&session=0ld") as client,
    ):
        await client.until("session.created")
    assert "connected" in process.log
    assert "s3cret" not in process.log
    assert "0ld" not in process.log


async def test_only_the_servers_own_pages_may_connect():
    async with serving(server={"origins": ["https://friend.example"]}) as server:
        where = address(server)
        for origin in ("https://evil.example", "null", "http://["):
            async with connected(where, origin=origin) as client:
                assert (await client.until("error"))["code"] == "forbidden_origin"
        for origin in (f"http://{where}", "https://friend.example"):
            async with connected(where, origin=origin) as client:
                await client.until("session.created")
