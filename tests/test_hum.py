"""A hum is told by its sound, and words never are taken for one."""

import numpy as np
import pytest

from bench.sayings import HUMS
from server import events as e
from server.audio import SAMPLE, to_float, to_pcm
from server.ear import Hummed
from server.floor import Announce, Draft, Forget, Interrupt, Peek, Resume, Settled
from server.pipelines.hum import hummed
from server.pipelines.turn import Lulled, Onset, Rejoined, Started
from server.reply import Phase
from tests import fakes, speech
from tests.talk import talk
from tests.test_barge_in import floor

SHORT = ("no", "stop", "wait", "what", "why", "hey", "please", "one", "now", "don't", "me too", "hold on")


@pytest.mark.parametrize("pitch", [90, 130, 200, 250])
@pytest.mark.parametrize("name", HUMS)
def test_a_hum_is_one(name: str, pitch: float):
    assert hummed(HUMS[name](pitch) + speech.silence(200))


@pytest.mark.parametrize("voice", ["slt", "rms", "awb", "kal16"])
@pytest.mark.parametrize("text", SHORT)
def test_a_word_is_none(text: str, voice: str):
    assert not hummed(speech.say(text, voice))


def test_a_hum_that_turns_into_words_is_none():
    assert not hummed(HUMS["mm"](130) + speech.say("no", "awb"))


def test_a_human_voice_says_no_hum():
    if (pcm := speech.human()) is None:
        pytest.skip("the human recording is not at hand")
    step = 16_000 * SAMPLE * 6 // 10
    loud = [pcm[i : i + step] for i in range(0, len(pcm), step)]
    loud = [piece for piece in loud if np.abs(to_float(piece)).max() > 0.1]
    assert len(loud) > 10
    assert not any(map(hummed, loud))


def test_noise_rumble_silence_and_nothing_are_none():
    t = np.arange(16_000) / 16_000
    rumble = to_pcm((0.3 * np.sin(2 * np.pi * 60 * t)).astype(np.float32))
    for pcm in (b"", bytes(20), speech.noise(500), speech.silence(500), rumble, speech.cough()):
        assert not hummed(pcm)


def test_a_long_hum_is_a_sound_of_its_own():
    assert not hummed(HUMS["mm"](130) * 8)


def test_a_hum_lets_a_reply_that_is_held_go_on():
    it = floor(backchannels=())
    it.step(Onset(0), Phase.SPEAKING)
    it.step(Started(0), Phase.SPEAKING)
    assert it.step(Hummed(400), Phase.SPEAKING) == []
    assert it.step(Lulled(400), Phase.SPEAKING) == [Peek(400)]
    assert it.step(Settled("move"), Phase.SPEAKING) == [Resume("backchannel"), Announce(False, -1.0), Forget(told=True)]


def test_words_after_a_hum_are_words():
    it = floor(backchannels=())
    it.step(Onset(0), Phase.SPEAKING)
    it.step(Hummed(400), Phase.SPEAKING)
    it.step(Rejoined(500), Phase.SPEAKING)
    assert it.step(Settled("move over"), Phase.SPEAKING) == [Interrupt(), Draft("move over")]


def test_a_hum_in_a_turn_of_its_own_is_an_ordinary_one():
    it = floor()
    it.step(Onset(0), None)
    assert it.step(Hummed(400), None) == []


def test_a_hum_needs_no_recogniser():
    it, _ = talk(stt=fakes.FakeSTT(delay=2.0))
    it.send("user.text", text="count").quiet(1.0).pcm(HUMS["mm hmm"](130))
    ended = it._now
    _, told = it.quiet(4).go()
    assert told.last(e.ReplyResumed).reason == "backchannel"
    assert told.at(e.ReplyResumed) - ended <= 0.25 + 2 * 0.032 + 0.02
    assert told.of(e.ReplyInterrupted) == []
