"""Streaming decode: overlapping windows, joined without a seam."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from server.audio import SAMPLE, to_float
from server.errors import ConfigError
from server.pipelines.codec._tokens import SPAN, length
from server.pipelines.codec._windows import Seams, Shape, Windows, plan
from server.pipelines.engines import Coded
from tests.fake_codec import VOICE, FakeNetwork, coded, fake_codec


@pytest.fixture
async def codec():
    codec = fake_codec()
    await codec.start()
    yield codec
    await codec.stop()


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
