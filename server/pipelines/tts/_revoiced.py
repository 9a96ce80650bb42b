"""Any engine's speech through a codec on its way out: in the timbre of a recording, or just brought to 48 kHz.

`method = "convert"` keeps what is said and how, and takes the voice of the character's `reference`;
`upsample = "linacodec"` keeps the voice too. Speech goes through in segments cut where it is quiet, so that the first
is heard while the engine makes the next; lengths stay, and with them the timings of words.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np

from server.audio import SAMPLE, milliseconds, size
from server.errors import CodecError, ConfigError, TTSError
from server.pipelines.engines import TTS, Codec, Samples, Speaker, Speech, Voice, Word
from server.pipelines.tiers.ahead import ahead

FIRST_MS, LATER_MS = 1_500, 4_000  # how much speech is waited for
SEARCH_MS = 600  # before the end of it, in which to look for a quiet place
QUIET_MS = 20
LONG_ENOUGH_MS = 1_000  # to take the voice from


def revoiced(tts: TTS, voice: Voice, codec: Codec | None) -> TTS:
    """`tts` as `voice` needs it: itself, or behind `codec`. Raises `ConfigError`."""
    converts = voice.method == "convert"
    if voice.upsample not in ("", "linacodec"):
        raise ConfigError(f"voice.upsample = {voice.upsample!r}: only 'linacodec' is known")
    if not converts and not voice.upsample:
        return tts
    what = "voice.method = 'convert'" if converts else "voice.upsample = 'linacodec'"
    if codec is None:
        raise ConfigError(f"{what} needs a codec: set [codec] engine = 'linacodec'")
    if converts and voice.reference is None:
        raise ConfigError(f"{what} needs voice.reference, a recording to take the timbre from")
    return Revoiced(tts, codec)


class Revoiced:
    """A `TTS` before another, at the codec's rate."""

    def __init__(self, tts: TTS, codec: Codec) -> None:
        self._tts, self._codec = tts, codec
        self.rate, self.streams = codec.rate, tts.streams

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    def open(self, voice: Voice) -> "RevoicedSpeaker":
        method = "preset" if voice.method == "convert" else voice.method
        reference = None if voice.method == "convert" else voice.reference
        plain = replace(voice, method=method, reference=reference, upsample="")
        return RevoicedSpeaker(self._tts.open(plain), self._tts.rate, self._codec, voice)

    def voices(self) -> Sequence[str]:
        return self._tts.voices()


class RevoicedSpeaker:
    def __init__(self, speaker: Speaker, rate: int, codec: Codec, voice: Voice) -> None:
        self._speaker, self._rate, self._codec, self._voice = speaker, rate, codec, voice
        self._embedding: Samples | None = None

    async def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        try:
            if self._voice.method == "convert" and self._voice.reference and self._embedding is None:
                self._embedding = await self._codec.embedding(self._voice.reference)
            async with aclosing(ahead(self._segments(text))) as segments:
                async for pcm, words in segments:
                    coded = await self._codec.encode(pcm, self._rate, self._embedding)
                    if self._embedding is None and milliseconds(pcm, self._rate) >= LONG_ENOUGH_MS:
                        self._embedding = coded.embedding
                    yield Speech(await self._codec.decode(coded), words)
        except (CodecError, ConfigError) as error:
            raise TTSError(str(error), code=error.code) from error

    async def close(self) -> None:
        await self._speaker.close()

    async def _segments(self, text: str) -> AsyncGenerator[tuple[bytes, tuple[Word, ...]], None]:
        held, words, due = b"", list[Word](), size(FIRST_MS, self._rate)
        async with aclosing(self._speaker.speak(text)) as speech:
            async for piece in speech:
                held += piece.pcm
                words += piece.words
                while len(held) >= due:
                    cut = quietest(held[:due], self._rate)
                    yield held[:cut], tuple(words)
                    held, words, due = held[cut:], [], size(LATER_MS, self._rate)
        if len(held) >= SAMPLE:
            yield held, tuple(words)


def quietest(pcm: bytes, rate: int) -> int:
    """Where in the last `SEARCH_MS` of `pcm` it is quietest, in bytes: a place to cut."""
    frame = size(QUIET_MS, rate)
    begin = max(frame, len(pcm) - size(SEARCH_MS, rate))
    samples = np.frombuffer(pcm[begin : begin + (len(pcm) - begin) // frame * frame], "<i2").astype(np.float32)
    if not len(samples):
        return len(pcm)
    energy = (samples.reshape(-1, frame // SAMPLE) ** 2).mean(axis=1)
    return begin + int(energy.argmin()) * frame + frame // 2 // SAMPLE * SAMPLE
