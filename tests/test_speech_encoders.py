"""The formats: what FFmpeg reads back is what was put in."""

import io

import av
import numpy as np
import pytest

from server.audio import read_wav
from server.errors import ConfigError
from server.pipelines.encoders import FORMATS, format_of
from server.pipelines.joins import correlation


def melody(rate: int, ms: int = 1500) -> bytes:
    t = np.arange(rate * ms // 1000) / rate
    return (9000 * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype("<i2").tobytes()


def read_back(data: bytes, rate: int) -> np.ndarray:
    with av.open(io.BytesIO(data)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(float)


def encoded(name: str, rate: int, pcm: bytes, piece: int = 2205 * 2) -> list[bytes]:
    encoder = FORMATS[name].open(rate)
    pieces = [encoder.push(pcm[at : at + piece]) for at in range(0, len(pcm), piece)]
    return [*pieces, encoder.finish()]


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "opus", "aac"])
def test_what_was_encoded_sounds_the_same(name: str, rate: int) -> None:
    pcm = melody(rate)
    given, got = np.frombuffer(pcm, "<i2").astype(float), read_back(b"".join(encoded(name, rate, pcm)), rate)
    assert abs(len(got) - len(given)) <= 2 * 1_152  # mp3 and aac pad their ends, by less than two of their frames
    late = max(range(3000), key=lambda lag: correlation(given[: rate // 2], got[lag : lag + rate // 2]))
    assert correlation(given[: rate // 2], got[late : late + rate // 2]) > 0.98
    if name in ("wav", "flac"):
        assert np.array_equal(given, got)


@pytest.mark.parametrize("ms", range(400, 580, 20))
def test_nothing_is_lost_where_the_resampler_s_rest_fills_a_page(ms: int) -> None:
    got = read_back(b"".join(encoded("opus", 22_050, melody(22_050, ms))), 24_000)
    assert len(got) == pytest.approx(ms * 24, abs=24)


@pytest.mark.parametrize("name", ["pcm", "flac", "mp3", "opus", "aac"])
def test_a_stream_is_given_out_as_it_is_made(name: str) -> None:
    pieces = encoded(name, 22_050, melody(22_050, 3000))
    assert any(pieces[:8])
    assert sum(map(len, pieces[:-1])) > 0.8 * sum(map(len, pieces))
    assert FORMATS[name].streams


def test_wav_is_a_real_wav_and_comes_whole() -> None:
    pcm = melody(22_050)
    pieces = encoded("wav", 22_050, pcm)
    assert not any(pieces[:-1])
    assert read_wav(pieces[-1]) == (pcm, 22_050)


@pytest.mark.parametrize("name", FORMATS)
def test_silence_of_no_length_can_be_read(name: str) -> None:
    data = b"".join(encoded(name, 16_000, b""))
    if name == "pcm":
        assert data == b""
    else:
        with av.open(io.BytesIO(data)) as container:
            assert container.streams.audio


@pytest.mark.parametrize(
    ("name", "asked", "told"), [("opus", 22_050, 24_000), ("mp3", 22_050, 22_050), ("flac", 96_000, 96_000)]
)
def test_the_rate_told_is_the_rate_it_sounds_at(name: str, asked: int, told: int) -> None:
    assert FORMATS[name].open(asked).rate == told


def test_an_unknown_format_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match="flac, mp3, opus"):
        format_of("aiff")
    assert format_of("MP3").media == "audio/mpeg"
