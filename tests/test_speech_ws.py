"""`/ws/tts/stream` over real sockets: the reference's messages, its misbehaviour mended, and clients that misbehave."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from starlette.websockets import WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server.audio import milliseconds
from server.pipelines.studio import Studio
from server.pipelines.tts import espeak, flite
from server.ws import speech
from server.ws.wire import Wire
from tests import services
from tests.fakes import FakeTTS, words
from tests.services import serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "Good evening. It is half past nine, and the moon is up."


class Ear:
    """What one socket hears. `events`: everything in order, audio as bytes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any] | bytes] = []

    async def send(self, type: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": type, **fields}))

    async def until(self, *types: str) -> dict[str, Any]:
        """The next event of one of `types`."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.recv()
                event = frame if isinstance(frame, bytes) else json.loads(frame)
                self.events.append(event)
                if isinstance(event, dict) and event["type"] in types:
                    return event

    async def first_audio(self) -> bytes:
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.recv()
                self.events.append(frame if isinstance(frame, bytes) else json.loads(frame))
                if isinstance(frame, bytes):
                    return frame

    async def quiet(self, seconds: float = 0.15) -> list[dict[str, Any] | bytes]:
        """Everything that comes within `seconds`."""
        begin = len(self.events)
        try:
            async with asyncio.timeout(seconds):
                await self.until("never")
        except TimeoutError:
            pass
        return self.events[begin:]

    @property
    def audio(self) -> bytes:
        return b"".join(e for e in self.events if isinstance(e, bytes))

    @property
    def types(self) -> list[str]:
        return [e["type"] for e in self.events if isinstance(e, dict)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url() -> AsyncIterator[str]:
    async with (
        services.studio(espeak=espeak.create(), flite=flite.create()) as studio,
        serving(speech.routes(studio)) as address,
    ):
        yield address.replace("http", "ws") + "/ws/tts/stream"


@asynccontextmanager
async def ear(url: str, **options: Any) -> AsyncIterator[Ear]:
    async with connect(url, compression=None, **options) as socket:
        yield Ear(socket)


@asynccontextmanager
async def fake(streams: int = 100, speed: float = 5, **options: Any) -> AsyncIterator[tuple[FakeTTS, Studio, str]]:
    """An engine that makes speech `speed` times faster than real time."""
    engine = FakeTTS(speed=speed, rate=options.pop("rate", 16_000))
    engine.streams = streams
    studio = Studio({"fake": engine}, waiting=options.pop("waiting", 32))
    async with serving(speech.routes(studio, **options)) as address:
        yield engine, studio, address.replace("http", "ws") + "/ws/tts/stream"


# the reference's protocol


@pytest.mark.parametrize("mode", ["batch", "stream"])
async def test_a_stream_from_its_creation_to_done(url: str, mode: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="aria", language="en", default_mode=mode)
        created = await e.until("stream_created")
        assert created["stream_id"]
        await e.send("text", text=TEXT)
        first = await e.until("segment_complete")
        await e.send("text", text="And so to bed.", preset="aggressive")
        second = await e.until("segment_complete")
        await e.send("close")
        done = await e.until("done")
    assert e.types == ["stream_created", "segment_complete", "segment_complete", "done"]
    assert (first["segment"], second["segment"], done["segments_generated"]) == (1, 2, 2)
    assert done["total_audio_ms"] == pytest.approx(milliseconds(e.audio, created["sample_rate"]), abs=0.1)
    assert 0 <= done["total_audio_ms"] - first["audio_ms"] - second["audio_ms"] < 100
    assert np.abs(np.frombuffer(e.audio, "<i2").astype(int)).max() > 3000
    assert e.audio[-2:] == b"\0\0"


async def test_frames_are_of_the_sizes_the_mode_and_preset_say(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", model="espeak")
        await e.send("text", text=TEXT)
        await e.until("segment_complete")
        frames = [len(x) for x in e.events if isinstance(x, bytes)]
        assert set(frames[:-1]) == {4096}
        assert frames[-1] <= 4096
        e.events.clear()
        await e.send("text", text=TEXT, mode="stream", preset="balanced")
        await e.until("segment_complete")
        frames = [len(x) for x in e.events if isinstance(x, bytes)]
        assert frames[0] == 6 * 1024 * 2
        assert set(frames[1:-1]) == {10 * 1024 * 2}


async def test_text_without_a_stream_makes_one(url: str) -> None:
    async with ear(url) as e:
        await e.send("text", text="Hello.")
        await e.until("segment_complete")
        await e.send("cancel")
        await e.send("text", text="Again.")
        await e.until("segment_complete")
        await e.send("close")
        await e.until("done")
        await e.send("text", text="And again.")
        await e.until("segment_complete")
    assert e.types.count("stream_created") == 3


async def test_ping_blank_text_and_idle_words(url: str) -> None:
    async with ear(url) as e:
        await e.send("init")
        await e.until("stream_created")
        for blank in ("", "   ", "\n"):
            await e.send("text", text=blank)
        await e.send("close")
        done = await e.until("done")
        assert (done["segments_generated"], done["total_audio_ms"]) == (0, 0)
        await e.send("close")
        await e.send("cancel")
        await e.send("ping")
        assert (await e.until("pong")) == {"type": "pong"}
    assert e.types == ["stream_created", "done", "pong"]


async def test_the_language_and_another_engine_are_heard(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="leo", language="de", sample_rate=16_000)
        assert (await e.until("stream_created"))["sample_rate"] == 16_000
        await e.send("init", model="flite", voice="awb")
        assert (await e.until("stream_created"))["sample_rate"] == 16_000
        await e.send("text", text="Hello.")
        assert (await e.until("segment_complete"))["audio_ms"] > 200


@pytest.mark.parametrize("model", ["espeak", "flite"])
async def test_word_timings_are_told_to_those_who_ask(url: str, model: str) -> None:
    async with ear(url) as e:
        await e.send("init", model=model, events=["words"])
        await e.send("text", text=TEXT)
        await e.until("segment_complete")
        await e.send("text", text="Good night.")
        complete = await e.until("segment_complete")
    told = [x for x in e.events if isinstance(x, dict) and x["type"] == "words"]
    first = [w for event in told if event["segment"] == 1 for w in event["words"]]
    second = [w for event in told if event["segment"] == 2 for w in event["words"]]
    assert [w["word"].strip(",.") for w in first] == TEXT.replace(".", "").replace(",", "").split()
    assert second[0]["word"] == "Good"
    assert first[-1]["end_ms"] <= second[0]["start_ms"] + 12.1
    assert complete["segment"] == 2


# what it mends


async def test_an_unknown_voice_or_language_is_an_error_at_once(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="nobody")
        error = await e.until("error")
        assert "Unknown voice 'nobody'" in error["message"]
        assert error["fatal"] is True
        await e.send("text", text="Not in any voice.")
        assert (await e.until("error"))["message"] == error["message"]
        await e.send("init", language="xx")
        assert "Unknown language 'xx'" in (await e.until("error"))["message"]
        await e.send("init", voice="aria")
        await e.until("stream_created")
    assert e.types == ["error", "error", "error", "stream_created"]


@pytest.mark.parametrize(
    "frame", ["nonsense", b"\0\1\2\3", "[1]", '"x"', '{"type": "wat"}', '{"type": ["x"]}', "{}", '{"type": "text"}',
              '{"type": "text", "text": 5}', '{"type": "init", "speed": "fast"}', "[" * 50_000],
)  # fmt: skip
async def test_nonsense_is_an_error_and_nothing_else_changes(url: str, frame: str | bytes) -> None:
    async with ear(url) as e:
        await e.socket.send(frame)
        error = await e.until("error")
        assert error["code"] == "bad_message"
        assert error["fatal"] is False
        await e.send("text", text="Still here.")
        await e.until("segment_complete")


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


# pace, limits, and clients that misbehave


async def test_a_pace_can_be_asked_for() -> None:
    async with fake(speed=1000) as (_, _, url), ear(url) as e:
        await e.send("init", lead_ms=400)
        await e.send("text", text="word " * 50)  # 10 s
        await e.first_audio()
        await e.quiet(0.5)
        assert milliseconds(e.audio, 16_000) < 400 + 1000


async def test_a_client_that_does_not_read_stops_its_own_engine_only() -> None:
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    async with fake(speed=1000, rate=48_000) as (engine, studio, url), ear(url) as quick, AsyncExitStack() as stack:
        host, port = url.split("/")[2].split(":")
        small.connect((host, int(port)))
        slow = await stack.enter_async_context(ear(url, sock=small))
        slow.socket.transport.pause_reading()
        await slow.send("text", text=" ".join(f"w{n}" for n in range(9_000)))  # half an hour
        for _ in range(3):
            await quick.send("text", text="hello there")
            await quick.until("segment_complete")
        await until(lambda: not studio.default.admission.running, 20)
        made = len(engine.said)
        await asyncio.sleep(0.2)
        assert len(engine.said) - made <= 1
        slow.socket.transport.abort()
        await until(lambda: engine.open_now == 1)  # the other one's


async def test_one_that_vanishes_in_the_middle_frees_the_engine() -> None:
    async with fake() as (engine, studio, url):
        async with ear(url) as e:
            await e.send("text", text="word " * 200)
            await e.first_audio()
            e.socket.transport.abort()
        await until(lambda: not engine.speaking and not engine.open_now)
        assert studio.default.admission.running == 0


async def test_beyond_what_the_engine_carries_a_client_waits_and_then_is_told_when_to_come_back() -> None:
    async with fake(streams=1, waiting=1) as (_, studio, url):
        admission = studio.default.admission
        async with ear(url) as patient, ear(url) as refused:
            async with admission.stream("x") as stream, stream.turn():
                await patient.send("text", text="at last")
                await until(lambda: admission.queued == 1)
                await refused.send("text", text="too many")
                error = await refused.until("error")
                assert error["code"] == "engine_busy"
                assert error["retry_after"] >= 1
                with pytest.raises(ConnectionClosed) as closed:
                    await refused.until("never")
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
            await patient.until("segment_complete")
            assert words(patient.audio) == ["at", "last"]


async def test_more_sockets_than_there_is_room_for_and_strangers_are_refused() -> None:
    async with fake(sockets=1) as (_, _, url), ear(url) as first:
        await first.send("ping")
        await first.until("pong")
        async with ear(url) as second:
            assert (await second.until("error"))["code"] == "full"
            with pytest.raises(ConnectionClosed, match="1013"):
                await second.until("never")
    async with fake(allowed=lambda connection: False) as (_, _, url), ear(url) as stranger:
        assert (await stranger.until("error"))["code"] == "unauthorized"
        with pytest.raises(ConnectionClosed, match="1008"):
            await stranger.until("never")


async def test_too_much_text_is_refused_and_what_was_taken_is_said() -> None:
    async with fake(speed=1000) as (_, _, url), ear(url) as e:
        await e.send("text", text="fine")
        await e.send("text", text="x" * 100_001)
        error = await e.until("error")
        assert (error["code"], error["fatal"]) == ("too_long", False)
        await e.send("close")
        assert (await e.until("done"))["segments_generated"] == 1


async def test_many_clients_at_once_hear_each_their_own_words() -> None:
    async def one(url: str, number: int) -> None:
        async with ear(url) as e:
            text = " ".join(f"c{number}w{i}" for i in range(6))
            for half in (text[: len(text) // 2], text[len(text) // 2 :]):
                await e.send("text", text=half.strip())
            await e.send("close")
            await e.until("done")
            assert "".join(words(e.audio)) == text.replace(" ", "")

    async with fake(streams=3) as (engine, studio, url):
        await asyncio.gather(*(one(url, number) for number in range(12)))
        assert engine.open_now == 0
        assert studio.default.admission.running == studio.default.admission.queued == 0


async def test_no_task_outlives_its_connection() -> None:
    async with fake() as (_, _, url):
        async with ear(url) as e:
            await e.send("ping")
            await e.until("pong")
        await asyncio.sleep(0.05)
        before = len(asyncio.all_tasks())
        for _ in range(5):
            async with ear(url) as e:
                await e.send("text", text="word " * 50)
                await e.send("close")
                await e.send("text", text="word " * 50)
                await e.first_audio()
        await until(lambda: len(asyncio.all_tasks()) <= before)
