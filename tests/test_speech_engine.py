"""`/v1/audio/*` over real sockets, before an engine that is slow, fails, or has no place left."""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import httpx
import pytest
import pytest_asyncio

from server.http import speech
from server.pipelines import encoders
from server.pipelines.engines import Speech, Voice
from server.pipelines.studio import Studio
from tests.fakes import FakeSpeaker, FakeTTS, words
from tests.services import serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def fake() -> AsyncIterator[tuple[FakeTTS, Studio, httpx.AsyncClient]]:
    """A slow engine: 20 ms to its first sound, then twice real time, two streams at once."""
    engine = FakeTTS(speed=4)
    engine.streams = 2
    company = Studio({"fake": engine}, waiting=3)
    async with serving(speech.routes(company)) as url, httpx.AsyncClient(base_url=url, timeout=20) as made:
        yield engine, company, made


async def test_audio_is_sent_while_it_is_made(fake: tuple[FakeTTS, Studio, httpx.AsyncClient]) -> None:
    engine, _, client = fake
    asked = {"input": "one two three four five six seven eight", "response_format": "pcm", "stream_format": "audio"}
    async with client.stream("POST", "/v1/audio/speech", json=asked) as answer:
        data = b""
        async for chunk in answer.aiter_raw():
            if not data:
                assert engine.speaking == 1  # it is still at it
            data += chunk
    assert words(data) == asked["input"].split()


async def test_an_engine_that_fails_at_once_is_a_500(fake: tuple[FakeTTS, Studio, httpx.AsyncClient]) -> None:
    _, company, client = fake
    for form in ("audio", "sse", "ndjson"):
        answer = await client.post("/v1/audio/speech", json={"input": "EXPLODE", "stream_format": form})
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "tts_failed"
    assert company.default.admission.running == 0


async def test_an_engine_that_fails_midway_does_not_pass_half_for_the_whole(
    fake: tuple[FakeTTS, Studio, httpx.AsyncClient],
) -> None:
    engine, _, client = fake
    asked = {"input": "One two three. Then EXPLODE now.", "stream_format": "audio"}
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/v1/audio/speech", json=asked)
    answer = await client.post("/v1/audio/speech", json=asked | {"stream_format": "ndjson"})
    assert json.loads(answer.text.splitlines()[-1])["error"]["code"] == "tts_failed"
    assert engine.open_now == 0


class Buggy(FakeTTS):
    """Breaks in the second sentence, in a way that nobody foresaw."""

    def open(self, voice: Voice) -> FakeSpeaker:
        speaker, whole = super().open(voice), FakeSpeaker.speak

        async def speak(text: str) -> AsyncGenerator[Speech, None]:
            if "two" in text:
                raise ValueError("what?")
            async with aclosing(whole(speaker, text)) as pieces:
                async for piece in pieces:
                    yield piece

        speaker.speak = speak  # type: ignore[method-assign]
        return speaker


@pytest.mark.parametrize("form", [None, "audio", "sse", "ndjson"])
async def test_a_failure_that_nobody_foresaw_is_told_as_any_other(form: str | None) -> None:
    engine = Buggy(speed=20)
    async with serving(speech.routes(Studio({"fake": engine}))) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/audio/speech", json={"input": "Say two.", "stream_format": form})
        error = {"message": "internal error: ValueError", "type": "server_error", "code": "internal"}
        assert (answer.status_code, answer.json()["error"]) == (500, error)
        if form in ("sse", "ndjson"):
            late = await client.post("/v1/audio/speech", json={"input": "Say one. Say two.", "stream_format": form})
            last = late.text.strip().splitlines()[-1].removeprefix("data: ")
            assert json.loads(last)["error"]["code"] == "internal"
    assert engine.open_now == 0


async def test_an_encoder_is_opened_where_it_keeps_nobody_waiting(
    fake: tuple[FakeTTS, Studio, httpx.AsyncClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one loads FFmpeg, every one of flac's takes milliseconds."""
    at, library = list[threading.Thread](), encoders._library
    monkeypatch.setattr(encoders, "_library", lambda: at.append(threading.current_thread()) or library())
    answer = await fake[2].post("/v1/audio/speech", json={"input": "one", "response_format": "flac"})
    assert (answer.status_code, answer.headers["x-sample-rate"]) == (200, "16000")
    assert at
    assert threading.main_thread() not in at


async def test_a_listener_that_vanishes_frees_the_engine(fake: tuple[FakeTTS, Studio, httpx.AsyncClient]) -> None:
    engine, company, client = fake
    async with client.stream("POST", "/v1/audio/speech/stream", json={"input": "word " * 200}) as answer:
        await anext(answer.aiter_raw())
        assert engine.speaking == 1
    await until(lambda: not engine.speaking and not engine.open_now)
    assert company.default.admission.running == 0


async def test_one_that_vanishes_while_it_waits_leaves_the_queue(
    fake: tuple[FakeTTS, Studio, httpx.AsyncClient],
) -> None:
    engine, company, client = fake
    admission = company.default.admission
    async with admission.stream("a") as one, admission.stream("b") as two, one.turn(), two.turn():
        waiting = asyncio.ensure_future(client.post("/v1/audio/speech", json={"input": "Hello"}))
        await until(lambda: admission.queued == 1)
        waiting.cancel()
        await until(lambda: admission.queued == 0)
    assert engine.open_now == 0


async def test_beyond_what_the_engine_carries_requests_wait_and_then_are_told_when_to_come_back(
    fake: tuple[FakeTTS, Studio, httpx.AsyncClient],
) -> None:
    _, company, client = fake
    admission = company.default.admission
    async with admission.stream("a") as one, admission.stream("b") as two:
        async with one.turn(), two.turn():
            waiting = [asyncio.ensure_future(client.post("/v1/audio/speech", json={"input": "hi"})) for _ in range(3)]
            await until(lambda: admission.queued == 3)
            refused = await client.post("/v1/audio/speech", json={"input": "hi"})
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "engine_busy"
        assert [(await answer).status_code for answer in waiting] == [200] * 3


async def test_many_at_once_get_each_their_own_words(fake: tuple[FakeTTS, Studio, httpx.AsyncClient]) -> None:
    _, company, client = fake
    company.default.admission.waiting = 20
    texts = [f"n{number} says w{number} today" for number in range(12)]

    async def ask(text: str) -> list[str]:
        return words((await client.post("/v1/audio/speech/stream", json={"input": text})).content)

    assert await asyncio.gather(*map(ask, texts)) == [text.split() for text in texts]
