"""The codec's contract: lengths, levels, checks, batches, windows. On a fake network, so it runs everywhere."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from server.audio import SAMPLE, to_float, wav
from server.errors import CodecError, ConfigError, EngineBusy
from server.pipelines.codec._lina.checkpoint import approve
from server.pipelines.codec._tokens import CODEBOOK, SPAN, WIDTH, from_wire, length, to_packed, to_wire
from server.pipelines.codec._windows import Seams, Shape, Windows, plan
from server.pipelines.codec._worker import Worker
from server.pipelines.engines import Coded
from tests.fake_codec import FakeNetwork, fake_codec, pitch, tone

VOICE = np.zeros(WIDTH, np.float32)


def coded(count: int, seed: int = 1) -> Coded:
    tokens = np.random.default_rng(seed).integers(0, CODEBOOK, count)
    return Coded(tokens, VOICE)


@pytest.fixture
async def codec():
    codec = fake_codec()
    await codec.start()
    yield codec
    await codec.stop()


# Length and level


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.01, 0.5, 1.0, 3.337])
async def test_what_comes_back_is_as_long_as_what_went_in(codec, rate, seconds):
    pcm = tone(440, seconds, rate)
    made = await codec.encode(pcm, rate)
    assert len(made.tokens) % 2 == 0
    assert len(await codec.decode(made)) // SAMPLE == round(len(pcm) // SAMPLE * 48_000 / rate)


async def test_a_tone_survives_at_its_pitch_and_its_level(codec):
    back = await codec.convert(tone(300, 2, 22_050, level=0.2), 22_050)
    assert pitch(back, 48_000) == pytest.approx(300, abs=2)
    assert np.abs(to_float(back)).max() == pytest.approx(0.2, rel=0.05)


async def test_silence_stays_silent(codec):
    back = await codec.convert(b"\0\0" * 24_000, 24_000)
    assert not np.frombuffer(back, "<i2").any()


async def test_a_recording_longer_than_one_pass_is_whole(codec):
    pcm = tone(200, 31, 16_000) + tone(700, 31, 16_000)
    made = await codec.encode(pcm, 16_000)
    back = await codec.decode(made)
    assert len(back) // SAMPLE == 62 * 48_000
    assert pitch(back[: 20 * 96_000], 48_000) == pytest.approx(200, abs=1)
    assert pitch(back[-20 * 96_000 :], 48_000) == pytest.approx(700, abs=1)


async def test_pieces_with_a_common_gain_keep_their_levels(codec):
    loud = await codec.encode(tone(300, 1, 24_000, level=0.8), 24_000, gain=0.8)
    soft = await codec.encode(tone(300, 1, 24_000, level=0.2), 24_000, gain=0.8)
    both = Coded(np.concatenate([loud.tokens, soft.tokens]), loud.embedding, gain=loud.gain)
    audio = to_float(await codec.decode(both))
    assert np.abs(audio[10_000:40_000]).max() == pytest.approx(0.8, rel=0.05)
    assert np.abs(audio[-30_000:]).max() == pytest.approx(0.2, rel=0.1)


async def test_nothing_at_all_cannot_be_encoded(codec):
    with pytest.raises(CodecError, match="nothing"):
        await codec.encode(b"", 24_000)


# Checks


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([], "at least one"),
        ([[1, 2]], "one dimension"),
        ([0.5], "integers"),
        ([True], "integers"),
        ([-1], "out of range"),
        ([CODEBOOK], "out of range"),
        (["a"], "integers"),
        ([[1], [2, 3]], "numbers"),
        ([1] * 45_001, "at most"),
        (b"\0", "at least one"),
        ([2**70], "integers"),
    ],
)
def test_what_is_no_token_is_refused(tokens, says):
    with pytest.raises(CodecError, match=says) as error:
        from_wire({"tokens": tokens, "embedding": [0.0] * WIDTH})
    assert error.value.code == "bad_tokens"


@pytest.mark.parametrize(
    "embedding",
    [
        [],
        [0.0] * 3,
        [1e39] * WIDTH,
        [0.0] * (WIDTH - 1) + [float("nan")],
        [True] * WIDTH,
        ["x"] * WIDTH,
        None,
        "abc",
        [[0.0]] * WIDTH,
    ],
)
def test_what_is_no_embedding_is_refused(embedding):
    with pytest.raises(CodecError, match="embedding"):
        from_wire({"tokens": [1, 2], "embedding": embedding})


@pytest.mark.parametrize(
    "extra", [{"num_samples": -1}, {"num_samples": 10**9}, {"num_samples": 1.5}, {"gain": "x"}, {"gain": -1}]
)
def test_odd_lengths_and_gains_are_refused(extra):
    with pytest.raises(CodecError, match=next(iter(extra))):
        from_wire({"tokens": [1, 2], "embedding": [0.0] * WIDTH} | extra)


@pytest.mark.parametrize("pack", [to_wire, to_packed])
def test_there_and_back_on_the_wire(pack):
    there = Coded(np.array([0, 1, CODEBOOK - 1]), np.linspace(-3, 3, WIDTH).astype(np.float32), 11_000, 0.25)
    back = from_wire(pack(there))
    assert back.tokens.tolist() == there.tokens.tolist()
    assert np.allclose(back.embedding, there.embedding, rtol=1e-6)
    assert (back.samples, back.gain) == (11_000, 0.25)


def test_a_plain_chunk_of_another_back_end_is_enough():
    back = from_wire({"status": "streaming", "tokens": [5], "embedding": [0] * WIDTH})
    assert (back.samples, back.gain) == (None, 1.0)


# What a checkpoint's configuration may call


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"class_path": "os.system"}},
        {"a": {"class_path": "Popen"}},
        {"a": [{"b": {"class_path": "linacodecs.Evil"}}]},
        {"a": "subprocess.Popen"},
        {"a": ["__main__.Evil"]},
    ],
)
def test_what_is_not_of_the_package_is_not_called(config):
    with pytest.raises(ConfigError, match="would call"):
        approve(config, ())


def test_what_is_of_the_package_or_trusted_or_no_name_of_a_class_is_left():
    approve({"a": {"class_path": "linacodec.model.LinaCodecModel"}, "b": "vocos.heads.ISTFTHead"}, ())
    approve({"a": {"class_path": "tests.tiny_ssl.TinySSL"}, "b": "tests.tiny_ssl.TinySSL"}, ("tests",))
    approve({"padding": "center", "file": "wavlm_base_plus.pth", "rate": 0.5, "hub": "a/b.c"}, ())


# Batches


async def test_requests_of_one_length_share_a_pass_and_come_out_as_alone():
    network = FakeNetwork()
    codec = fake_codec(network)
    await codec.start()
    alone = [await codec.decode(coded(12, seed)) for seed in range(6)]
    network.batches.clear()
    network.gate.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(codec.decode(coded(20)))
        await asyncio.sleep(0)
        tasks = [group.create_task(codec.decode(coded(12, seed))) for seed in range(6)]
        odd = group.create_task(codec.decode(coded(7)))
        await asyncio.sleep(0)
        network.gate.set()
    assert [t.result() for t in tasks] == alone
    assert network.batches == [(1, 20), (6, 12), (1, 7)]
    assert len(odd.result()) == length(7) * SAMPLE
    assert len(first.result()) == length(20) * SAMPLE
    await codec.stop()


async def test_a_caller_that_leaves_takes_its_request_along():
    network = FakeNetwork()
    worker = Worker(network)
    network.gate.clear()
    running = asyncio.create_task(worker.decode(np.arange(4), VOICE))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(worker.decode(np.arange(6), VOICE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    network.gate.set()
    await running
    await worker.close()
    assert network.batches == [(1, 4)]


async def test_a_pass_that_fails_for_many_is_tried_one_by_one():
    class Small(FakeNetwork):
        def decode(self, tokens, embeddings):
            if len(tokens) > 1:
                self.batches.append(tokens.shape)
                raise MemoryError("too many")
            return super().decode(tokens, embeddings)

    network = Small()
    worker = Worker(network)
    network.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.encode(np.zeros(3840, np.float32)))
        await asyncio.sleep(0)
        tasks = [group.create_task(worker.decode(np.arange(4) + n, VOICE)) for n in range(3)]
        await asyncio.sleep(0)
        network.gate.set()
    assert network.batches == [(3, 4), (1, 4), (1, 4), (1, 4)]
    assert all(len(t.result()) == 4 * SPAN for t in tasks)
    await worker.close()


async def test_a_failure_is_told_and_the_next_request_is_served():
    network = FakeNetwork()
    codec = fake_codec(network)
    network.failing = RuntimeError("CUDA error: device-side assert")
    with pytest.raises(CodecError, match="device-side"):
        await codec.decode(coded(4))
    network.failing = None
    assert len(await codec.decode(coded(4))) == 4 * SPAN * SAMPLE
    await codec.stop()


async def test_the_queue_has_an_end():
    network = FakeNetwork()
    worker = Worker(network, waiting=2)
    network.gate.clear()
    tasks = [asyncio.create_task(worker.decode(np.arange(2) + n, VOICE)) for n in range(3)]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(worker.decode(np.arange(8), VOICE)))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [type(t.exception()) for t in done] == [EngineBusy]
    network.gate.set()
    await asyncio.wait(tasks)
    await worker.close()


async def test_stopping_tells_those_who_wait_and_leaves_no_task():
    network = FakeNetwork()
    worker = Worker(network)
    network.gate.clear()
    running = asyncio.create_task(worker.decode(np.arange(4), VOICE))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(worker.decode(np.arange(6), VOICE))
    await asyncio.sleep(0)
    closing = asyncio.create_task(worker.close())
    with pytest.raises(CodecError, match="stopped"):
        await waiting
    network.gate.set()
    await closing
    await running
    with pytest.raises(CodecError, match="stopped"):
        await worker.decode(np.arange(4), VOICE)
    assert network.closed
    assert [t for t in asyncio.all_tasks() if t.get_name() == "codec"] == []


# Windows


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 9, 16, 17, 40, 61, 128, 257])
@pytest.mark.parametrize("step", [1, 3, 500])
def test_every_token_is_in_exactly_one_window(count, step):
    shape, tokens = Shape(), np.arange(count)
    windows = Windows(shape)
    given = [w for at in range(0, count, step) for w in windows.push(tokens[at : at + step])] + windows.finish()
    assert [t for w in given for t in w.tokens[w.skip : w.skip + w.keep]] == list(range(count))
    assert [w.last for w in given] == [False] * (len(given) - 1) + [True]
    begin = 0
    for w in given:
        assert (begin - w.skip) % 2 == 0
        assert w.skip == min(begin, shape.left)
        assert w.last or len(w.tokens) == w.skip + w.keep + shape.right
        begin += w.keep


def test_windows_that_hear_no_neighbour_are_refused():
    for bad in ({"size": 3}, {"right": 0}, {"first": 0}, {"fade_ms": 100}):
        with pytest.raises(ConfigError, match="codec windows"):
            Shape(**bad)


@pytest.mark.parametrize("count", [1, 5, 12, 33, 80, 161])
async def test_streamed_is_the_whole_sample_for_sample_in_length_and_near_in_sound(codec, count):
    said = coded(count)

    async def slowly():
        for token in said.tokens:
            yield [token]

    async with aclosing(codec.stream(slowly(), VOICE)) as stream:
        pieces = [pcm async for pcm in stream]
    whole = to_float(await codec.decode(said))
    streamed = to_float(b"".join(pieces))
    assert len(streamed) == len(whole) == length(count)
    assert np.abs(streamed - whole).max() < 1e-4  # the fake looks one token to either side


def test_a_window_without_its_neighbours_is_audibly_wrong():
    """That the fake can show the fault which the windows avoid."""
    network, said = FakeNetwork(), coded(40).tokens[None]
    whole = network.decode(said, VOICE[None])[0]
    bare = np.concatenate([network.decode(said[:, a : a + 8], VOICE[None])[0] for a in range(0, 40, 8)])
    assert np.abs(bare - whole).max() > 0.1


def test_seams_are_crossfaded():
    shape = Shape(size=4, left=2, right=2, first=4, fade_ms=10)
    seams = Seams(shape.fade)
    heard = [
        seams.join(w, np.full(length(len(w.tokens)), n, np.float32)) for n, w in enumerate(plan(np.arange(12), shape))
    ]
    audio = np.concatenate(heard)
    assert len(audio) == 12 * SPAN
    steps = np.abs(np.diff(audio))
    assert steps.max() < 0.01
    assert set(audio[SPAN : 2 * SPAN]) == {0.0}


async def test_what_is_longer_than_a_pass_is_decoded_in_windows_to_the_same():
    network = FakeNetwork()
    short, long = fake_codec(network, whole=20), fake_codec(whole=10_000)
    said = Coded(coded(100).tokens, VOICE, samples=99 * SPAN + 17)
    in_windows, at_once = to_float(await short.decode(said)), to_float(await long.decode(said))
    assert len(in_windows) == len(at_once) == 99 * SPAN + 17
    assert np.abs(in_windows - at_once).max() < 1e-4
    assert max(shape[1] for shape in network.batches) <= 32
    pieces = [len(pcm) async for pcm in short.pieces(said)]
    assert sum(pieces) == (99 * SPAN + 17) * SAMPLE
    assert pieces[0] == 4 * SPAN * SAMPLE
    await short.stop()
    await long.stop()


async def test_two_streams_at_once_share_passes():
    network = FakeNetwork()
    codec = fake_codec(network, whole=2)
    network.gate.clear()
    tasks = [asyncio.create_task(codec.decode(coded(200, seed))) for seed in range(4)]
    await asyncio.sleep(0)
    network.gate.set()
    await asyncio.wait(tasks)
    assert max(shape[0] for shape in network.batches) >= 3
    assert codec.worker.passes < codec.worker.decoded
    await codec.stop()


# Voices


async def test_conversion_gives_the_timbre_of_the_reference(codec, tmp_path: Path):
    reference = tmp_path / "voice.wav"
    reference.write_bytes(wav(tone(500, 1, 16_000, octave=0.9), 16_000))
    embedding = await codec.embedding(reference)
    plain = tone(300, 1, 22_050)
    back = to_float(await codec.convert(plain, 22_050, embedding))
    spectrum = np.abs(np.fft.rfft(back))
    assert spectrum[600] / spectrum[300] > 0.5
    own = np.abs(np.fft.rfft(to_float(await codec.convert(plain, 22_050))))
    assert own[600] / own[300] < 0.1


async def test_a_reference_is_encoded_once_until_it_changes(tmp_path: Path):
    network = FakeNetwork()
    codec = fake_codec(network)
    reference = tmp_path / "voice.wav"
    reference.write_bytes(wav(tone(500, 1, 16_000), 16_000))
    await codec.embedding(reference)
    await codec.embedding(reference)
    assert network.encoded == 1
    reference.write_bytes(wav(tone(500, 1.5, 16_000), 16_000))
    await codec.embedding(reference)
    assert network.encoded == 2
    await codec.stop()


@pytest.mark.parametrize("content", [None, b"", b"RIFF no"])
async def test_a_reference_that_cannot_be_read_is_named(codec, tmp_path: Path, content):
    reference = tmp_path / "voice.wav"
    if content is not None:
        reference.write_bytes(content)
    with pytest.raises(ConfigError, match=r"voice\.wav"):
        await codec.embedding(reference)
