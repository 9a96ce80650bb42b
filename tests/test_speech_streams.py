"""`/ws/tts/stream` over a real socket: streams that follow, replace, cancel and outlive each other."""

import asyncio
import socket
from typing import Any

from starlette.websockets import WebSocketState

from server.ws.wire import Wire
from tests.fakes import words
from tests.services import until
from tests.speech_ear import ear, fake


async def test_text_right_after_close_waits_for_the_old_stream_to_be_said() -> None:
    async with fake() as (engine, _, url), ear(url) as e:
        await e.send("text", text="one two three four five six seven eight")
        await e.send("close")
        await e.send("text", text="nine ten")
        await e.send("close")
        await e.until("done")
        await e.until("done")
    assert words(e.audio) == ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert e.types == ["stream_created", "segment_complete", "done"] * 2
    assert engine.open_now == 0


async def test_init_right_after_close_does_so_too_but_replaces_a_stream_that_is_open() -> None:
    async with fake() as (_, _, url), ear(url) as e:
        await e.send("text", text="first one")
        await e.send("close")
        await e.send("init")
        await e.send("text", text="lost words " * 20)
        await e.send("init")
        await e.send("text", text="last")
        await e.send("close")
        while (await e.until("done"))["segments_generated"] == 0 or "last" not in words(e.audio):
            pass
    heard = words(e.audio)
    assert heard[:2] == ["first", "one"]
    assert heard[-1] == "last"
    assert len(heard) < 10
    assert e.types.count("done") == 2


async def test_an_init_that_cannot_be_understood_changes_nothing() -> None:
    async with fake() as (_, _, url), ear(url) as e:
        await e.send("text", text="one two three four")
        await e.first_audio()
        await e.send("init", speed="fast")
        assert (await e.until("error"))["fatal"] is False
        await e.send("text", text="five")
        await e.send("close")
        assert (await e.until("done"))["segments_generated"] == 2
    assert words(e.audio) == ["one", "two", "three", "four", "five"]
    assert e.types.count("stream_created") == 1


async def test_after_cancel_no_audio_comes_until_the_next_stream() -> None:
    async with fake(speed=50) as (engine, studio, url), ear(url) as e:
        await e.send("init", default_mode="stream", events=["cancelled"])
        await e.send("text", text="word " * 200)
        await e.first_audio()
        await e.send("cancel")
        await e.until("cancelled")
        assert engine.speaking == 0
        assert engine.open_now == 0
        assert studio.default.admission.running == 0
        assert await e.quiet() == []
        await e.send("text", text="next")
        await e.until("segment_complete")
        assert e.events[-3:-1] != []
        begin = max(i for i, x in enumerate(e.events) if isinstance(x, dict) and x["type"] == "stream_created")
        assert words(b"".join(x for x in e.events[begin:] if isinstance(x, bytes))) == ["next"]
    assert "done" not in e.types


async def test_cancel_is_silent_to_those_who_did_not_ask_to_be_told() -> None:
    async with fake() as (_, _, url), ear(url) as e:
        await e.send("text", text="some words here")
        await e.first_audio()
        await e.send("cancel")
        await e.send("ping")
        await e.until("pong")
        assert [x for x in await e.quiet() if isinstance(x, bytes)] == []
    assert e.types == ["stream_created", "pong"]


async def test_text_refreshes_the_idle_clock_and_silence_ends_the_stream() -> None:
    async with fake(speed=50, idle_s=0.3) as (engine, _, url), ear(url) as e:
        for number in range(6):
            await e.send("text", text=f"w{number}")
            await asyncio.sleep(0.15)
        done = await e.until("done")
        assert done["segments_generated"] == 6
        assert e.types.count("stream_created") == 1
        assert engine.open_now == 0
        await e.send("text", text="back")
        await e.until("stream_created")


async def test_any_message_keeps_a_stream_alive() -> None:
    async with fake(idle_s=0.3) as (_, _, url), ear(url) as e:
        await e.send("init")
        for _ in range(5):
            await asyncio.sleep(0.15)
            await e.send("ping")
        await e.until("pong")
        await e.quiet(0.05)
        assert "done" not in e.types
        await e.until("done")


class Stuck:
    """A socket that takes nothing until it is let go."""

    application_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.go, self.sent = asyncio.Event(), list[Any]()

    async def send_bytes(self, frame: bytes) -> None:
        await self.go.wait()
        self.sent.append(frame)

    send_text = send_bytes  # type: ignore[assignment]


async def test_what_waits_for_a_slow_client_is_dropped_and_replies_overtake_it() -> None:
    stuck, first, second = Stuck(), object(), object()
    async with Wire(stuck, room=8) as wire:  # type: ignore[arg-type]
        await wire.put(first, b"one.")
        await asyncio.sleep(0)  # it is being written
        await wire.put(first, b"two.")
        await wire.put(second, b"six.")
        full = asyncio.ensure_future(wire.put(second, b"nine"))
        await asyncio.sleep(0.01)
        assert not full.done()  # there is no room
        wire.tell({"type": "pong"})
        wire.drop(first)
        await full
        stuck.go.set()
        await wire.sent()
        assert stuck.sent == [b"one.", '{"type":"pong"}', b"six.", b"nine"]
        stuck.go.clear()
        await wire.put(first, b"head")
        await asyncio.sleep(0)
        await wire.put(first, b"last")
        wire.drop()
        stuck.go.set()
        await wire.sent()
        assert stuck.sent[4:] == [b"head"]


async def test_a_cancel_drops_what_a_slow_client_has_not_taken() -> None:
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    async with fake(speed=1000, rate=48_000) as (engine, studio, url):
        host, port = url.split("/")[2].split(":")
        small.connect((host, int(port)))
        async with ear(url, sock=small) as e:
            e.socket.transport.pause_reading()
            await e.send("init", default_mode="stream", events=["cancelled"])
            await e.send("text", text=" ".join(f"w{n}" for n in range(3_000)))
            await until(lambda: engine.speaking and not studio.default.admission.running, 20)
            await asyncio.sleep(0.1)
            await e.send("cancel")
            await until(lambda: not engine.open_now)
            e.socket.transport.resume_reading()
            await e.until("cancelled")
            assert await e.quiet() == []


async def test_a_voice_that_breaks_is_told_and_the_next_text_is_said() -> None:
    async with fake() as (engine, _, url), ear(url) as e:
        await e.send("text", text="one two")
        await e.send("text", text="EXPLODE")
        await e.send("text", text="never said")
        error = await e.until("error")
        assert (error["message"], error["code"], error["fatal"]) == ("the voice broke", "tts_failed", True)
        assert words(e.audio) == ["one", "two"]
        await e.send("text", text="three")
        await e.send("close")
        await e.until("done")
        assert words(e.audio)[-1] == "three"
        assert "never" not in engine.said
    assert engine.open_now == 0
