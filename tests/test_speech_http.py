"""`/v1/audio/*` over real sockets, with the real embedded engines."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import av
import httpx
import numpy as np
import openai
import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response

from server.audio import milliseconds, read_wav
from server.http import speech
from server.http.asked import body, guarded
from server.http.utterance import Utterance
from server.pipelines.studio import Studio
from server.pipelines.tts import espeak, flite
from tests import services
from tests.services import serving, until

TEXT = "Good evening. It is half past nine, and the moon is up."
LONG = " ".join([TEXT] * 20)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def studio() -> AsyncIterator[Studio]:
    async with services.studio(espeak=espeak.create(), flite=flite.create()) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(studio: Studio) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(speech.routes(studio, models=lambda: ["llm-1"])) as url, httpx.AsyncClient(base_url=url) as made:
        yield made


# what comes back


async def test_a_whole_utterance_as_the_reference_servers_gave_it(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": TEXT, "voice": "aria", "language": "en"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "audio/pcm"
    assert answer.headers["x-sample-rate"] == "22050"
    assert answer.headers["x-channels"] == "1"
    assert answer.headers["x-encoding"] == "pcm_s16le"
    assert int(answer.headers["x-duration-ms"]) == pytest.approx(milliseconds(answer.content, 22_050), abs=1)
    assert 2000 < int(answer.headers["x-duration-ms"]) < 8000
    assert np.abs(np.frombuffer(answer.content, "<i2").astype(int)).max() > 3000


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus", "aac"])
async def test_every_format_is_what_it_says(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": TEXT, "response_format": name, "model": "flite"})
    assert answer.status_code == 200
    with av.open(io.BytesIO(answer.content)) as container:
        frames = list(container.decode(audio=0))
        codec = container.streams.audio[0].codec_context.name
        rate = container.streams.audio[0].codec_context.sample_rate
    assert codec == {"wav": "pcm_s16le", "mp3": "mp3float"}.get(name, name)
    assert sum(frame.samples for frame in frames) / rate == pytest.approx(4, abs=1.5)
    assert int(answer.headers["x-sample-rate"]) == 16_000
    assert answer.headers["x-engine"] == "flite"


async def test_wav_is_a_real_wav_at_the_rate_asked_for(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/audio/speech", json={"input": TEXT, "response_format": "wav", "sample_rate": 24_000}
    )
    pcm, rate = read_wav(answer.content)
    assert rate == 24_000
    assert int(answer.headers["x-duration-ms"]) == pytest.approx(milliseconds(pcm, rate), abs=1)


async def test_openai_s_own_client_is_understood(client: httpx.AsyncClient) -> None:
    async with openai.AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="none") as api:
        async with api.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts",
            voice="alloy",
            input=TEXT,
            response_format="pcm",
            speed=1.5,
            instructions="Cheerful.",
        ) as answer:
            fast = await answer.read()
        slow = await api.audio.speech.create(model="tts-1", voice="nova", input=TEXT, response_format="pcm", speed=0.8)
        assert len(fast) < 0.7 * len(slow.content)
        assert {"espeak", "flite", "llm-1"} <= {model.id async for model in api.models.list()}
        assert (await api.models.retrieve("flite")).id == "flite"
        with pytest.raises(openai.NotFoundError, match="The model 'gpt' does not exist"):
            await api.models.retrieve("gpt")
        with pytest.raises(openai.BadRequestError, match="Unknown voice 'nobody'"):
            await api.audio.speech.create(model="tts-1", voice="nobody", input=TEXT)


async def test_the_stream_comes_in_chunks_of_the_size_asked_for(client: httpx.AsyncClient) -> None:
    asked = {"input": LONG, "first_chunk_frames": 4, "chunk_size_frames": 8, "overlap_frames": 2}
    async with client.stream("POST", "/v1/audio/speech/stream", json=asked) as answer:
        assert answer.headers["content-type"] == "audio/pcm"
        assert "x-duration-ms" not in answer.headers
        assert answer.headers["transfer-encoding"] == "chunked"
        data = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert milliseconds(data, 22_050) > 40_000
    whole = await client.post("/v1/audio/speech", json={"input": LONG})
    assert abs(milliseconds(whole.content, 22_050) - milliseconds(data, 22_050)) < 5000  # segments overlap as asked


@pytest.mark.parametrize("preset", ["aggressive", "balanced", "conservative", "made up"])
async def test_presets_are_taken(client: httpx.AsyncClient, preset: str) -> None:
    answer = await client.post("/v1/audio/speech/stream", json={"input": TEXT, "preset": preset})
    assert answer.status_code == 200
    assert milliseconds(answer.content, 22_050) > 2000


@pytest.mark.parametrize("form", ["sse", "ndjson"])
@pytest.mark.parametrize("model", ["espeak", "flite"])
async def test_word_timings_come_with_the_audio(client: httpx.AsyncClient, form: str, model: str) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": TEXT, "stream_format": form, "model": model})
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    assert answer.headers["content-type"].startswith(
        {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}[form]
    )
    events = [json.loads(line) for line in lines]
    pcm = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    told = [word for e in events if e["type"] == "speech.audio.words" for word in e["words"]]
    assert [w["word"].strip(".,") for w in told] == TEXT.replace(".", "").replace(",", "").split()
    assert all(TEXT[w["start"] : w["end"]] == w["word"] for w in told)
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["duration_ms"] == pytest.approx(milliseconds(pcm, int(answer.headers["x-sample-rate"])), abs=1)
    assert told[-1]["end_ms"] <= events[-1]["duration_ms"] + 1


async def test_events_too_come_in_chunks_of_the_size_asked_for(client: httpx.AsyncClient) -> None:
    asked = {"input": TEXT, "stream_format": "ndjson", "first_chunk_frames": 4, "chunk_size_frames": 8}
    answer = await client.post("/v1/audio/speech/stream", json=asked)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    events = [json.loads(line) for line in answer.text.splitlines()]
    sizes = [len(base64.b64decode(e["audio"])) // 2 for e in events if e["type"] == "speech.audio.delta"]
    assert (sizes[0], {*sizes[1:-1]}) == (4 * 1024, {8 * 1024})
    assert sum(e["type"] == "speech.audio.words" for e in events) > 2
    assert events[-1]["type"] == "speech.audio.done"


async def test_events_may_carry_a_compressed_format(client: httpx.AsyncClient) -> None:
    asked = {"input": TEXT, "stream_format": "ndjson", "response_format": "mp3"}
    events = [json.loads(line) for line in (await client.post("/v1/audio/speech", json=asked)).text.splitlines()]
    data = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.audio[0].codec_context.name == "mp3float"


@pytest.mark.parametrize("language", ["EN", "en-US", "en_GB", "de-AT", "zh-TW", "zh", "vi", "no"])
async def test_languages_go_by_the_names_clients_know_them_by(client: httpx.AsyncClient, language: str) -> None:
    answer = await client.post("/v1/audio/speech", json={"input": "Hello 你好", "language": language})
    assert answer.status_code == 200
    assert milliseconds(answer.content, 22_050) > 300


# what is refused


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"input": "Hi", "voice": "X"}, 400, "Unknown voice 'X'. Available: ["),
        ({"input": "Hi", "language": "xx"}, 400, "Unknown language 'xx'. Available: ["),
        ({"input": "  "}, 400, "Empty input text"),
        ({"input": "Hi", "response_format": "aiff"}, 400, "unknown format 'aiff'"),
        ({"input": "x" * 20_001}, 413, "20000 are allowed"),
        ({}, 422, "input"),
        ({"input": "Hi", "speed": 9}, 422, "speed"),
        ({"input": "Hi", "sample_rate": 1}, 422, "sample_rate"),
        ([], 422, "'Input should be an object'"),
        ("Hi", 422, "'Input should be an object'"),
    ],
)
async def test_what_cannot_be_done_is_said(client: httpx.AsyncClient, asked: object, status: int, said: str) -> None:
    for path in ("/v1/audio/speech", "/v1/audio/speech/stream"):
        answer = await client.post(path, json=asked)
        if "format" in said and path.endswith("stream"):
            continue
        assert answer.status_code == status
        assert said in str(answer.json()["detail"])


async def test_null_is_the_same_as_nothing(client: httpx.AsyncClient) -> None:
    fields = ("voice", "model", "language", "speed", "sample_rate", "preset", "first_chunk_frames", "overlap_frames")
    answer = await client.post("/v1/audio/speech/stream", json={"input": TEXT, **dict.fromkeys(fields)})
    assert (answer.status_code, milliseconds(answer.content, 22_050) > 2000) == (200, True)
    voice = {"input": TEXT, "voice": {"id": None}}
    assert (await client.post("/v1/audio/speech", json=voice)).status_code == 200
    told = (await client.post("/v1/audio/speech", json={"input": None})).json()
    assert told["error"]["message"] == "input: Field required"


async def test_a_field_of_the_wrong_kind_is_said_in_both_ways(client: httpx.AsyncClient) -> None:
    told = (await client.post("/v1/audio/speech", json={"input": "Hi", "speed": 9})).json()
    assert told["detail"][0]["loc"] == ["body", "speed"]
    assert told["error"]["message"].startswith("speed: ")
    assert told["error"]["code"] == "bad_message"


async def test_half_a_character_is_no_harm(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/audio/speech", content=rb'{"input": "Hi", "voice": "\ud800"}')
    assert "Unknown voice '\ufffd'" in answer.json()["detail"]
    for half in (rb"\ud800", b"\xed\xa0\x80"):
        said = await client.post(
            "/v1/audio/speech", content=b'{"input": "Kind of' + half + b'the same.", "stream_format": "ndjson"}'
        )
        assert json.loads(said.text.splitlines()[-1])["duration_ms"] > 500


async def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_failure() -> None:
    async def endpoint(request: Request) -> Response:
        await body(request, Utterance)
        raise AssertionError("it was never complete")

    parts: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return parts.pop(0)

    answer = await guarded(lambda connection: True)(endpoint)(Request({"type": "http"}, receive))
    assert answer.status_code == 499


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"input": NaN}'])
async def test_nonsense_is_an_answer_not_a_crash(client: httpx.AsyncClient, raw: bytes) -> None:
    answer = await client.post("/v1/audio/speech", content=raw)
    assert answer.status_code in (400, 422)
    assert (await client.post("/v1/audio/speech", json={"input": "Fine."})).status_code == 200


async def test_a_body_too_large_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/audio/speech", content=b'{"input": "' + b"x" * 2_000_000 + b'"}')
    assert answer.status_code == 413
    assert "larger than" in answer.json()["detail"]


async def test_without_the_token_nothing_is_done(studio: Studio) -> None:
    def allowed(connection: object) -> bool:
        return False

    async with serving(speech.routes(studio, allowed=allowed)) as url, httpx.AsyncClient(base_url=url) as client:
        for answer in (await client.post("/v1/audio/speech", json={"input": "Hi"}), await client.get("/v1/models")):
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"


async def test_a_listener_that_reads_slowly_holds_nobody_up(studio: Studio) -> None:
    """He stops reading: what is made for him ends at the socket's buffer, and others are served."""
    async with serving(speech.routes(studio)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        body = json.dumps({"input": LONG * 10, "response_format": "pcm", "stream_format": "audio"}).encode()
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        async with httpx.AsyncClient(base_url=url) as client, asyncio.timeout(10):
            answers = [await client.post("/v1/audio/speech", json={"input": TEXT}) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: not studio.default.admission.running)
        writer.close()


# what there is


async def test_the_voices_and_the_configuration_are_listed(client: httpx.AsyncClient) -> None:
    voices = (await client.get("/v1/audio/voices")).json()["voices"]
    assert {"aria", "slt", "en-us"} <= {voice["id"] for voice in voices}
    config = (await client.get("/v1/audio/config")).json()
    assert config["sample_rate"] == 22_050
    assert config["channels"] == 1
    assert config["encoding"] == "pcm_s16le"
    assert {"john", "sofia", "aria", "jason", "leo"} <= set(config["voices"])
    assert len(config["voices"]) < 60  # of espeak's own there are too many to choose from
    assert {"en", "es", "de", "fr", "vi", "it", "zh", "en-gb"} <= set(config["languages"])
    models = (await client.get("/v1/models")).json()
    assert models["object"] == "list"
    assert [m["id"] for m in models["data"]] == ["espeak", "flite", "llm-1"]
