"""`/ws/tts/stream` over a real socket: pace, limits, and clients that misbehave."""

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import ConnectionClosed

from server.audio import milliseconds
from server.ws import speech
from tests.fakes import words
from tests.services import until
from tests.speech_ear import ear, fake


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


async def admitted(url: str) -> bool:
    async with ear(url) as e:
        await e.send("ping")
        return (await e.until("pong", "error"))["type"] == "pong"


async def test_more_sockets_than_there_is_room_for_and_strangers_are_refused() -> None:
    async with fake(sockets=1) as (_, _, url), ear(url) as first:
        await first.send("ping")
        await first.until("pong")
        async with ear(url) as second:
            assert (await second.until("error"))["code"] == "full"
            with pytest.raises(ConnectionClosed, match="1013"):
                await second.until("never")
        await first.socket.close()
        async with asyncio.timeout(5):
            while not await admitted(url):  # who leaves makes room
                pass
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


async def test_what_has_been_said_makes_room_for_more() -> None:
    async with fake(speed=1000) as (_, _, url), ear(url) as e:
        for _ in range(3):
            await e.send("text", text="fine" + " " * 60_000)
            await e.until("segment_complete", "error")
        assert e.types == ["stream_created"] + ["segment_complete"] * 3


async def test_so_many_streams_may_wait_and_no_more() -> None:
    async with fake() as (_, _, url), ear(url) as e:
        await e.send("text", text="a long one to begin with")
        await e.send("close")
        for _ in range(speech.WAITING):
            await e.send("text", text="next")
            await e.send("close")
        error = await e.until("error")
        assert (error["code"], error["fatal"]) == ("too_many", False)
        await e.send("cancel")
        await e.send("text", text="fine")
        await e.send("close")
        await e.until("done")
    assert words(e.audio)[-1] == "fine"
    assert e.types.count("error") == 1


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
