"""The test speech itself: it has the right length, is never exactly zero, and is what it says it is."""

import numpy as np
import pytest

from server.audio import milliseconds
from tests import speech


def samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2").astype(float)


def test_say_is_speech_at_the_rate_asked_for() -> None:
    pcm = speech.say("Hello there, how are you?")
    assert 1200 < milliseconds(pcm, 16_000) < 3000
    assert samples(pcm).std() > 500
    for rate in (8_000, 24_000, 48_000):
        assert milliseconds(speech.say("Hello there, how are you?", rate=rate), rate) == pytest.approx(
            milliseconds(pcm, 16_000), abs=2
        )


def test_voices_differ() -> None:
    assert len({speech.say("Hello there.", voice) for voice in ("slt", "rms", "kal", "kal16")}) == 4


def test_what_was_said_once_is_kept() -> None:
    assert speech.say("Hello there.") is speech.say("Hello there.")


def test_silence_is_quiet_and_noise_as_loud_as_asked() -> None:
    assert milliseconds(speech.silence(250), 16_000) == 250
    assert np.abs(samples(speech.silence(2000))).max() < 20
    assert samples(speech.noise(2000, 0.1)).std() / 32768 == pytest.approx(0.1, rel=0.05)


def test_a_cough_is_short_loud_and_over() -> None:
    cough = samples(speech.cough())
    assert 200 < len(cough) / 16 < 500
    assert np.abs(cough).max() > 10_000
    assert np.abs(cough[-160:]).max() < 0.1 * np.abs(cough).max()


def test_nothing_is_ever_exactly_zero() -> None:
    sounds = [
        speech.say("One. Two."),
        speech.silence(100),
        speech.noise(100),
        speech.cough(),
        speech.human() or b"\1\0",
    ]
    assert all(samples(pcm).all() for pcm in sounds)


def test_the_human_speaks_for_eleven_seconds() -> None:
    if (pcm := speech.human()) is None:
        pytest.skip("the recording is not at hand: put jfk.wav into ../shared/speech")
    assert milliseconds(pcm, 16_000) == pytest.approx(11_000, abs=10)
