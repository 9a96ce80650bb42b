"""The manner of a character on an engine: how it sounds there, also where it was written for another one. Pure."""

from dataclasses import replace

from server.characters import Character
from server.pipelines.engines import Voice
from server.settings import EngineSettings, Settings


def engine_for(settings: Settings, name: str) -> EngineSettings:
    """The settings of the TTS engine called `name`: under [voices], or a module; empty: the default's."""
    if name in settings.voices:
        return settings.voices[name]
    return settings.tts if name in ("", settings.tts.engine) else EngineSettings(engine=name)


def manner(settings: Settings, who: Character, engine: str, name: str = "") -> Voice:
    """How `who` sounds on `engine`, in the voice `name` if that is given: what is written for another engine is left
    out."""
    voice = who.on(engine).voice
    if engine not in who.voices and engine_for(settings, voice.engine).engine != engine:
        voice = replace(voice, name="", options={})
    return replace(voice, name=name or voice.name)
