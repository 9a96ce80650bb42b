"""Speech over HTTP: real servers on loopback, each with the manners of one dialect."""

import asyncio
import base64
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from server.audio import wav
from server.errors import ConfigError
from server.pipelines.engines import Voice
from server.pipelines.loading import load
from server.pipelines.tts._ahead import ahead
from tests.speech_server import (
    EVENTS,
    RATE,
    Server,
    b64,
    engine,
    odd,
    said,
    serving,
    sounds_like_the_tone,
    sse,
    tone,
)


async def test_raw_pcm_whatever_the_pieces_of_the_network() -> None:
    assert await said(Server(body=odd(tone()))) == tone()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "audio/pcm", "x-sample-rate": "48000"},
        {"content-type": "audio/pcm;rate=48000"},
        {"content-type": "audio/L16; rate=48000; channels=1"},
        {"content-type": 'application/octet-stream; rate="48000"'},
    ],
)
async def test_the_server_s_rate_becomes_the_engine_s(headers: dict[str, str]) -> None:
    sounds_like_the_tone(await said(Server(headers=headers, body=odd(tone(48_000)))))


async def test_the_engine_s_rate_can_be_set() -> None:
    sounds_like_the_tone(await said(Server(body=odd(tone())), rate=16_000), rate=16_000)


async def test_two_channels_become_one() -> None:
    stereo = np.repeat(np.frombuffer(tone(), "<i2"), 2).tobytes()
    headers = {"content-type": "audio/pcm", "x-channels": "2"}
    assert await said(Server(headers=headers, body=odd(stereo))) == tone()


async def test_a_wav_loses_its_header() -> None:
    server = Server(headers={"content-type": "audio/wav"}, body=odd(wav(tone(), RATE)))
    assert await said(server, response_format="wav") == tone()
    assert server.seen[0]["response_format"] == "wav"


async def test_a_wav_that_claims_to_be_pcm_loses_its_header_too() -> None:
    sounds_like_the_tone(await said(Server(body=odd(wav(tone(16_000), 16_000)))))


async def test_a_wav_that_does_not_know_its_length_yet() -> None:
    header = wav(tone(), RATE)[:44]
    header = header[:4] + struct.pack("<I", 0xFFFFFFFF) + header[8:40] + struct.pack("<I", 0xFFFFFFFF)
    assert await said(Server(body=odd(header + tone()))) == tone()


async def test_what_follows_the_sound_in_a_wav_is_not_played() -> None:
    assert await said(Server(body=odd(wav(tone(), RATE) + b"LIST\x04\x00\x00\x00INFO"))) == tone()


@pytest.mark.parametrize(
    "event",
    [
        lambda data: {"type": "speech.audio.delta", "audio": b64(data)},
        lambda data: {"type": "response.audio.delta", "delta": b64(data)},
        lambda data: {"audio": {"data": b64(data)}},
        lambda data: {"choices": [{"index": 0, "delta": {"content": "x", "audio": {"data": b64(data)}}}]},
    ],
)
async def test_events(event: Callable[[bytes], dict[str, Any]]) -> None:
    end = [{"type": "speech.audio.done", "usage": {"input_tokens": 3}}, "[DONE]"]
    body = b"".join([b": a comment\n\n", *sse([event(data) for data in odd(tone())] + end)])
    assert await said(Server(headers=EVENTS, body=odd(body)), stream_format="sse") == tone()


async def test_events_that_are_a_wav_each() -> None:
    deltas = [
        {"type": "speech.audio.delta", "audio": b64(wav(tone()[i : i + 4800], RATE))} for i in range(0, 24_000, 4800)
    ]
    assert await said(Server(headers=EVENTS, body=sse(deltas))) == tone()


# Requests


async def test_what_is_asked_for() -> None:
    server = Server(body=[tone()])
    voice = Voice(name="nova", instructions="Whisper.", speed=1.5, options={"variant": "f3", "extra": {"seed": 7}})
    options = {"model": "m", "extra": {"stream": True}, "stream_format": "audio", "api_key": "secret"}
    await said(server, voice, "Hello.", **options)
    assert server.keys == ["Bearer secret"]
    assert server.seen == [
        {
            "input": "Hello.",
            "model": "m",
            "voice": "nova",
            "instructions": "Whisper.",
            "speed": 1.5,
            "seed": 7,
            "stream": True,
            "stream_format": "audio",
            "response_format": "pcm",
        }
    ]


async def test_what_the_character_leaves_open_is_the_engine_s() -> None:
    server = Server(body=[tone()])
    await said(server, voice=Voice(), model="m")
    assert server.keys == [""]
    assert server.seen == [{"input": "Hello there.", "model": "m", "voice": "alloy", "response_format": "pcm"}]


async def test_a_description_becomes_instructions() -> None:
    server = Server(body=[tone()])
    await said(server, Voice(method="description", speaker="An old sailor", scene="A storm"))
    assert server.seen[0]["instructions"] == "An old sailor. A storm"


async def test_a_recording_goes_along(tmp_path: Path) -> None:
    recording = tmp_path / "me.wav"
    recording.write_bytes(wav(tone(), RATE))
    server = Server(body=[tone()])
    await said(server, Voice(method="clone", reference=recording, transcript="This is me."))
    assert base64.b64decode(server.seen[0]["ref_audio"].partition(",")[2]) == wav(tone(), RATE)
    assert server.seen[0]["ref_text"] == "This is me."


async def test_what_cannot_be_spoken_is_not_asked_for() -> None:
    server = Server(body=[tone()])
    assert await said(server, text="😀!") == b""
    assert server.seen == []


async def test_an_address_without_a_path_gets_the_usual_one() -> None:
    async with serving(Server(body=[tone()])) as server, engine(base_url=server.url.removesuffix("/v1")) as tts:
        assert [piece.pcm async for piece in tts.open(Voice()).speak("Hello.")]


@pytest.mark.parametrize("address", ["", "localhost:8000", "ftp://host", "http://"])
def test_an_address_that_is_none_is_a_mistake_in_the_configuration(address: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        load("tts", "openai", {"base_url": address})


def test_a_speed_that_no_server_takes_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="speed"):
        load("tts", "openai", {}).open(Voice(speed=9))


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 0), ("timeout", -1), ("timeout", float("nan")), ("rate", 0), ("rate", 400_000), ("speed", 0)],
)
def test_a_number_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^\[tts\] {name}: "):
        load("tts", "openai", {name: value})


async def test_closing_the_stream_closes_the_request() -> None:
    async with serving(Server(body=[tone()], after="stall")) as server, engine(base_url=server.url) as tts:
        async with aclosing(tts.open(Voice()).speak("Hello.")) as speech:
            await anext(speech)
            assert not server.gone.is_set()
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_cancelling_the_listener_closes_the_request() -> None:
    async with serving(Server(after="stall")) as server, engine(base_url=server.url) as tts:
        listener = asyncio.create_task(anext(tts.open(Voice()).speak("Hello.")))
        await asyncio.wait_for(server.sent.wait(), 5)
        listener.cancel()
        await asyncio.wait([listener])
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_a_listener_who_pauses_lets_the_server_send_on_up_to_a_limit() -> None:
    read: list[int] = []
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[int, None]:
        try:
            for n in range(100):
                read.append(n)
                yield n
        finally:
            closed.set()

    async with aclosing(ahead(source(), 10)) as stream:
        assert await anext(stream) == 0
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(read) == 12  # one taken, ten in the buffer, one in hand
        assert [await anext(stream) for _ in range(50)] == list(range(1, 51))
    assert closed.is_set()
    assert len(read) < 70


async def test_several_at_once_do_not_mix() -> None:
    async def echo(request: Request) -> Response:
        count = len((await request.json())["input"])
        return StreamingResponse(iter(odd(tone(seconds=count / 10))), media_type="audio/pcm")

    server = Server()
    server.answer = echo  # type: ignore[method-assign]
    async with serving(server), engine(base_url=server.url) as tts:

        async def length(text: str) -> int:
            return sum([len(piece.pcm) async for piece in tts.open(Voice()).speak(text)])

        lengths = await asyncio.gather(*(length("x" * n) for n in range(1, 21)))
    assert lengths == [n * RATE // 10 * 2 for n in range(1, 21)]
