"""The manner of a character on an engine: how it sounds there, also where it was written for another one."""

from dataclasses import replace

from server.characters import Character
from server.pipelines.engines import Voice
from server.settings import Settings, engine_for


def manner(settings: Settings, who: Character, engine: str, name: str = "") -> Voice:
    """How `who` sounds on `engine`, in the voice `name` if that is given: what is written for another engine is left
    out."""
    voice = who.on(engine).voice
    if engine not in who.voices and engine_for(settings, voice.engine).engine != engine:
        voice = replace(voice, name="", options={})
    return replace(voice, name=name or voice.name)
