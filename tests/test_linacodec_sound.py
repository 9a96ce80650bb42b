"""The codec's contract on a fake network: lengths, levels, and the voices of recordings."""

from pathlib import Path

import numpy as np
import pytest

from server.audio import SAMPLE, to_float, wav
from server.errors import CodecError, ConfigError
from server.pipelines.engines import Coded
from tests.fake_codec import FakeNetwork, fake_codec, pitch, tone


@pytest.fixture
async def codec():
    codec = fake_codec()
    await codec.start()
    yield codec
    await codec.stop()


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


@pytest.mark.parametrize("content", [None, b"", b"RIFF no", wav(b"", 16_000)])
async def test_a_reference_that_cannot_be_read_is_named(codec, tmp_path: Path, content):
    reference = tmp_path / "voice.wav"
    if content is not None:
        reference.write_bytes(content)
    with pytest.raises(ConfigError, match=r"voice\.wav"):
        await codec.embedding(reference)
