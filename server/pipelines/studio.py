"""The studio: which voices there are, by any name a client may know them, and the engines that have them."""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from server.errors import ConfigError
from server.pipelines.admission import Admission
from server.pipelines.engines import TTS, Voice
from server.pipelines.joins import Seams
from server.pipelines.narrator import Narrator
from server.pipelines.quoting import quoted

# Names that clients of other services send, each with what it stands for: a woman's voice or a man's, and which.
CUSTOMARY = {
    "aria": "f1", "sofia": "f2", "john": "m1", "jason": "m2", "leo": "m3",
    "alloy": "f3", "ash": "m1", "ballad": "m2", "cedar": "m3", "coral": "f1", "echo": "m1", "fable": "m2",
    "marin": "f2", "nova": "f1", "onyx": "m3", "sage": "f2", "shimmer": "f3", "verse": "m2",
}  # fmt: skip
_KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "espeak": {k: {"options": {"variant": v}} for k, v in zip(
        ("f1", "f2", "f3", "m1", "m2", "m3"), ("f2", "f3", "f4", "m3", "m7", "m1"), strict=True)},
    "flite": {k: {"name": v} for k, v in zip(
        ("f1", "f2", "f3", "m1", "m2", "m3"), ("slt", "slt", "slt", "rms", "awb", "kal16"), strict=True)},
}  # fmt: skip


def kind(engine: TTS) -> str:
    """Which engine it is, whatever the settings call it."""
    return type(engine).__module__.rsplit(".", 1)[-1]


def at_once(engine: TTS) -> int:
    """How many turns make sense at the same time: for what computes in this process, one for each core."""
    return os.cpu_count() or 1 if kind(engine) in ("espeak", "flite", "kokoro", "pocket_tts") else 0


@dataclass(frozen=True)
class Booth:
    """An engine and the queue before it."""

    name: str
    engine: TTS
    admission: Admission

    @property
    def languages(self) -> Sequence[str]:
        """The languages it speaks; empty: it does not tell."""
        known: Sequence[str] | None = getattr(self.engine, "languages", None)
        return known or (("en",) if kind(self.engine) == "flite" else ())


class Studio:
    """All engines' voices. `engines`: by name, the default first; `cast`: further voices by the name clients use, and
    `abroad` how they sound on each other engine; `voiced`: the engine that stands before another for a certain voice (a
    codec, say); `admissions`: the queues before the engines, where others count in them too."""

    def __init__(
        self,
        engines: Mapping[str, TTS],
        cast: Mapping[str, Voice] | None = None,
        *,
        abroad: Mapping[str, Mapping[str, Voice]] = {},
        voiced: Callable[[TTS, Voice], TTS] = lambda engine, voice: engine,
        waiting: int = 32,
        patience_s: float = 10.0,
        admissions: Mapping[str, Admission] | None = None,
    ) -> None:
        self._voiced = voiced
        self._cast = _lowered(cast or {})
        self._abroad = {engine: _lowered(voices) for engine, voices in abroad.items()}
        admissions = admissions or {name: Admission(e.streams, at_once=at_once(e)) for name, e in engines.items()}
        for admission in admissions.values():
            admission.waiting, admission.patience_s = waiting, patience_s
        self.booths = {name: Booth(name, engine, admissions[name]) for name, engine in engines.items()}

    @property
    def default(self) -> Booth:
        return next(iter(self.booths.values()))

    def named(self) -> list[str]:
        """The names worth telling a client: the cast, the customary ones, and the default engine's if they are few."""
        own = self.default.engine.voices()
        return [*dict.fromkeys([*self._cast, *(own if len(own) <= 60 else ()), *CUSTOMARY])]

    def languages(self) -> list[str]:
        """What the default engine speaks."""
        return list(self.default.languages) or ["en"]

    def catalogue(self) -> list[dict[str, str]]:
        """Every voice, as a client is told."""
        own = [
            {"id": name, "name": name, "engine": booth.name, "kind": "engine"}
            for booth in self.booths.values()
            for name in booth.engine.voices()
        ]
        cast = [
            {"id": name, "name": name, "engine": voice.engine or self.default.name, "kind": "character"}
            for name, voice in self._cast.items()
        ]
        customary = [{"id": n, "name": n, "engine": self.default.name, "kind": "alias"} for n in CUSTOMARY]
        return cast + customary + own

    def find(self, name: str = "", *, model: str = "", language: str = "", **given: Any) -> tuple[Booth, Voice]:
        """The voice `name` (any case) of the engine `model` (anything unknown: the default one), speaking `language`.

        `given` are further fields of `Voice`. Raises `ConfigError` for what does not exist."""
        booth = self.booths.get(model, self.default)
        voice = self._voice(booth, name)
        if voice.engine:
            booth = self._booth(voice.engine)
        if language:
            voice = _speaking(voice, self._language(booth, language))
        voice = replace(voice, **{key: value for key, value in given.items() if value not in (None, "")})
        return replace(booth, engine=self._voiced(booth.engine, voice)), voice

    @asynccontextmanager
    async def narrator(
        self, booth: Booth, voice: Voice, *, client: str = "", rate: int = 0, seams: Seams | None = None
    ) -> AsyncIterator[Narrator]:
        """Somebody to read with `voice`, at `rate` Hz (0: the engine's own). Raises `ConfigError`, `TTSError`."""
        speaker = booth.engine.open(voice)
        try:
            async with booth.admission.stream(client) as stream:
                yield Narrator(speaker, booth.engine.rate, stream, rate=rate, seams=seams)
        finally:
            await speaker.close()

    def _booth(self, name: str) -> Booth:
        try:
            return self.booths[name]
        except KeyError:
            raise ConfigError(f"no voice engine {quoted(name)}; there are: {', '.join(self.booths)}") from None

    def _voice(self, booth: Booth, name: str) -> Voice:
        wanted, engine = name.strip().lower(), "" if booth is self.default else booth.name
        if not wanted:
            return Voice(engine=engine)
        own = {voice.lower(): voice for voice in booth.engine.voices()}
        if wanted in own:
            return Voice(name=own[wanted], engine=engine)
        if wanted in self._cast:
            voice = self._cast[wanted]
            return voice if voice.engine else self._abroad.get(engine, {}).get(wanted, voice)
        if wanted in CUSTOMARY:
            return Voice(engine=engine, **self._stand_in(booth, wanted))
        if "+" in wanted and wanted.partition("+")[0] in own:  # espeak: a language with a variant
            return Voice(name=name.strip(), engine=engine)
        raise ConfigError(f"Unknown voice {quoted(name)}. Available: {self.named()}")

    def _stand_in(self, booth: Booth, name: str) -> dict[str, Any]:
        """What of this engine stands in for a customary name."""
        if known := _KINDS.get(kind(booth.engine)):
            return known[CUSTOMARY[name]]
        voices = booth.engine.voices()
        return {"name": voices[list(CUSTOMARY).index(name) % len(voices)]} if voices else {}

    def _language(self, booth: Booth, language: str) -> str:
        if not (spoken := booth.languages):
            return language
        tag = language.lower().replace("_", "-")
        if found := next((name for name in (tag, tag.split("-")[0]) if name in spoken), ""):
            return found
        raise ConfigError(f"Unknown language {quoted(language)}. Available: {list(spoken)}")


def _speaking(voice: Voice, language: str) -> Voice:
    """`voice` in `language`. An accent of its own (espeak's `language`) is kept where it is one of that language."""
    own = str(voice.options.get("language", language))
    foreign = {"language"} if own.split("-")[0] != language.split("-")[0] else set()
    options = {name: value for name, value in voice.options.items() if name not in foreign}
    return replace(voice, language=language, options=options)


def _lowered(voices: Mapping[str, Voice]) -> dict[str, Voice]:
    return {name.lower(): voice for name, voice in voices.items()}
