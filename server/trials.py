"""Trials: each configured engine is started, asked for one small piece of its work, and stopped."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from server.audio import SAMPLE
from server.characters import Character
from server.errors import CodecError, ConfigError, EngineUnavailable, ParleyError
from server.pipelines.engines import FRAME, HEARING_RATE, Coded, Kind, LLMSettings, Message, Voice
from server.pipelines.loading import load
from server.settings import EngineSettings, Settings

PATIENCE_S = 180.0  # for one engine to start and to do its piece of work

Work = Callable[[Any], Awaitable[str]]


def trials(settings: Settings, everybody: Sequence[Character]) -> Iterator[tuple[Kind, str, EngineSettings, Work]]:
    """What is tried: the kind, its name in the settings, the engine, and its piece of work."""

    def voices(name: str) -> Work:
        return lambda tts: _speaks(tts, [c for c in everybody if c.voice.engine == name])

    yield "vad", "vad", settings.vad, _detects
    if settings.turnend.engine:
        yield "turn_end", "turnend", settings.turnend, _judges
    yield "stt", "stt", settings.stt, lambda stt: _listens(stt, settings.language)
    yield "llm", "llm", settings.llm, _answers
    yield "tts", "tts", settings.tts, voices("")
    for name, engine in settings.voices.items():
        yield "tts", f"voices.{name}", engine, voices(name)
    if settings.codec.engine:
        yield "codec", "codec", settings.codec, _codes


async def tried(
    kind: Kind, settings: EngineSettings, work: Work, codec: EngineSettings | None = None, table: str = ""
) -> tuple[str, bool]:
    """The engine of `table` (empty: its kind's) started, tried and stopped: what to tell, and whether that is all well.
    `codec` is for an engine that receives tokens.

    Raises `ParleyError`, whatever goes wrong."""
    began = time.perf_counter()
    try:
        engine = load(kind, settings.engine, settings.options, table)
        decoder = load("codec", codec.engine, codec.options) if codec and hasattr(engine, "codec") else None
        try:
            async with asyncio.timeout(PATIENCE_S):
                if decoder:
                    engine.codec = decoder
                    await decoder.start()
                await engine.start()
                done = await work(engine)
        finally:
            await engine.stop()
            if decoder:
                await decoder.stop()
    except ParleyError:
        raise
    except TimeoutError:
        raise EngineUnavailable(f"not done within {PATIENCE_S:g} s") from None
    except Exception as error:
        raise EngineUnavailable(f"{type(error).__name__}: {error}") from error
    if notice := getattr(engine, "notice", ""):
        return f"{getattr(engine, 'name', settings.engine)}: {notice}", False
    return f"{settings.engine}: {done}, {time.perf_counter() - began:.1f} s with its start", True


async def _detects(vad: Any) -> str:
    await vad.open().push(np.zeros(FRAME, np.float32))
    return "looks at frames"


async def _judges(turnend: Any) -> str:
    await turnend.complete(np.zeros(HEARING_RATE, np.float32))
    return "judges turns"


async def _listens(stt: Any, language: str) -> str:
    recogniser = stt.open(language)
    try:
        await recogniser.feed(bytes(HEARING_RATE))
        await recogniser.finish()
    finally:
        await recogniser.close()
    return f"listens ({language})"


async def _answers(llm: Any) -> str:
    messages = [Message("system", "You are brief."), Message("user", "Say hello.")]
    async with aclosing(llm.stream(messages, LLMSettings(max_tokens=200))) as deltas:
        async for delta in deltas:
            if delta.strip():
                return f"{getattr(llm, 'name', 'it')} answers"
    raise ConfigError("the model answered nothing at all; is it a chat model?")


async def _speaks(tts: Any, cast: list[Character]) -> str:
    """Every character's voice opens, and the first one speaks; without any, the engine's own."""
    speakers = [tts.open(voice) for voice in [c.voice for c in cast] or [Voice()]]
    try:
        for speaker in speakers[:1]:
            async with aclosing(speaker.speak("Hello.")) as speech:
                if not any([piece.pcm async for piece in speech]):
                    raise ConfigError("it made no sound")
    finally:
        for speaker in speakers:
            await speaker.close()
    about = getattr(tts, "about", "")  # what an engine has to say of its machine: card, memory, streams in real time
    whom = f" for {', '.join(c.name for c in cast)}" if cast else ", with no character of its own"
    return f"speaks{whom}" + (f"; {about}" if about else "")


async def _codes(codec: Any) -> str:
    try:
        coded = await codec.encode(bytes(HEARING_RATE * SAMPLE), HEARING_RATE)
        told = f"a second is {len(coded.tokens)} tokens"
    except CodecError as error:
        if error.code != "no_encoder":
            raise
        coded, told = Coded(np.arange(12), np.zeros(128, np.float32)), "only decodes"
    if not await codec.decode(coded):
        raise ConfigError("it decoded nothing")
    files = f"; {', '.join(held())}" if (held := getattr(codec, "files", None)) else ""
    return told + files
