"""The studio: which voice and engine a client gets for what it asks."""

import os

import pytest

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.engines import Voice
from server.pipelines.studio import Studio
from server.pipelines.tts import espeak, flite

try:
    flite.create()
    NEED_FLITE = pytest.mark.skipif(False, reason="")
except EngineUnavailable as error:
    NEED_FLITE = pytest.mark.skipif(True, reason=str(error))


def test_a_character_asked_to_speak_another_language_does_and_keeps_its_accent_in_its_own() -> None:
    finn = Voice(language="en", options={"language": "en-gb-scotland", "variant": "m3"})
    company = Studio({"espeak": espeak.create()}, {"finn": finn})
    assert company.find("finn", language="en")[1] == finn
    _, voice = company.find("finn", language="de")
    assert (voice.language, voice.options) == ("de", {"variant": "m3"})


@NEED_FLITE
def test_an_engine_is_what_it_is_under_any_name_of_the_settings() -> None:
    company = Studio({"espeak": espeak.create(), "robot": espeak.create(), "woman": flite.create()})
    assert company.find("john", model="robot")[1].options == company.find("john")[1].options == {"variant": "m3"}
    assert company.find("leo", model="woman")[1].name == "kal16"
    with pytest.raises(ConfigError, match="Unknown language 'de'"):
        company.find("leo", model="woman", language="de")
    assert {booth.admission.at_once for booth in company.booths.values()} == {os.cpu_count() or 1}
