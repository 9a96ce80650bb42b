"""Voices through the codec: the timbre of a recording, and 48 kHz."""

from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from server.audio import SAMPLE, to_float, wav
from server.errors import ConfigError, TTSError
from server.pipelines.engines import Voice
from server.pipelines.tts._revoiced import quietest, revoiced
from tests.fake_codec import FakeNetwork, fake_codec, tone
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow."


async def spoken(speaker, text=TEXT):
    async with aclosing(speaker.speak(text)) as speech:
        pieces = [piece async for piece in speech]
    return b"".join(p.pcm for p in pieces), [w for p in pieces for w in p.words], pieces


@pytest.fixture
def bell(tmp_path):
    file = tmp_path / "bell.wav"
    file.write_bytes(wav(tone(500, 1.5, 24_000, octave=0.8), 24_000))
    return file


def octaves(pcm: bytes, rate: int) -> float:
    """How strong the octave is over each word's pitch, on average."""
    step = rate * 160 // 1000
    frames = to_float(pcm)[: len(pcm) // 2 // step * step].reshape(-1, step)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))
    best = spectrum.argmax(axis=1)
    rows = np.arange(len(frames))
    return float(np.mean(spectrum[rows, np.minimum(best * 2, spectrum.shape[1] - 1)] / spectrum[rows, best]))


@pytest.mark.parametrize("text", [TEXT, prose(400), "Ember."])
async def test_convert_keeps_the_words_and_takes_the_timbre(bell, text):
    codec, tts = fake_codec(), ToneTTS(rate=24_000)
    voice = Voice(name="flute", method="convert", reference=bell)
    engine = revoiced(tts, voice, codec)
    assert engine.rate == 48_000
    pcm, words, _ = await spoken(engine.open(voice), text)
    plain, plain_words, _ = await spoken(tts.open(Voice(name="flute")), text)
    assert len(pcm) == 2 * len(plain)
    assert [p for p in heard(pcm) if p >= 0] == pitches(text)
    assert words == plain_words
    assert octaves(pcm, 48_000) > octaves(plain, 24_000) + 0.3
    assert tts.voices_opened[0] == Voice(name="flute")
    await codec.stop()


async def test_upsample_keeps_the_voice_and_brings_48_khz():
    codec, tts = fake_codec(), ToneTTS(rate=24_000)
    voice = Voice(name="bell", upsample="linacodec")
    pcm, _, _ = await spoken(revoiced(tts, voice, codec).open(voice))
    assert heard(pcm) == pitches(TEXT)
    assert octaves(pcm, 48_000) > 0.3
    await codec.stop()


async def test_a_long_text_is_heard_in_segments_and_loses_nothing():
    codec, tts = fake_codec(), ToneTTS(rate=22_050)
    voice = Voice(upsample="linacodec")
    text = prose(600)
    pcm, _, pieces = await spoken(revoiced(tts, voice, codec).open(voice), text)
    assert len(pieces) > 3
    assert 700 < len(pieces[0].pcm) / 96 <= 1_500
    assert abs(len(pcm) // SAMPLE - len(pitches(text)) * 7_680) <= len(pieces)
    await codec.stop()


async def test_without_either_the_engine_is_left_alone():
    tts = ToneTTS()
    assert revoiced(tts, Voice(), fake_codec()) is tts


@pytest.mark.parametrize(
    ("voice", "codec", "says"),
    [
        (Voice(method="convert", reference=Path("x.wav")), False, "set \\[codec\\] engine"),
        (Voice(upsample="linacodec"), False, "set \\[codec\\] engine"),
        (Voice(method="convert"), True, "voice.reference"),
        (Voice(upsample="magic"), True, "only 'linacodec'"),
    ],
)
def test_what_a_voice_lacks_is_told(voice, codec, says):
    with pytest.raises(ConfigError, match=says):
        revoiced(ToneTTS(), voice, fake_codec() if codec else None)


async def test_a_reference_that_is_not_there_and_a_codec_that_fails_fail_the_voice(tmp_path):
    network = FakeNetwork()
    codec, tts = fake_codec(network), ToneTTS()
    voice = Voice(method="convert", reference=tmp_path / "gone.wav")
    with pytest.raises(TTSError, match=r"gone\.wav"):
        await spoken(revoiced(tts, voice, codec).open(voice))
    network.failing = RuntimeError("lost")
    voice = Voice(upsample="linacodec")
    with pytest.raises(TTSError, match="lost"):
        await spoken(revoiced(tts, voice, codec).open(voice))
    assert tts.speaking == 0
    await codec.stop()


def test_speech_is_cut_where_it_is_quiet():
    pcm = tone(300, 1.0, 16_000) + bytes(1_600) + tone(300, 0.3, 16_000)
    assert 32_000 < quietest(pcm, 16_000) < 33_600
    assert quietest(tone(300, 1.0, 16_000), 16_000) % SAMPLE == 0
