"""The cast: the characters of one conversation, who of them is present, and their open speakers."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

from server.characters import Character, addressed, chosen
from server.errors import ConfigError, TTSError
from server.pipelines.engines import Speaker, Speech
from server.rack import Rack


class Cast:
    """`everybody` is who may be chosen; `active` the ids of those present, the first character if empty.

    Raises `ConfigError` for an id that does not exist."""

    def __init__(self, rack: Rack, everybody: Mapping[str, Character], active: Sequence[str]) -> None:
        self._rack = rack
        self.everybody = everybody
        self._speakers: dict[str, tuple[Speaker, int]] = {}
        self.last: Character | None = None
        self.choose(active or [next(iter(everybody))])

    def choose(self, ids: Sequence[str]) -> None:
        """These are present from now on. Raises `ConfigError`, and changes nothing, for one that does not exist."""
        self.present = {character.id: character for character in chosen(self.everybody, ids)}

    def addressed(self, text: str, otherwise: Literal["last", "all"]) -> list[Character]:
        """Who answers `text`."""
        return addressed(text, list(self.present.values()), self.last, otherwise)

    def named(self, id: str | None) -> Character:
        """The character `id`; None: the last who spoke, or the first present. Raises `ConfigError`."""
        if id:
            return chosen(self.everybody, [id])[0]
        present = list(self.present.values())
        return self.last if self.last in present and self.last else present[0]

    def speaker(self, character: Character) -> tuple[Speaker, int]:
        """The character's speaker and its rate in Hz, opened at first use. A voice that there is not is missed when it
        is to speak, so that the others present are not."""
        if character.id not in self._speakers:
            try:
                self._speakers[character.id] = self._rack.open(character.voice)
            except ConfigError as error:
                return _Missing(error), self._rack.tts().rate
        return self._speakers[character.id]

    def names(self) -> list[str]:
        """All names, as a model may write them before its lines."""
        return [name for c in self.present.values() for name in (c.name, *c.aliases)]

    def cards(self) -> list[dict[str, Any]]:
        return [character.card() for character in self.present.values()]

    def available(self) -> list[dict[str, Any]]:
        return [character.card() for character in self.everybody.values()]

    async def close(self) -> None:
        for speaker, _ in self._speakers.values():
            await speaker.close()


class _Missing:
    """The speaker of a voice that cannot be opened."""

    def __init__(self, error: ConfigError) -> None:
        self._error = error

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        raise TTSError(str(self._error), code=self._error.code)
        yield Speech(b"")

    async def close(self) -> None: ...
