"""Speech over HTTP that fails: what is said of it, and that it ends."""

import json
import socket
import struct
from typing import Any

import pytest

from server.audio import wav
from server.errors import ConfigError, TTSError
from server.pipelines.engines import Voice
from server.pipelines.loading import load
from tests.speech_server import (
    EVENTS,
    RATE,
    Server,
    b64,
    engine,
    odd,
    said,
    serving,
    sse,
    tone,
)


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (401, "tts_auth", "api_key"),
        (403, "tts_auth", "api_key"),
        (404, "tts_failed", "base_url and model"),
        (400, "tts_failed", "model, voice"),
        (422, "tts_failed", "model, voice"),
        (429, "tts_rate_limit", "quota"),
        (500, "tts_failed", "the server behind"),
        (503, "tts_failed", "the server behind"),
    ],
)
async def test_a_refusal_says_what_to_check(status: int, code: str, mend: str) -> None:
    body = json.dumps({"error": {"message": "the server's own words"}}).encode()
    with pytest.raises(TTSError, match=f"{status}.*{mend}.*the server's own words") as told:
        await said(Server(status=status, headers={"content-type": "application/json"}, body=[body]))
    assert told.value.code == code


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"[1]", b'{"detail": [{"loc": 1}]}', b'"no"', b"null"]
)
async def test_a_refusal_in_any_words(body: bytes) -> None:
    with pytest.raises(TTSError, match="502"):
        await said(Server(status=502, body=[body]))


async def test_nobody_there() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{sock.getsockname()[1]}/v1"
    async with engine(base_url=nobody) as tts:
        with pytest.raises(TTSError, match=r"nothing answers.*base_url") as told:
            await anext(tts.open(Voice()).speak("Hello."))
    assert told.value.code == "tts_unreachable"


async def test_a_server_that_dies_in_the_middle() -> None:
    got: list[bytes] = []
    async with serving(Server(body=odd(tone()), after="die")) as server, engine(base_url=server.url) as tts:

        async def listen() -> None:
            async for piece in tts.open(Voice()).speak("Hello."):
                got.append(piece.pcm)

        with pytest.raises(TTSError, match="in the middle of the speech"):
            await listen()
        assert b"".join(got) == tone()  # what had come is spoken
        server.after = ""
        assert [piece async for piece in tts.open(Voice()).speak("Again.")]


async def test_a_server_that_stalls() -> None:
    with pytest.raises(TTSError, match="timeout") as told:
        await said(Server(body=[tone()], after="stall"), timeout=0.2)
    assert told.value.code == "tts_timeout"


FLOAT_WAV = b"RIFF0000WAVE" + struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32) + b"data\4\0\0\0"


@pytest.mark.parametrize(
    ("headers", "body", "told"),
    [
        ({"content-type": "audio/mpeg"}, [b"ID3"], "audio/mpeg, not PCM"),
        ({"content-type": "application/json"}, [b"{}"], "application/json, not PCM"),
        ({"content-type": "audio/pcm"}, [], "no sound"),
        ({"content-type": "audio/wav"}, [wav(b"", RATE)[:30]], "no sound"),
        ({"content-type": "audio/wav"}, [FLOAT_WAV], "32 bits"),
        (EVENTS, sse([{"error": {"message": "out of memory"}}]), "out of memory"),
        (EVENTS, sse(["{no json"]), "no JSON"),
        (EVENTS, sse(["[1, 2]"]), "no object"),
        (EVENTS, sse([{"audio": "%%%"}]), "base64"),
        (EVENTS, sse([{"type": "response.output_text.delta", "delta": "words"}, "[DONE]"]), "no sound"),
    ],
)
async def test_what_is_no_speech(headers: dict[str, str], body: list[bytes], told: str) -> None:
    with pytest.raises(TTSError, match=told):
        await said(Server(headers=headers, body=body))


@pytest.mark.parametrize(("channels", "rate"), [(0, RATE), (33, RATE), (1, 0), (1, 3_999), (1, 500_000)])
async def test_what_no_speech_has_is_refused(channels: int, rate: int) -> None:
    """Were it believed, a moment would become an hour, or nothing."""
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, 2 * rate, 2, 16) + b"data\xff\xff\xff\xff"
    with pytest.raises(TTSError, match=f"sound at {rate} Hz in {channels} channels"):
        await said(Server(headers={"content-type": "audio/wav"}, body=[b"RIFF0000WAVE" + head + tone()]))


async def test_a_rate_in_a_header_that_no_speech_has_is_refused() -> None:
    with pytest.raises(TTSError, match="sound at 7 Hz"):
        await said(Server(headers={"content-type": "audio/pcm", "x-sample-rate": "7"}, body=[tone()]))


@pytest.mark.parametrize("told", [{"error": {"message": "boom"}}, {"message": "boom"}], ids=str)
async def test_an_error_in_the_middle_of_events_is_not_an_end(told: dict[str, Any]) -> None:
    events = [{"type": "speech.audio.delta", "audio": b64(tone())}, {"type": "speech.audio.error"} | told]
    with pytest.raises(TTSError, match="boom"):
        await said(Server(headers=EVENTS, body=sse(events)))


async def test_a_server_that_leads_elsewhere_is_told_with_where() -> None:
    there = {"location": "https://elsewhere.test/api/v1/audio/speech"}
    with pytest.raises(TTSError, match=r"leads on to https://elsewhere.test/api/v1: set that as \[tts\] base_url"):
        await said(Server(status=308, headers=there))


async def test_half_a_character_is_left_out() -> None:
    server = Server(body=[tone()])
    assert await said(server, text="One \ud83d two.") == tone()
    assert server.seen[0]["input"] == "One  two."


@pytest.mark.parametrize("extra", ["x", [1]])
def test_further_fields_that_are_no_table_are_a_mistake_in_the_configuration(extra: object) -> None:
    with pytest.raises(ConfigError, match=r"voice\.options\.extra"):
        load("tts", "openai", {}).open(Voice(options={"extra": extra}))


async def test_an_engine_that_is_not_started_says_so() -> None:
    with pytest.raises(TTSError, match="not started"):
        await anext(load("tts", "openai", {}).open(Voice()).speak("Hello."))
