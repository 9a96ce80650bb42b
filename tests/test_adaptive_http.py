"""`/v1/tts/stream*` over real sockets: text in one request, its audio in another."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
import pytest_asyncio

from server.audio import milliseconds
from server.http import adaptive
from server.pipelines.tts import espeak
from tests import services
from tests.adaptive_client import STORY, Fake, create, read, state
from tests.fakes import words
from tests.services import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        services.studio(espeak=espeak.create()) as studio,
        serving(adaptive.routes(studio)) as url,
        httpx.AsyncClient(base_url=url) as made,
    ):
        yield made


async def test_text_that_came_before_the_audio_was_asked_for_is_kept(client: httpx.AsyncClient) -> None:
    at = await create(client, voice="aria", language="en")
    for word in STORY.split(" "):
        answer = await client.post(f"{at}/append", json={"text": word + " "})
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert (await client.post(f"{at}/close")).json() == {"status": "closed"}
    answer = await client.get(f"{at}/audio")
    assert answer.headers["content-type"] == "audio/pcm"
    assert answer.headers["x-sample-rate"] == "22050"
    assert answer.headers["x-encoding"] == "pcm_s16le"
    assert milliseconds(answer.content, 22_050) > 4000
    assert np.abs(np.frombuffer(answer.content, "<i2").astype(int)).max() > 3000


@pytest.mark.parametrize(("form", "prefix"), [("ndjson", ""), ("sse", "data: ")])
async def test_words_come_with_the_audio_and_stand_where_they_were_appended(
    client: httpx.AsyncClient, form: str, prefix: str
) -> None:
    at = await create(client)
    await client.post(f"{at}/append", json={"text": "  " + STORY})
    await client.post(f"{at}/close")
    answer = await client.get(f"{at}/audio", params={"stream_format": form})
    events = [json.loads(line.removeprefix(prefix)) for line in answer.text.split("\n") if line]
    pcm = b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta")
    told = [word for e in events if e["type"] == "speech.audio.words" for word in e["words"]]
    whole = "  " + STORY
    assert all(whole[w["start"] : w["end"]] == w["word"] for w in told)
    said = " ".join(w["word"].strip(".,") for w in told)  # espeak tells "there was" as one
    assert said.split() == STORY.replace(".", "").replace(",", "").split()
    assert [w["start_ms"] for w in told] == sorted(w["start_ms"] for w in told)
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["duration_ms"] == pytest.approx(milliseconds(pcm, 22_050), abs=1)
    assert told[-1]["end_ms"] <= events[-1]["duration_ms"] + 1


async def test_a_client_may_ask_for_the_audio_first_and_then_send_the_text(client: httpx.AsyncClient) -> None:
    at = await create(client)
    async with client.stream("GET", f"{at}/audio") as answer:
        assert answer.status_code == 200  # the head is there before any text
        chunks = answer.aiter_raw()
        await client.post(f"{at}/append", json={"text": STORY})
        first = await anext(chunks)
        assert milliseconds(first, 22_050) < 400
        await client.post(f"{at}/close")
        assert milliseconds(first + b"".join([c async for c in chunks]), 22_050) > 4000


async def test_after_its_end_a_stream_says_so_and_is_not_forgotten_at_once(client: httpx.AsyncClient) -> None:
    at = await create(client)
    await client.post(f"{at}/append", json={"text": "Hi. "})
    await client.post(f"{at}/close")
    assert await read(client, at)
    late = await client.post(f"{at}/append", json={"text": "too late"})
    assert late.status_code == 400
    assert late.json()["detail"] == f"Stream {at.rpartition('/')[2]} is not active (state=completed)"
    assert (await client.post(f"{at}/close")).status_code == 200
    assert await state(client, at) == "completed"
    again = await client.get(f"{at}/audio")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "read_already")


async def test_unknown_streams_voices_and_languages(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/append"), ("POST", "/close"), ("GET", "/audio"), ("GET", ""), ("DELETE", "")):
        answer = await client.request(method, f"/v1/tts/stream/nope{path}", json={"text": "x"})
        assert answer.status_code == 404
        told = {"message": "Stream nope not found", "type": "invalid_request_error", "code": "not_found"}
        assert answer.json() == {"detail": "Stream nope not found", "error": told}
    for asked in ({"voice": "X"}, {"language": "xx"}):
        answer = await client.post("/v1/tts/stream", json=asked)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("Unknown ")
    at = await create(client)
    for content in (b"", b"nonsense", b'{"text": 5}', b'{"wrong": "x"}'):
        assert (await client.post(f"{at}/append", content=content)).status_code in (400, 422)


async def test_every_word_is_said_once_in_order_however_it_arrives() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        audio = asyncio.ensure_future(read(client, at))
        for piece in [STORY[i : i + 7] for i in range(0, len(STORY), 7)]:
            await client.post(f"{at}/append", json={"text": piece})
            await asyncio.sleep(0.01)
        await client.post(f"{at}/close")
        assert words(await audio) == STORY.lower().replace(".", "").replace(",", "").split()

    await fake.run(scene)
    assert fake.engine.open_now == 0


async def test_a_last_word_is_said_without_a_close() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        async with client.stream("GET", f"{at}/audio") as answer:
            await client.post(f"{at}/append", json={"text": "hello"})
            await anext(answer.aiter_raw())
        assert fake.engine.said == ["hello"]

    await fake.run(scene)
