"""The rack: the engines of this process, opened once and shared by every session."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from server.errors import ConfigError
from server.pipelines.admission import Admission
from server.pipelines.counted import Counted
from server.pipelines.engines import LLM, STT, TTS, VAD, Codec, Engine, Kind, Speaker, TurnEnd, Voice
from server.pipelines.loading import load
from server.pipelines.quoting import brief, quoted
from server.pipelines.studio import at_once
from server.pipelines.tts._revoiced import revoiced
from server.settings import EngineSettings, Settings


class Rack:
    """The opened engines. A block: `async with Rack(...)` starts them all, and stops them in reverse."""

    def __init__(
        self,
        vad: VAD,
        stt: STT,
        llm: LLM,
        tts: TTS,
        *,
        turnend: TurnEnd | None = None,
        voices: Mapping[str, TTS] = {},
        codec: Codec | None = None,
    ) -> None:
        self.vad, self.stt, self.llm, self.turnend, self.codec = vad, stt, llm, turnend, codec
        self._default, self._voices = tts, dict(voices)
        for voice in (tts, *self._voices.values()):
            if hasattr(voice, "codec"):  # it receives tokens
                voice.codec = codec
        self.admissions = {name: Admission(e.streams, at_once=at_once(e)) for name, e in self.voices().items()}
        self.ready = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The engines that `settings` name, not yet started. Raises `ConfigError`, `EngineUnavailable`."""
        return cls(
            vad=_load("vad", settings.vad),
            stt=_load("stt", settings.stt),
            llm=_load("llm", settings.llm),
            tts=_load("tts", settings.tts),
            turnend=_load("turn_end", settings.turnend, "turnend") if settings.turnend.engine else None,
            voices={name: _load("tts", engine, f"voices.{name}") for name, engine in settings.voices.items()},
            codec=_load("codec", settings.codec) if settings.codec.engine else None,
        )

    def tts(self, name: str = "") -> TTS:
        """The TTS engine called `name` in the settings; empty: the default one. Raises `ConfigError`."""
        if not name:
            return self._default
        try:
            return self._voices[name]
        except KeyError:
            there = ", ".join(self._voices) or "none"
            raise ConfigError(
                f"no voice engine {quoted(name)}: add [voices.{brief(name)}] to the settings (there: {there})"
            ) from None

    def open(self, voice: Voice) -> tuple[Speaker, int]:
        """A speaker for `voice` in a conversation, and its rate in Hz. Raises `ConfigError` for a voice that does not
        exist."""
        tts = self.voiced(voice)
        return Counted(tts.open(voice), self.admission(voice)), tts.rate

    def admission(self, voice: Voice) -> Admission:
        """The queue before the engine for `voice`."""
        return self.admissions[voice.engine or _name(self._default)]

    def voiced(self, voice: Voice) -> TTS:
        """The engine for `voice`, behind the codec where it asks for that. Raises `ConfigError`."""
        return revoiced(self.tts(voice.engine), voice, self.codec)

    def voices(self) -> dict[str, TTS]:
        """The TTS engines by name, the default one first."""
        return {_name(self._default): self._default} | self._voices

    def engines(self) -> list[Engine]:
        """All of them, in the order they start."""
        voices = (self._default, *self._voices.values())
        return [e for e in (self.vad, self.turnend, self.stt, self.llm, self.codec, *voices) if e]

    def names(self) -> dict[str, str]:
        """Each kind's engine by name, as a client is told."""
        kinds: dict[str, object] = {"vad": self.vad, "stt": self.stt, "llm": self.llm, "tts": self._default}
        if self.codec:
            kinds["codec"] = self.codec
        return {kind: _name(engine) for kind, engine in kinds.items()}

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.TaskGroup() as group:
                for engine in self.engines():
                    group.create_task(engine.start())
        except BaseExceptionGroup as failed:
            await self._stop()
            raise failed.exceptions[0] from None
        self.ready = True
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.ready = False
        await self._stop()

    async def _stop(self) -> None:
        """All of them, even where one fails at it: a voice before the codec whose tokens it receives."""
        async with AsyncExitStack() as stack:
            for engine in self.engines():
                stack.push_async_callback(engine.stop)


def _load(kind: Kind, settings: EngineSettings, table: str = "") -> Any:
    return load(kind, settings.engine, settings.options, table)


def _name(engine: object) -> str:
    """`auto` engines say what they chose; others are called after their module."""
    return str(getattr(engine, "name", None) or type(engine).__module__.rsplit(".", 1)[-1])
