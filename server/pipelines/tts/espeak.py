"""espeak-ng in process: small, fast, over a hundred languages, and as many characters as one cares to shape.

Library: espeak-ng 1.52 (GPL-3) out of the package `espeakng-loader`. It streams and knows when each word sounds.
"""

import asyncio
import functools
import tempfile
import unicodedata
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import espeakng_loader

from server.audio import SAMPLE
from server.errors import TTSError
from server.pipelines.crew import Crew, Worker
from server.pipelines.engines import Count, Speech, Voice
from server.pipelines.silenced import Silenced
from server.pipelines.threads import pour
from server.pipelines.timing import later
from server.pipelines.tts import _catalogue
from server.pipelines.tts._libespeak import RATE, Copy, Manner
from server.pipelines.tts._options import number, one_of
from server.pipelines.tts._pieces import pieces, speakable

PIECE = 300  # letters in one call of the library: about 20 s of speech, 0.9 MB


def create(voice: str = "en-us", variant: str = "", rate: float = 175, workers: Count = 8) -> "Espeak":
    """`voice`, `variant` and `rate` (words a minute) are for characters that name none; `workers`: how many utterances
    may be under way at the same time, each in a copy of the library (1.6 MB). Raises `ConfigError`."""
    return Espeak(voice, {"variant": variant, "rate": rate}, workers)


class Espeak:
    rate = RATE
    streams = 100

    def __init__(self, voice: str, options: Mapping[str, Any], workers: int) -> None:
        self._voice = voice
        self._options = options
        self._size = workers
        self._crew = Crew[Copy]()
        self._manner(Voice(name=voice))  # says at once what is wrong with the configuration

    async def start(self) -> None:
        """Loads a private copy of the library per worker. Raises `EngineUnavailable`."""
        try:
            with tempfile.TemporaryDirectory(prefix="espeak-", ignore_cleanup_errors=True) as folder:
                for number_ in range(self._size):
                    await self._hire(Copy(Path(folder, str(number_))))
        except BaseException:
            await self.stop()
            raise

    async def _hire(self, copy: Copy) -> None:
        thread = Worker("espeak")
        self._crew.add(copy, thread)
        run = asyncio.get_running_loop().run_in_executor
        await run(thread, copy.load)
        await run(thread, copy.say, "Hello.", self._manner(Voice()), lambda speech: True)

    async def stop(self) -> None:
        run = asyncio.get_running_loop().run_in_executor
        for copy, thread in self._crew.leave():
            await run(thread, copy.close)
            thread.shutdown(wait=False)

    def worker(self) -> tuple[Copy, Worker]:
        """Whose turn it is. Raises `TTSError` where the engine is not running."""
        if member := self._crew.next():
            return member
        raise TTSError("engine 'espeak' is not started")

    def voices(self) -> Sequence[str]:
        return tuple(_catalogue.languages(espeakng_loader.get_data_path()))

    @property
    def languages(self) -> Sequence[str]:
        """All that `Voice.language` may be: the voices, and what else their languages are called (`zh`, `en-gb`)."""
        return tuple(dict.fromkeys([*self.voices(), *_catalogue.tags(espeakng_loader.get_data_path())]))

    def open(self, voice: Voice) -> "EspeakSpeaker":
        """`voice.name` is a language, with a variant or without (`en-us+f3`). `voice.options`: `language`, `variant`,
        `pitch` and `pitch_range` 0-99 (50 is normal), `rate` in words a minute (80-450), `speed` (a factor on it),
        `volume` 0-200 (100 is normal). Raises `ConfigError`."""
        return EspeakSpeaker(self, self._manner(voice))

    def _manner(self, voice: Voice) -> Manner:
        options = {**self._options, **voice.options}
        name, _, variant = str(voice.name or options.get("language") or self._spoken(voice.language)).partition("+")
        of = functools.partial(number, "espeak", options)
        return Manner(
            voice=_identifier(name, variant or str(options["variant"])),
            rate=of("rate", 175, 80, 450) * of("speed", 1, 0.25, 4) * voice.speed,
            pitch=of("pitch", 50, 0, 99),
            pitch_range=of("pitch_range", 50, 0, 99),
            volume=of("volume", 100, 0, 200),
        )

    def _spoken(self, language: str) -> str:
        """The configured voice where it speaks `language`, so that `en` is the accent that was chosen, or none is asked
        for."""
        own = self._voice.partition("+")[0].split("-")[0]
        return self._voice if language in ("", own) else language


class EspeakSpeaker:
    def __init__(self, engine: Espeak, manner: Manner) -> None:
        self._engine = engine
        self._manner = manner

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """Long texts are made a piece at a time, the next one only when the listener has taken it. So a listener who
        pauses keeps no worker, and at most one piece in memory."""
        spoken = 0  # bytes
        for offset, piece in pieces(text, PIECE):
            if not speakable(piece):
                continue
            copy, thread = self._engine.worker()
            before = spoken / SAMPLE / RATE * 1000
            job = functools.partial(copy.say, without_pictures(piece), self._manner)
            async with aclosing(pour(job, thread)) as made:
                async for speech in made:
                    spoken += len(speech.pcm)
                    yield later(speech, offset, before)

    async def close(self) -> None:
        return None


def _silent(char: str) -> bool:
    category = unicodedata.category(char)
    return category in ("Cc", "Cf", "Cs", "Co", "Cn") or (category in ("So", "Sk", "Mn") and char > "\u2190")


_AUDIBLE = Silenced(_silent)


def without_pictures(text: str) -> str:
    """`text` with a space for each emoji, arrow and control character."""
    return text.translate(_AUDIBLE)


@functools.cache
def _identifier(name: str, variant: str) -> str:
    data = espeakng_loader.get_data_path()
    languages = _catalogue.languages(data)
    voice = languages[one_of("espeak", "voice", _catalogue.also(data).get(name.lower(), name), languages)]
    return f"{voice}+{one_of('espeak', 'variant', variant, _catalogue.variants(data))}" if variant else voice
