"""The back end without a network: text in, messages out, chunk by chunk."""

import asyncio
import json
import tracemalloc
from contextlib import aclosing

import numpy as np
import pytest

from server.errors import ConfigError, EngineUnavailable, TTSError
from server.pipelines.codec._tokens import WIDTH, from_wire
from server.pipelines.engines import Voice
from server.pipelines.tiers.backend import VOICES, Backend
from server.pipelines.tiers.requests import Request
from server.pipelines.tiers.split import split
from tests.fake_codec import FakeNetwork, fake_codec
from tests.tiers_parts import parts
from tests.tones import ToneTTS, heard, pitches, prose


def backend(tts=None, network=None, **options):
    tts = tts or ToneTTS()
    codec = fake_codec(network) if network is not False else None

    def pick(voice, engine, more):
        if engine not in ("", "tones"):
            raise ConfigError(f"no engine {engine!r}")
        made = Voice(name="" if voice == "default" else voice, **more)
        tts.open(made)
        tts.open_now -= 1
        return tts, made

    return Backend(pick, codec, **options), tts, codec


async def collected(back, asked):
    async with aclosing(back.stream(asked)) as messages:
        return [message async for message in messages]


@pytest.mark.parametrize("length", [100, 500, 2_000, 10_000])
async def test_of_a_long_text_not_one_sample_is_lost(length):
    back, tts, codec = backend()
    text = prose(length)
    *chunks, end = await collected(back, Request(text))
    pcm = b"".join([await codec.decode(from_wire(json.loads(json.dumps(chunk)))) for chunk in chunks])
    assert heard(pcm) == pitches(text)
    assert len(pcm) == len(pitches(text)) * 2 * 7_680
    assert end["total_chunks"] == len(chunks) == len(split(text)) == len(tts.said)
    assert end["total_tokens"] == sum(chunk["num_tokens"] for chunk in chunks)
    assert [chunk["chunk"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert tts.open_now == 0


async def test_a_chunk_has_the_fields_of_the_plan():
    back, _, _ = backend()
    chunk, end = await collected(back, Request("Hello there."))
    assert {
        "status": "streaming", "chunk": 1, "format": "linacodec_tokens", "sample_rate": 48_000,
        "original_sample_rate": 24_000, "num_tokens": 4,
    }.items() <= chunk.items()  # fmt: skip
    assert len(chunk["tokens"]) == 4
    assert len(chunk["embedding"]) == WIDTH
    assert chunk["encode_time_ms"] >= 0
    assert end["status"] == "complete"
    assert {"total_chunks", "total_tokens", "elapsed_time_seconds", "message", "format"} <= set(end)


async def test_pcm_has_been_through_the_codec_and_is_48_khz():
    back, _, codec = backend(ToneTTS(rate=22_050))
    chunk, end = await collected(back, Request("Hello there.", format="pcm_16"))
    assert chunk["format"] == "pcm_16"
    audio, _ = parts(chunk, end)
    assert audio.rate == 48_000
    assert len(audio.pcm) == 2 * 2 * 7_680
    assert heard(audio.pcm) == pitches("Hello there.")
    assert codec.worker.decoded == 1


async def test_without_a_codec_there_is_pcm_and_tokens_are_refused():
    back, _, _ = backend(network=False)
    chunk, end = await collected(back, Request("Hello there.", format="pcm_16"))
    assert heard(parts(chunk, end)[0].pcm) == pitches("Hello there.")
    with pytest.raises(EngineUnavailable, match="set \\[codec\\]"):
        back.check(Request("Hello there."))


async def test_one_voice_has_one_embedding_and_another_voice_its_own():
    network = FakeNetwork()
    back, _, _ = backend(network=network)
    text = "Seven words that last a second now. " * 8
    *chunks, _ = await collected(back, Request(text))
    assert len(chunks) > 1
    assert len({tuple(chunk["embedding"]) for chunk in chunks}) == 1
    bell = (await collected(back, Request(text, voice="bell")))[0]
    assert bell["embedding"][0] > chunks[0]["embedding"][0] + 0.3


class Counted(FakeNetwork):
    """Each embedding says how many were made before it."""

    def encode(self, samples):
        tokens, _ = super().encode(samples)
        return tokens, np.full(WIDTH, self.encoded, np.float32)


async def test_the_voice_that_has_not_spoken_for_longest_is_forgotten_first():
    back, _, _ = backend(network=Counted())

    async def speaks(number):
        asked = Request("Seven words that last a second now.", voice_options={"seed": number})
        return (await collected(back, asked))[0]["embedding"][0]

    first, second = await speaks(0), await speaks(1)
    for number in range(2, VOICES):
        await speaks(number)
    assert await speaks(0) == first
    await speaks(VOICES)  # one too many
    assert await speaks(0) == first
    assert await speaks(1) > second


async def test_a_word_is_too_short_to_take_the_voice_from():
    back, _, _ = backend(network=Counted())
    *chunks, _ = await collected(back, Request("Hi.\n\n" + "Seven words that last a second now. " * 8))
    assert [chunk["embedding"][0] for chunk in chunks[:3]] == [1, 2, 2]


async def test_batch_is_the_same_speech_in_one_piece():
    back, _, codec = backend()
    text = prose(800)
    message = await back.batch(Request(text, stream=False))
    pcm = await codec.decode(from_wire(message))
    assert [p for p in heard(pcm) if p >= 0] == pitches(text)
    assert message["duration"] == pytest.approx(len(pitches(text)) * 0.16, abs=0.01)
    audio, _ = parts(await back.batch(Request(text, stream=False, format="pcm_16")))
    assert heard(audio.pcm) == pitches(text)


async def test_the_next_chunk_is_spoken_while_this_one_is_encoded():
    network = FakeNetwork()
    network.gate.clear()
    back, tts, _ = backend(network=network)
    async with aclosing(back.stream(Request(prose(2_000)))) as messages:
        first = asyncio.create_task(anext(messages))
        for _ in range(500):
            await asyncio.sleep(0)
        assert not first.done()
        assert len(tts.said) >= 2
        assert len(tts.said) <= 4  # ahead, but not without end
        network.gate.set()
        await first


async def test_a_voice_that_breaks_is_told_after_what_came_before():
    back, tts, _ = backend(first_chars=20)
    async with aclosing(back.stream(Request("A good beginning.\n\nThen EXPLODE came."))) as messages:
        assert (await anext(messages))["chunk"] == 1
        with pytest.raises(TTSError, match="broke"):
            await anext(messages)
    assert tts.open_now == tts.speaking == 0


async def test_a_text_that_makes_no_sound_is_told():
    back, _, _ = backend()
    with pytest.raises(TTSError, match="no sound"):
        await collected(back, Request("SILENCE"))


async def test_who_leaves_stops_the_voice():
    back, tts, _ = backend()
    async with aclosing(back.stream(Request(prose(10_000)))) as messages:
        await anext(messages)
    assert tts.open_now == tts.speaking == 0
    said = len(tts.said)
    assert said < 6
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(tts.said) == said
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "ahead"]


async def test_memory_stays_flat_however_long_the_text():
    async def peak(length):
        back, _, _ = backend()
        tracemalloc.start()
        async with aclosing(back.stream(Request(prose(length), format="pcm_16"))) as messages:
            async for _ in messages:
                pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    await peak(500)
    assert await peak(10_000) < 1.6 * await peak(2_500)
