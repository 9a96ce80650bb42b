"""Transcription over HTTP, against a real server on loopback that answers well, badly, slowly or not at all."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from server.errors import ConfigError, STTError
from server.pipelines.loading import load
from tests.speech import noise, silence
from tests.transcription_server import TranscriptionServer, serving, until


@pytest.fixture
async def server():
    async with serving(TranscriptionServer()) as server:
        yield server


@asynccontextmanager
async def recognising(server, spoken="en", **options):
    engine = load("stt", "openai", {"base_url": server.url, "api_key": "sk-test", "retries": 0, **options})
    await engine.start()
    recogniser = engine.open(spoken)
    try:
        yield recogniser
    finally:
        await recogniser.close()
        await engine.stop()


async def test_a_turn_is_one_upload_of_all_its_audio(server):
    async with recognising(server, "en-US", model="whisper-1", prompt="Parley") as recogniser:
        for _ in range(10):
            assert await recogniser.feed(noise(100)) is None
        assert (await recogniser.finish()).text == "heard 1000 ms"
        await recogniser.feed(noise(500))
        assert (await recogniser.finish()).text == "heard 500 ms"
    expected = {"model": "whisper-1", "language": "en", "prompt": "Parley", "response_format": "json"}
    assert server.asked[0] == expected | {"ms": 1000, "key": "Bearer sk-test"}


@pytest.mark.parametrize(
    ("session", "setting", "sent"), [("auto", "", None), ("", "", None), ("en", "de", "de"), ("fr", "auto", None)]
)
async def test_the_language_is_the_settings_or_the_sessions(server, session, setting, sent):
    async with recognising(server, session, language=setting) as recogniser:
        await recogniser.feed(noise(200))
        await recogniser.finish()
    assert server.asked[0].get("language") == sent


async def test_what_was_asked_in_the_first_silence_is_the_final_text(server):
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(800, 0.1) + silence(160))
        peeked = await recogniser.peek()
        await recogniser.feed(silence(500))
        assert await recogniser.finish() == peeked
    assert [asked["ms"] for asked in server.asked] == [960]


async def test_speech_after_the_silence_is_heard_too(server):
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(800, 0.1) + silence(160))
        await recogniser.peek()
        await recogniser.feed(noise(300, 0.1))
        assert (await recogniser.finish()).text == "heard 1260 ms"


async def test_who_stops_waiting_can_still_be_answered(server):
    server.hold = asyncio.Event()
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(800, 0.1) + silence(160))
        peeking = asyncio.ensure_future(recogniser.peek())
        await until(lambda: server.asked)
        peeking.cancel()
        await asyncio.wait([peeking])
        server.hold.set()
        await recogniser.feed(silence(300))
        assert (await recogniser.finish()).text == "heard 960 ms"
    assert len(server.asked) == 1


async def test_forgetting_hangs_up(server):
    server.hold = asyncio.Event()
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(400))
        peeking = asyncio.ensure_future(recogniser.peek())
        await until(lambda: server.asked)
        await recogniser.reset()
        await asyncio.wait([peeking])
        assert peeking.cancelled()
        await until(lambda: server.left)
        server.hold = None
        await recogniser.feed(noise(700))
        assert (await recogniser.finish()).text == "heard 700 ms"


async def test_next_to_nothing_is_not_sent(server):
    async with recognising(server) as recogniser:
        assert (await recogniser.finish()).text == ""
        await recogniser.feed(noise(80))
        assert (await recogniser.finish()).text == ""
    assert server.asked == []


def refusal(status: int, message: str = "because", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers)


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (refusal(401, "no such key"), "stt_auth", r"\[stt\] api_key.*no such key"),
        (refusal(403), "stt_auth", r"\[stt\] api_key"),
        (refusal(404, "no such model"), "stt_bad_request", r"\[stt\] model.*no such model"),
        (refusal(400), "stt_bad_request", r"\[stt\] model"),
        (refusal(429), "stt_rate_limit", r"quota behind \[stt\] api_key"),
        (refusal(500, "out of memory"), "stt_failed", r"failed \(500\).*out of memory"),
        (PlainTextResponse("oops", 502), "stt_failed", r"502"),
        (PlainTextResponse("<html>"), "stt_failed", r"check \[stt\] base_url"),
        (JSONResponse({"result": 1}), "stt_failed", r"check \[stt\] base_url"),
    ],
)
async def test_a_refusal_says_what_mends_it_and_the_next_turn_is_heard(server, answer, code, words):
    server.answers = [answer]
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError, match=words) as caught:
            await recogniser.finish()
        assert caught.value.code == code
        assert "\n" not in str(caught.value)
        await recogniser.feed(noise(300))
        assert (await recogniser.finish()).text == "heard 300 ms"


async def test_a_peek_that_fails_is_tried_again_at_the_end(server):
    server.answers = [refusal(500)]
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError):
            await recogniser.peek()
        assert (await recogniser.finish()).text == "heard 200 ms"


async def test_a_short_failure_is_tried_again(server):
    server.answers = [refusal(503, **{"retry-after-ms": "1"})]
    async with recognising(server, retries=1) as recogniser:
        await recogniser.feed(noise(200))
        assert (await recogniser.finish()).text == "heard 200 ms"


async def test_a_server_that_dies_in_the_middle_of_its_answer(server):
    server.die = True
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError, match=r"\[stt\] base_url"):
            await recogniser.finish()
        server.die = False
        await recogniser.feed(noise(200))
        assert (await recogniser.finish()).text == "heard 200 ms"


async def test_a_server_that_is_too_slow(server):
    server.hold = asyncio.Event()
    async with recognising(server, timeout_s=0.2) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError, match="timeout_s") as caught:
            await recogniser.finish()
    assert caught.value.code == "stt_timeout"


async def test_a_long_wait_that_the_server_asks_for_ends_with_the_time_limit(server):
    server.answers = [refusal(429, **{"retry-after": "30"})]
    async with recognising(server, timeout_s=0.3, retries=3) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError) as caught:
            await recogniser.finish()
    assert caught.value.code == "stt_timeout"


async def test_no_server_at_all():
    async with serving(TranscriptionServer()) as gone:
        pass
    async with recognising(gone) as recogniser:
        await recogniser.feed(noise(200))
        with pytest.raises(STTError, match=r"start it, or set \[stt\] base_url") as caught:
            await recogniser.finish()
    assert caught.value.code == "stt_unreachable"


async def test_an_endless_utterance_keeps_its_last_two_minutes(server):
    async with recognising(server) as recogniser:
        for _ in range(130):
            await recogniser.feed(noise(1000))
        assert recogniser.dropped_ms == 10_000
        assert (await recogniser.finish()).text == "heard 120000 ms"


async def test_closing_hangs_up_and_leaves_no_task(server):
    server.hold = asyncio.Event()
    before = asyncio.all_tasks()
    async with recognising(server) as recogniser:
        await recogniser.feed(noise(400))
        peeking = asyncio.ensure_future(recogniser.peek())
        await until(lambda: server.asked)
    await asyncio.wait([peeking])
    await until(lambda: server.left)
    await until(lambda: not [task for task in asyncio.all_tasks() - before if "_timed" in repr(task)])


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 0), ("timeout_s", -1), ("retries", -1)])
def test_a_number_that_makes_no_sense_is_named(name: str, value: int):
    with pytest.raises(ConfigError, match=rf"^\[stt\] {name}: "):
        load("stt", "openai", {name: value})
