"""`/v1/tts/stream*` over real sockets: text in one request, its audio in another."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import numpy as np
import pytest
import pytest_asyncio

from server.audio import milliseconds
from server.http import adaptive
from server.http.running import Shelf
from server.pipelines.studio import Studio
from server.pipelines.tts import espeak
from tests import services
from tests.fakes import FakeTTS, words
from tests.services import serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
STORY = "Once there was a fox. It lived in a wood, near a river. Every morning it went down to drink. "


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with (
        services.studio(espeak=espeak.create()) as studio,
        serving(adaptive.routes(studio)) as url,
        httpx.AsyncClient(base_url=url) as made,
    ):
        yield made


class Fake:
    """A server with a fake engine, 5 times faster than real time."""

    def __init__(self, idle_s: float = 30) -> None:
        self.engine = FakeTTS(speed=5)
        self.studio, self.shelf = Studio({"fake": self.engine}), Shelf(idle_s, limit=4)

    async def run(self, scene: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
        async with (
            serving(adaptive.routes(self.studio, self.shelf)) as url,
            httpx.AsyncClient(base_url=url) as client,
            asyncio.timeout(20),
        ):
            await scene(client)


async def create(client: httpx.AsyncClient, **asked: object) -> str:
    answer = await client.post("/v1/tts/stream", json=asked)
    assert answer.status_code == 200
    told = answer.json()
    assert told["audio_url"] == f"/v1/tts/stream/{told['stream_id']}/audio"
    return f"/v1/tts/stream/{told['stream_id']}"


async def read(client: httpx.AsyncClient, at: str) -> bytes:
    return (await client.get(f"{at}/audio")).content


async def state(client: httpx.AsyncClient, at: str) -> str:
    return str((await client.get(at)).json()["state"])


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
    assert (await client.get(f"{at}/audio")).status_code == 409


async def test_unknown_streams_voices_and_languages(client: httpx.AsyncClient) -> None:
    for method, path in (("POST", "/append"), ("POST", "/close"), ("GET", "/audio"), ("GET", ""), ("DELETE", "")):
        answer = await client.request(method, f"/v1/tts/stream/nope{path}", json={"text": "x"})
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Stream nope not found"}
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


async def test_deleting_stops_the_engine_and_ends_the_audio() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        await client.post(f"{at}/append", json={"text": "word " * 100})
        async with client.stream("GET", f"{at}/audio") as answer:
            chunks = answer.aiter_raw()
            await anext(chunks)
            assert (await client.delete(at)).json() == {"status": "cancelled"}
            rest = b"".join([chunk async for chunk in chunks])
        assert milliseconds(rest, 16_000) < 1000
        await until(lambda: not fake.engine.speaking and not fake.engine.open_now)
        assert (await client.delete(at)).status_code == 404
        assert len(fake.shelf) == 0

    await fake.run(scene)


async def test_a_reader_that_vanishes_frees_the_engine() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        await client.post(f"{at}/append", json={"text": "word " * 100})
        async with client.stream("GET", f"{at}/audio") as answer:
            await anext(answer.aiter_raw())
        await until(lambda: not fake.engine.speaking and not fake.engine.open_now)
        assert await state(client, at) == "cancelled"

    await fake.run(scene)


async def test_the_status_tells_what_is_going_on() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        told = (await client.get(at)).json()
        assert (told["state"], told["audio_ms"], told["segments"]) == ("created", 0, 0)
        await client.post(f"{at}/append", json={"text": STORY * 3})
        assert (await client.get(at)).json()["pending_chars"] > 200
        async with client.stream("GET", f"{at}/audio") as answer:
            await anext(answer.aiter_raw())
            told = (await client.get(at)).json()
            assert told["state"] == "generating"
            assert told["buffer_ms"] > 0
            assert told["segments"] >= 1

    await fake.run(scene)


async def test_an_idle_stream_ends_its_audio_and_is_cleared_away() -> None:
    fake = Fake(idle_s=0.2)

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        assert await read(client, at) == b""  # its reader is sent away
        assert await state(client, at) == "cancelled"
        await create(client)  # never read
        assert len(fake.shelf) == 2
        await asyncio.sleep(0.25)
        assert (await client.get(at)).status_code == 404
        assert len(fake.shelf) == 0

    await fake.run(scene)


async def test_text_that_keeps_coming_keeps_a_stream_alive() -> None:
    fake = Fake(idle_s=0.3)

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        for number in range(8):
            await asyncio.sleep(0.1)
            assert (await client.post(f"{at}/append", json={"text": f"more{number} "})).status_code == 202
        await client.post(f"{at}/close")
        assert words(await read(client, at)) == [f"more{number}" for number in range(8)]

    await fake.run(scene)


async def test_too_many_streams_are_refused() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        for _ in range(4):
            await create(client)
        answer = await client.post("/v1/tts/stream", json={})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) == 30

    await fake.run(scene)


async def test_streams_that_have_ended_make_room_for_new_ones() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        kept = await create(client)
        for _ in range(8):
            at = await create(client)
            await client.post(f"{at}/append", json={"text": "hi "})
            await client.post(f"{at}/close")
            assert words(await read(client, at)) == ["hi"]
        assert await state(client, kept) == "created"
        assert len(fake.shelf) == 4

    await fake.run(scene)


async def test_asking_for_the_audio_is_a_sign_of_life_and_asking_about_it_takes_nothing() -> None:
    fake = Fake(idle_s=0.4)

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        await asyncio.sleep(0.25)
        assert (await client.head(f"{at}/audio")).status_code == 405
        assert (await client.get(f"{at}/audio", params={"stream_format": "xml"})).status_code == 400
        async with client.stream("GET", f"{at}/audio") as answer:
            await asyncio.sleep(0.25)
            await client.post(f"{at}/append", json={"text": "still here"})
            await client.post(f"{at}/close")
            assert words(b"".join([chunk async for chunk in answer.aiter_raw()])) == ["still", "here"]

    await fake.run(scene)


async def test_an_engine_that_fails_leaves_a_stream_that_says_so() -> None:
    fake = Fake()

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        await client.post(f"{at}/append", json={"text": "EXPLODE. "})
        await client.post(f"{at}/close")
        assert (await client.get(f"{at}/audio")).status_code == 500
        told = (await client.get(at)).json()
        assert (told["state"], told["error"]) == ("error", "the voice broke")
        answer = await client.post(f"{at}/append", json={"text": "more"})
        assert "state=error" in answer.json()["detail"]

    await fake.run(scene)


async def test_many_streams_at_once_keep_their_words_apart() -> None:
    fake = Fake()
    fake.shelf.limit = 20

    async def one(client: httpx.AsyncClient, number: int) -> None:
        at = await create(client)
        audio = asyncio.ensure_future(read(client, at))
        text = " ".join(f"s{number}w{i}" for i in range(8))
        for word in text.split():
            await client.post(f"{at}/append", json={"text": word + " "})
        await client.post(f"{at}/close")
        assert words(await audio) == text.split()

    async def scene(client: httpx.AsyncClient) -> None:
        await asyncio.gather(*(one(client, number) for number in range(8)))

    await fake.run(scene)
