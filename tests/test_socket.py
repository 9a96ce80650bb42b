"""The conversation over a real socket, with engines of known delay: the wire, the limits, the ways to leave."""

import asyncio

import httpx
import msgpack
import pytest
import websockets

from tests import fakes
from tests.talk import COUNT
from tests.wire import address, connected, serving


async def test_an_update_that_is_refused_leaves_the_rate_as_it_was():
    async with serving() as server, connected(address(server)) as client:
        await client.send("session.update", input_rate=8_000, character="nobody")
        await client.socket.send(bytes(32_000))  # a second at 16 kHz
        await client.send("ping")
        await client.until("pong")
        assert [error["code"] for error in client.of("error")] == ["bad_config"]


async def test_a_conversation_as_documented():
    async with serving(fakes.rack(fakes.FakeLLM("Well hello."))) as server, connected(address(server)) as client:
        created = await client.until("session.created")
        assert (created["protocol"], created["input_rate"], created["output_rate"]) == (1, 16000, 16000)
        assert {c["id"] for c in created["available"]} >= {"ada", "finn", "vera", "pip"}
        await client.speak(fakes.silence(200) + fakes.voice("hello there") + fakes.silence(900))
        done = await client.until("reply.done")
        assert client.of("transcript.final")[0]["text"] == "hello there"
        assert done["text"] == "Well hello."
        assert fakes.words(client.audio[done["reply"]]) == ["well", "hello"]
        metrics = await client.until("turn.metrics")
        assert metrics["turn_end"] > 400
        assert metrics["first_sent"] >= metrics["turn_end"]


async def test_barge_in_stops_the_audio_and_tells_what_was_heard():
    async with serving(fakes.rack(fakes.FakeLLM(COUNT, "Fine."))) as server, connected(address(server)) as client:
        await client.send("user.text", text="count")
        await client.until("reply.audio")
        await client.speak(fakes.silence(700) + fakes.voice("stop that now please") + fakes.silence(900))
        cut = await client.until("reply.interrupted")
        await client.until("reply.done")
        assert 0 < len(cut["heard"]) < len(COUNT)
        assert not [1 for at, reply, _ in client.arrivals if reply == cut["reply"] and at > cut["_at"]]
        await client.send("history.get")
        told = await client.until("history")
        assert told["messages"][1] == {
            "role": "assistant", "text": cut["heard"], "turn": 1, "character": "ada", "cut": True,
        }  # fmt: skip


async def test_msgpack_carries_the_same():
    async with serving(fakes.rack(fakes.FakeLLM("Well hello."))) as server:
        uri = f"ws://{address(server)}/ws"
        async with websockets.connect(uri, subprotocols=["parley.msgpack.v1"], compression=None) as socket:
            assert socket.subprotocol == "parley.msgpack.v1"
            assert msgpack.unpackb(await socket.recv())["type"] == "session.created"
            pcm = fakes.silence(200) + fakes.voice("hello there") + fakes.silence(900)
            for i in range(0, len(pcm), 640):
                await socket.send(msgpack.packb({"type": "audio", "data": pcm[i : i + 640]}))
            told = []
            while not told or told[-1]["type"] != "reply.done":
                told.append(msgpack.unpackb(await asyncio.wait_for(socket.recv(), 10)))
            audio = [x for x in told if x["type"] == "audio"]
            assert fakes.words(b"".join(x["data"] for x in audio)) == ["well", "hello"]
            assert [x["start_ms"] for x in audio[:3]] == [0, 20, 40]
            await socket.send(msgpack.packb({"type": "nonsense"}))
            await socket.send(b"\xc1\xc1")
            await socket.send("text")
            codes = []
            while len(codes) < 3:
                event = msgpack.unpackb(await asyncio.wait_for(socket.recv(), 10))
                codes += [event["code"]] if event["type"] == "error" else []
            assert codes == ["bad_message"] * 3


async def test_audio_can_be_left_out():
    rack = fakes.rack(fakes.FakeLLM("Well hello."))
    async with serving(rack) as server, connected(address(server), "?audio=off") as client:
        await client.send("user.text", text="hi")
        await client.until("reply.done")
        assert client.audio == {}


GARBAGE: list[str | bytes] = [
    "", "{", "[]", "42", '"text"', "null", "{}", '{"type": 1}', '{"type": "nope"}', '{"type": "user.text"}',
    '{"type": "user.text", "text": ""}', '{"type": "user.text", "text": 5}', '{"type": "playback", "reply": "x"}',
    '{"type": "playback", "reply": 1, "ms": -5}', '{"type": "playback", "reply": 1, "ms": 1e999}',
    '{"type": "session.update", "input_rate": 4}', '{"type": "session.update", "turn": {"mode": "maybe"}}',
    '{"type": "session.update", "character": ""}', '{"type": "session.update", "typo": 1}',
    '{"type": "session.update", "character": "nobody"}',
    '{"type": "say", "text": "x", "character": "nobody"}', '{"type": "user.text", "text": " \\n "}',
    '{"type": "say", "text": "\\t"}', '{"type": "user.text", "text": "\\ud800"}',
    "[" * 2_000, b"\x00", b"\x01" * 40_001, bytes(64_000),
]  # fmt: skip


async def test_what_the_client_gets_wrong_earns_an_error_and_nothing_else():
    async with serving(fakes.rack(fakes.FakeLLM("Well hello."))) as server, connected(address(server)) as client:
        for count, garbage in enumerate(GARBAGE, 1):
            await client.socket.send(garbage)
            error = await client.until("error", count)
            assert error["code"] in ("bad_message", "bad_config"), garbage
            assert error["fatal"] is False
            assert error["message"]
            assert "discriminator" not in error["message"], "a library's word, which tells the client nothing"
        await client.send("user.text", text="hi")
        assert (await client.until("reply.done"))["text"] == "Well hello."
        assert len(client.of("error")) == len(GARBAGE)


async def test_a_lost_conversation_can_be_taken_up_again():
    llm = fakes.FakeLLM("Well hello.", "Still here.")
    async with serving(fakes.rack(llm)) as server:
        async with connected(address(server)) as client:
            id = (await client.until("session.created"))["session"]
            await client.send("session.update", character="vera")
            await client.send("user.text", text="remember me")
            await client.until("reply.done")
            client.socket.transport.abort()
        await _gone(server)
        for wrong in ("character=nobody", "audio=linacodec_tokens"):  # these get nothing, and lose nothing
            async with connected(address(server), f"?session={id}&{wrong}") as client:
                assert (await client.until("error"))["fatal"]
        async with connected(address(server), f"?session={id}") as client:
            created = await client.until("session.created")
            assert (created["session"], created["resumed"]) == (id, True)
            assert [character["id"] for character in created["characters"]] == ["vera"]
            await client.send("user.text", text="and now?")
            assert (await client.until("transcript.final"))["turn"] == 2
            await client.until("reply.done")
        assert [m.content for m in llm.seen[-1][1:]] == ["remember me", "Well hello.", "and now?"]
        async with connected(address(server), "?session=made-up") as client:
            created = await client.until("session.created")
            assert created["resumed"] is False
            assert created["session"] != "made-up"


@pytest.mark.parametrize("stage", ["at once", "listening", "thinking", "speaking", "paused"])
async def test_a_client_that_vanishes_leaves_nothing(stage: str):
    llm, tts, stt = fakes.FakeLLM(COUNT, first=0.3), fakes.FakeTTS(), fakes.FakeSTT()
    async with serving(fakes.rack(llm, tts, stt)) as server:
        before = len(asyncio.all_tasks())
        async with connected(address(server)) as client:
            if stage == "listening":
                await client.speak(fakes.voice("hello"))
            if stage in ("thinking", "speaking", "paused"):
                await client.send("user.text", text="count")
                await client.until("reply.started")
            if stage in ("speaking", "paused"):
                await client.until("reply.audio")
            if stage == "paused":
                await client.send("reply.pause")
                await client.until("reply.paused")
            client.socket.transport.abort()
        await _gone(server)
        await asyncio.sleep(0.05)
        assert (llm.open_now, tts.speaking, tts.open_now, stt.open_now) == (0, 0, 0, 0)
        assert len(asyncio.all_tasks()) <= before


async def test_twenty_at_once_do_not_hear_each_other():
    class Echo(fakes.FakeLLM):
        async def stream(self, messages, settings):
            for word in f"You said {messages[-1].content}.".split(" "):
                yield word + " "

    names = [f"{a} {b}" for a in ("red", "blue", "green", "grey") for b in ("fox", "owl", "cat", "dog", "hen")]
    async with serving(fakes.rack(Echo())) as server:

        async def one(text: str) -> None:
            async with connected(address(server)) as client:
                await client.speak(fakes.silence(200) + fakes.voice(text) + fakes.silence(900))
                done = await client.until("reply.done")
                assert client.of("transcript.final")[0]["text"] == text
                assert fakes.words(client.audio[done["reply"]]) == ["you", "said", *text.split()]

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(one(name))


async def test_sigterm_lets_the_sentence_end_and_closes_with_1012():
    async with serving(fakes.rack(fakes.FakeLLM(COUNT))) as server, connected(address(server)) as client:
        await client.send("user.text", text="count")
        await client.until("reply.audio")
        await asyncio.sleep(0.2)
        server.should_exit = True
        cut = await client.until("reply.interrupted")
        assert (cut["reason"], cut["heard"]) == ("shutdown", "One two three four.")
        await client.when(lambda: client.closed)
        assert client.closed[0] == 1012


async def test_health_and_metrics():
    async with serving() as server, httpx.AsyncClient(base_url=f"http://{address(server)}") as http:
        async with connected(address(server)) as client:
            await client.send("user.text", text="hi")
            await client.until("reply.done")
            health = await http.get("/health")
            assert health.status_code == 200
            assert (health.json()["ready"], health.json()["sessions"]) == (True, 1)
            metrics = (await http.get("/metrics")).text
        assert "parley_sessions 1.0" in metrics
        assert 'parley_stage_seconds_count{stage="first_sent"}' in metrics
        assert "parley_loop_lag_seconds" in metrics
        page = await http.get("/")
        assert page.status_code == 200
        assert "<!doctype html>" in page.text.lower()
        assert page.headers["cache-control"] == "no-cache"
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == "no-referrer"  # a token may stand in the address


async def _gone(server) -> None:
    async with asyncio.timeout(10):
        await server._parley.state.lobby.emptied.wait()
