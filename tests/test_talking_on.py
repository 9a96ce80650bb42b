"""The user talks on, or makes a noise, while what came before is still at work. On the virtual clock."""

import pytest

from server import events as e
from tests import fakes
from tests.talk import talk


@pytest.mark.parametrize("deaf", [False, True])
def test_a_noise_right_after_a_turn_does_not_cost_its_text(deaf: bool):
    it, _ = talk("Fine.", stt=fakes.FakeSTT(delay=0.8), interrupt={"thinking": not deaf})
    _, told = it.say("hello there").quiet(0.6).pcm(fakes.hum(40)).quiet(3).go()
    assert [x.text for x in told.of(e.TranscriptFinal)] == ["hello there"]
    assert fakes.words(told.audio()) == ["fine"]
