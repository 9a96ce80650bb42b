"""Characters: who they are, how they sound, and who of them is addressed."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from server.errors import ConfigError
from server.pipelines.engines import Voice
from server.pipelines.quoting import quoted


@dataclass(frozen=True)
class Character:
    """One character, as a file of `configs/characters/` describes it. `picture` is a path the page can show; `voices`
    are those that `voice` gives way to where the TTS engine is the one they are named after."""

    id: str
    name: str
    prompt: str
    greeting: str = ""
    description: str = ""
    picture: str = ""
    aliases: tuple[str, ...] = ()
    voice: Voice = field(default_factory=Voice)
    voices: Mapping[str, Voice] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    def on(self, engine: str) -> "Character":
        """The same, as it sounds on the TTS engine `engine`."""
        return replace(self, voice=self.voices[engine]) if engine in self.voices else self

    def card(self) -> dict[str, Any]:
        """What a client is told."""
        return {"id": self.id, "name": self.name, "description": self.description, "picture": self.picture}


_character = TypeAdapter(Character)


def read(directory: Path, engine: str = "") -> dict[str, Character]:
    """The characters of `directory`, by id, in the order of their file names, as they sound on the TTS engine `engine`.

    Raises `ConfigError`, naming the file."""
    if not (paths := sorted(directory.glob("*.toml"))):
        raise ConfigError(f"no characters in {directory}: characters.directory must hold *.toml files")
    characters = {character.id: character for character in map(_read_one, paths)}
    if len(characters) < len(paths):
        raise ConfigError(f"{directory}: two characters share an id")
    return {id: character.on(engine) for id, character in characters.items()}


def _read_one(path: Path) -> Character:
    try:
        character = _character.validate_python({"id": path.stem, **tomllib.loads(path.read_text("utf-8"))})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    voices = {engine: _beside(path, voice) for engine, voice in character.voices.items()}
    return replace(character, voice=_beside(path, character.voice), voices=voices)


def _beside(path: Path, voice: Voice) -> Voice:
    """`voice`, with its recording where it lies: beside the file that names it."""
    return replace(voice, reference=path.parent / voice.reference) if voice.reference else voice


def chosen(characters: Mapping[str, Character], ids: Sequence[str]) -> list[Character]:
    """The characters with `ids`, each once. Raises `ConfigError` for one that does not exist."""
    if strange := [i for i in ids if i not in characters]:
        raise ConfigError(f"no character {quoted(strange[0])}; there are: {', '.join(characters)}")
    return [characters[i] for i in dict.fromkeys(ids)]


def addressed(
    text: str, active: Sequence[Character], last: Character | None, otherwise: Literal["last", "all"]
) -> list[Character]:
    """Who answers `text`: those it names (whole words, any case) in the order of their first appearance; if it names
    nobody, the `last` who spoke, or `all`."""
    places = [(place, c) for c in active if (place := _named(text, c)) is not None]
    if places:
        return [c for _, c in sorted(places, key=lambda found: found[0])]
    if otherwise == "all":
        return list(active)
    return [last if last in active and last is not None else active[0]]


def _named(text: str, character: Character) -> int | None:
    names = "|".join(re.escape(name) for name in (character.name, *character.aliases))
    found = re.search(rf"(?<!\w)(?:{names})(?!\w)", text, re.IGNORECASE)
    return found.start() if found else None
