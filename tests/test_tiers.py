"""The tiers without a network: texts in chunks, objects out of bytes, the back end, the relay's patience."""

import asyncio
import json
import tracemalloc
from contextlib import aclosing
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.audio import Resampler
from server.errors import ConfigError, EngineUnavailable, ProtocolError, TTSError, UpstreamError
from server.pipelines.codec._tokens import WIDTH, from_wire
from server.pipelines.engines import Coded, Voice
from server.pipelines.tiers.ahead import ahead
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.chunks import Audio, Complete, Reading
from server.pipelines.tiers.objects import Objects
from server.pipelines.tiers.relay import Relay, Wanted
from server.pipelines.tiers.requests import Request, request
from server.pipelines.tiers.services import Service, TierRules
from server.pipelines.tiers.split import split
from tests.fake_codec import FakeNetwork, fake_codec, tone
from tests.tones import ToneTTS, heard, pitches, prose
from tests.virtual_time import run

# Texts


def bare(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("length", "least", "most"), [(100, 1, 1), (500, 2, 3), (2_000, 5, 12), (10_000, 21, 60)])
def test_long_texts_become_so_many_chunks_and_nothing_is_lost(length, least, most):
    text = prose(length)
    chunks = split(text)
    assert least <= len(chunks) <= most
    assert max(map(len, chunks)) <= 500
    assert len(chunks[0]) <= 120
    assert bare("".join(chunks)) == bare(text)


def test_chunks_grow_so_that_something_sounds_soon_and_nothing_waits_later():
    lengths = [len(chunk) for chunk in split("One two three four five. " * 200, most=500, first=60)]
    assert lengths[0] <= 60 < lengths[1] <= 120 < lengths[2] <= 240
    assert all(length <= 2 * before + 30 for before, length in pairwise(lengths))


def test_chunks_end_at_sentences_and_paragraphs():
    text = "Dr. Smith came at 3.5 p.m. sharp. He left.\n\nA new thought, at last. " + "It went on and on. " * 30
    for chunk in split(text):
        assert chunk[-1] == "."
        assert not chunk.endswith(("Dr.", "3."))
    assert split("One.\n\nTwo.") == ["One.", "Two."]


@given(st.text(st.sampled_from("ab c.!?\n,;—é漢。1")), st.integers(20, 60), st.integers(1, 60))
def test_any_text_is_split_within_its_limit_and_keeps_its_words(text, most, first):
    chunks = split(text, most, first)
    assert all(0 < len(chunk) <= most for chunk in chunks)
    assert [c for c in "".join(chunks) if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(any(map(str.isalnum, chunk)) for chunk in chunks)


# Objects


MESSAGES = [
    {"status": "streaming", "text": 'a "quoted" brace } and \\ and é漢🎈', "tokens": [1, 2, [3]], "deep": {"a": {}}},
    {},
    {"s": '\\"', "t": "\\\\", "n": None},
    {"status": "complete"},
]
PRETTY = b"".join(json.dumps(m, indent=2, ensure_ascii=False).encode() for m in MESSAGES)
LINES = b"".join(json.dumps(m).encode() + b"\n" for m in MESSAGES)
JOINED = b"".join(json.dumps(m, ensure_ascii=False).encode() for m in MESSAGES)


@pytest.mark.parametrize(
    "data", [PRETTY, LINES, JOINED, LINES.replace(b"\n", b",\r\n ")], ids=["pretty", "lines", "joined", "commas"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000_000])
def test_objects_are_read_however_the_network_cut_them(data, size):
    objects = Objects()
    found = [o for at in range(0, len(data), size) for o in objects.push(data[at : at + size])]
    objects.finish()
    assert found == MESSAGES


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.integers()), max_size=3), max_size=4),
    st.data(),
)
def test_any_objects_in_any_pieces(messages, data):
    text = data.draw(st.sampled_from(["", "\n", "\n\n "])).join(json.dumps(m, ensure_ascii=False) for m in messages)
    raw = text.encode(errors="surrogatepass") if all(ord(c) < 0xD800 or ord(c) > 0xDFFF for c in text) else b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    objects = Objects()
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found = [o for piece in pieces for o in objects.push(piece)]
    objects.finish()
    assert found == (messages if raw else [])


def test_an_object_is_given_as_soon_as_it_is_whole():
    objects = Objects()
    assert objects.push(b'{"a": 1') == []
    assert objects.push(b"}") == [{"a": 1}]


@pytest.mark.parametrize(
    "data", [b"[1]", b"null", b"<html>", b'{"a": 1}garbage', b"{'a': 1}", b'{"a": \xff}', b"}", b'{"a": [}']
)
def test_what_is_no_object_is_told(data):
    with pytest.raises(UpstreamError, match="JSON object") as error:
        Objects().push(data + b"]}")
    assert error.value.code == "upstream_garbled"


def test_half_an_object_at_the_end_is_told():
    objects = Objects()
    objects.push(b'{"a": 1}\n{"b"')
    with pytest.raises(UpstreamError, match="in the middle") as error:
        objects.finish()
    assert error.value.code == "upstream_died"


def test_an_object_without_end_is_refused_before_it_fills_the_memory():
    objects = Objects(largest=10_000)
    objects.push(b'{"a": "' + b"x" * 9_000)
    with pytest.raises(UpstreamError, match="more than 10000 bytes"):
        objects.push(b"x" * 1_000)


def test_a_large_object_in_small_pieces_takes_linear_time():
    """Ten megabytes of base64 in 16 kB reads: were every read to scan from the start, this would take minutes."""
    data = b'{"audio_chunk": "' + b"QUJD" * 2_500_000 + b'"}'
    objects = Objects()
    found = [o for at in range(0, len(data), 16_384) for o in objects.push(data[at : at + 16_384])]
    assert len(found) == 1


# Messages


def parts(*messages):
    reading = Reading()
    found = [part for message in messages for part in reading.read(message)]
    reading.finish()
    return found


TOKENS = {"status": "streaming", "tokens": [1, 2], "embedding": [0.0] * WIDTH}
AUDIO = {"status": "streaming", "format": "pcm_16", "audio_chunk": "AQACAA==", "sample_rate": 24_000}
DONE = {"status": "complete", "total_chunks": 1}


def test_messages_are_read():
    coded, end = parts(TOKENS | {"chunk": 1}, DONE)
    assert isinstance(coded, Coded)
    assert end == Complete()
    assert parts({"status": "queued"}, AUDIO, DONE)[0] == Audio(b"\1\0\2\0", 24_000)
    assert parts({"status": "complete", "tokens": [4], "embedding": [0] * WIDTH})[0].tokens.tolist() == [4]


def test_the_float_audio_of_a_plain_back_end_is_understood():
    import base64

    floats = base64.b64encode(np.array([0.5, -0.5, np.nan], "<f4").tobytes()).decode()
    assert parts({"status": "streaming", "format": "pcm_24", "audio_chunk": floats, "sample_rate": 24_000}, DONE)[
        0
    ] == Audio(np.array([16384, -16384, 0], "<i2").tobytes(), 24_000)


@pytest.mark.parametrize(
    ("messages", "says", "code"),
    [
        ([TOKENS], "stopped in the middle, after 1", "upstream_died"),
        ([], "stopped in the middle, after 0", "upstream_died"),
        ([TOKENS | {"chunk": 2}], "chunk 2 came where 1", "upstream_garbled"),
        ([TOKENS, DONE | {"total_chunks": 3}], "of 3 chunks 1 came", "upstream_garbled"),
        ([TOKENS | {"tokens": [99_999]}], "chunk 1: tokens: out of range", "upstream_garbled"),
        ([TOKENS | {"embedding": [1]}], "chunk 1: embedding", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": "?"}], "base64", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": "AQ=="}], "whole number", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": 5}], "base64", "upstream_garbled"),
        ([AUDIO | {"sample_rate": "x"}], "sample_rate", "upstream_garbled"),
        ([{"status": "error", "error": "CUDA out of memory"}], "CUDA out of memory", "upstream_failed"),
        ([{"error": {"message": "no such voice"}}], "no such voice", "upstream_failed"),
    ],
)
def test_what_is_missing_or_wrong_is_told(messages, says, code):
    with pytest.raises(UpstreamError, match=says) as error:
        parts(*messages)
    assert error.value.code == code


# Requests


def test_requests_are_read_bare_and_as_runpod_wraps_them():
    body = {"text": "Hello.", "voice": "ada", "stream": True, "output_format": "pcm_16", "service": "echotts"}
    assert request(body, 100) == request({"input": body}, 100) == Request("Hello.", "ada", "", True, "pcm_16")
    assert request({"text": "Hello."}, 100).stream is False


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "object"),
        ({"input": 3}, "object"),
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "  ?! "}, "text"),
        ({"text": 5}, "text"),
        ({"text": "a" * 101}, "text: 101 characters"),
        ({"text": "a", "voice": 5}, "voice"),
        ({"text": "a", "stream": "yes"}, "stream"),
        ({"text": "a", "output_format": "mp3"}, "output_format"),
        ({"text": "a", "sample_rate": 8_000}, "sample_rate"),
        ({"text": "a", "max_chars": 3}, "max_chars"),
        ({"text": "a", "voice_options": []}, "voice_options"),
        ({"text": "a", "txet": "b"}, "txet: unknown"),
    ],
)
def test_requests_that_are_none_are_told_which_field(body, field):
    with pytest.raises(ProtocolError, match=field):
        request(body, 100)


# Reading ahead


async def test_ahead_reads_ahead_but_not_without_end():
    made = []

    async def source():
        for n in range(10):
            made.append(n)
            yield n

    async with aclosing(ahead(source(), 2)) as items:
        assert await anext(items) == 0
        for _ in range(10):
            await asyncio.sleep(0)
        assert made == [0, 1, 2, 3]  # two wait, one is in hand
        assert [n async for n in items] == list(range(1, 10))


async def test_ahead_closes_its_source_and_passes_on_what_it_raises():
    closed = []

    async def source():
        try:
            yield 1
            raise ValueError("later")
        finally:
            closed.append(True)

    async with aclosing(ahead(source())) as items:
        assert await anext(items) == 1
        with pytest.raises(ValueError, match="later"):
            await anext(items)
    assert closed == [True]

    async def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async with aclosing(ahead(endless())) as items:
        await anext(items)
    assert closed == [True, True]
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "ahead"]


# The back end


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


# Patience, on the virtual clock


class Slow:
    """A back end whose chunks come after so many seconds each."""

    def __init__(self, *waits: float) -> None:
        self.waits, self.closed = waits, False

    def check(self, request): ...

    async def audio(self, request):
        try:
            for wait in self.waits:
                await asyncio.sleep(wait)
                yield Audio(bytes(9_600), 48_000)
        finally:
            self.closed = True


def listen(back, pause=0.0, **rules):
    """What a listener gets who takes `pause` seconds over each piece: pieces, error, seconds."""
    relay = Relay(TierRules(services={"local": Service(kind="local")}, **rules), None, None, back)

    async def go():
        pieces, error = 0, None
        begin = asyncio.get_running_loop().time()
        try:
            async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
                async for pcm in stream:
                    pieces += bool(pcm)
                    await asyncio.sleep(pause)
        except UpstreamError as raised:
            error = raised
        return pieces, error, asyncio.get_running_loop().time() - begin

    return run(go())


def test_a_long_chunk_is_heard_second_by_second_and_without_a_seam():
    sound = tone(330, 4.5, 22_050)

    class Long(Slow):
        async def audio(self, request):
            yield Audio(sound, 22_050)

    relay = Relay(TierRules(services={"local": Service(kind="local")}), None, None, Long())

    async def go():
        async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
            return [pcm async for pcm in stream]

    pieces = asyncio.run(go())
    assert len(pieces) >= 5
    assert max(map(len, pieces)) <= 2 * 96_000
    whole = Resampler(22_050, 48_000)
    assert b"".join(pieces) == whole.push(sound) + whole.push(b"", last=True)


def test_chunks_in_time_are_heard():
    assert listen(Slow(4, 4, 4))[:2] == (3, None)


def test_a_chunk_that_takes_too_long_ends_it():
    back = Slow(1, 6)
    pieces, error, seconds = listen(back)
    assert (pieces, error.code, error.status) == (1, "upstream_timeout", 504)
    assert "no chunk came after 5 s" in str(error)
    assert seconds == pytest.approx(6)
    assert back.closed


def test_all_of_it_has_a_limit_too():
    pieces, error, seconds = listen(Slow(*[4] * 20))
    assert (pieces, error.code) == (7, "upstream_timeout")
    assert seconds == pytest.approx(30, abs=0.1)
    assert "not complete" in str(error)


def test_a_listener_who_reads_slowly_is_not_cut_off():
    pieces, error, seconds = listen(Slow(*[1] * 20), pause=10)
    assert (pieces, error) == (20, None)
    assert seconds > 190


def test_a_first_chunk_may_have_its_own_limit():
    service = Service(kind="local", first_timeout_s=20)
    relay = Relay(TierRules(services={"local": service}), None, None, Slow(15, 1))

    async def go():
        async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
            return [pcm async for pcm in stream if pcm]

    assert len(run(go())) == 2
