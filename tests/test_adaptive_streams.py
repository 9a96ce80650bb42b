"""`/v1/tts/stream*` over real sockets: how streams end, are cleared away, and fail."""

import asyncio
from contextlib import aclosing

import httpx
import pytest

from server.audio import milliseconds
from server.http.running import Running, now, spoken
from server.pipelines.adaptive import Adaptive, State
from tests.adaptive_client import STORY, Fake, create, read, state
from tests.fakes import words
from tests.services import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def test_after_a_stream_is_cancelled_not_one_sample_of_it_comes() -> None:
    fake = Fake()
    stream = Running("id", *fake.studio.find(), fake.engine.rate, Adaptive(now()))
    stream.adaptive.append("word " * 100, now())
    async with aclosing(spoken(fake.studio, stream, "", idle_s=30)) as pieces:
        assert (await anext(pieces)).pcm
        stream.adaptive.end(State.CANCELLED, now())
        assert [piece async for piece in pieces] == []


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


async def test_who_comes_back_when_the_engine_was_full_finds_all_of_the_text() -> None:
    fake = Fake()
    admission = fake.studio.default.admission
    admission.at_once, admission.streams, admission.waiting = 1, 1, 0

    async def scene(client: httpx.AsyncClient) -> None:
        at = await create(client)
        await client.post(f"{at}/append", json={"text": "Once there was a fox. "})
        async with admission.stream("somebody") as other, other.turn():
            refused = await client.get(f"{at}/audio")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert (await client.get(at)).json()["pending_chars"] == len("Once there was a fox.")
        await client.post(f"{at}/append", json={"text": "It lived in a wood. "})
        await client.post(f"{at}/close")
        assert words(await read(client, at)) == ["once", "there", "was", "a", "fox", "it", "lived", "in", "a", "wood"]
        told = (await client.get(at)).json()
        assert (told["state"], told["segments"]) == ("completed", 2)

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
