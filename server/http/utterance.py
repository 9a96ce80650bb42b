"""One utterance that somebody asks for over HTTP: what they may ask, and the audio or events it becomes."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from server.errors import LimitError, ParleyError, ProtocolError
from server.pipelines.encoders import Encoder, Format, Raw, format_of
from server.pipelines.engines import Speech, Voice, Word
from server.pipelines.narrator import DEFAULT, PRESETS, Chunks, Preset, described
from server.pipelines.studio import Booth, Studio

T = TypeVar("T")
LONGEST = 20_000  # characters in one request
NDJSON, SSE = "{}\n", "data: {}\n\n"
SMOOTH = Preset(2, 4, 0)  # frames: small enough to start at once, large enough not to be mostly headers


class Utterance(BaseModel):
    """What is to be said. Fields of other services that mean nothing here are ignored."""

    input: str
    voice: str | dict[str, Any] | None = None
    model: str | None = None
    language: str | None = None
    instructions: str | None = None
    speed: Annotated[float, Field(ge=0.25, le=4)] | None = None
    response_format: str | None = None
    stream_format: Literal["audio", "sse", "ndjson"] | None = None
    sample_rate: Annotated[int, Field(ge=8_000, le=48_000)] | None = None

    @property
    def voice_name(self) -> str:
        return str(self.voice.get("id") or "") if isinstance(self.voice, dict) else self.voice or ""


class Streamed(Utterance):
    """The same in chunks of a size that is asked for, in frames of 46.4 ms."""

    preset: str | None = None
    first_chunk_frames: Annotated[int, Field(ge=1, le=1000)] = DEFAULT.first
    chunk_size_frames: Annotated[int, Field(ge=1, le=1000)] = DEFAULT.later
    overlap_frames: Annotated[int, Field(ge=0, le=1000)] = DEFAULT.overlap

    @property
    def sizes(self) -> Preset:
        """A preset that is not known is `conservative`; without one the frames count."""
        if self.preset:
            return PRESETS.get(self.preset, PRESETS["conservative"])
        return Preset(self.first_chunk_frames, self.chunk_size_frames, self.overlap_frames)


class Take:
    """One utterance on its way out. Raises `ConfigError` for what cannot be had."""

    def __init__(self, studio: Studio, asked: Utterance, client: str, sizes: Preset = SMOOTH) -> None:
        self.booth, self.voice = find(studio, asked)
        self.format: Format = format_of(asked.response_format or "pcm")
        self.rate = asked.sample_rate or self.booth.engine.rate
        self._encoder: Encoder = Raw(self.rate)  # until its own is open
        self.ms = 0.0  # made so far
        self._studio, self._text, self._client, self._sizes = studio, asked.input, client, sizes

    async def speech(self) -> AsyncGenerator[Speech, None]:
        """PCM and words, as they are made."""
        narrator = self._studio.narrator(
            self.booth, self.voice, client=self._client, rate=self.rate, seams=self._sizes.seams
        )
        async with narrator as reader:
            async with aclosing(reader.say(self._text, eager=self._sizes.eager)) as pieces:
                async for piece in pieces:
                    self.ms = reader.made_ms
                    yield piece
            last = reader.finish()
            self.ms = reader.made_ms
            yield last

    async def audio(self) -> AsyncGenerator[bytes, None]:
        """Encoded, in chunks of the sizes asked for."""
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, bytes):
                    yield chunk

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """Audio and word timings as objects, the last one saying that it is the last, or what went wrong."""
        try:
            async with aclosing(self._chunks()) as chunks:
                async for chunk in chunks:
                    yield delta(chunk) if isinstance(chunk, bytes) else words_told(described(chunk, self._text))
        except ParleyError as error:
            if not self.ms:
                raise
            yield {"type": "error", "error": {"message": str(error), "code": error.code}}
            return
        yield done(self.ms)

    async def _chunks(self) -> AsyncGenerator[bytes | Sequence[Word], None]:
        chunks = Chunks.of(self._sizes, self.rate)
        self._encoder = await self._work(self.format.open, self.rate)
        async with aclosing(self.speech()) as pieces:
            async for piece in pieces:
                for chunk in chunks.push(piece.pcm):
                    if data := await self._encoded(chunk):
                        yield data
                if piece.words:
                    yield piece.words
        for chunk in chunks.flush():
            if data := await self._encoded(chunk):
                yield data
        if data := await self._work(self._encoder.finish):
            yield data

    def head(self, media: str = "") -> Callable[[int | None], Mapping[str, str]]:
        def headers(length: int | None) -> dict[str, str]:
            known = {"X-Duration-Ms": str(round(self.ms))} if length is not None else {}
            return {
                "Content-Type": media or self.format.media,
                "X-Sample-Rate": str(self._encoder.rate),
                "X-Channels": "1",
                "X-Encoding": self.format.encoding,
                "X-Engine": self.booth.name,
                "Cache-Control": "no-store",
                **known,
            }

        return headers

    async def _encoded(self, pcm: bytes) -> bytes:
        return await self._work(self._encoder.push, pcm) if pcm else b""

    async def _work(self, job: Callable[..., T], *arguments: Any) -> T:
        if self.format.name == "pcm":
            return job(*arguments)
        return await asyncio.to_thread(job, *arguments)


def find(studio: Studio, asked: Utterance) -> tuple[Booth, Voice]:
    """The engine and voice for `asked`. Raises `ProtocolError`, `LimitError`, `ConfigError`."""
    if not asked.input.strip():
        raise ProtocolError("Empty input text")
    if len(asked.input) > LONGEST:
        raise LimitError(f"input is {len(asked.input)} characters long; {LONGEST} are allowed", code="too_long")
    return studio.find(
        asked.voice_name,
        model=asked.model or "",
        language=asked.language or "",
        speed=asked.speed,
        instructions=asked.instructions,
    )


def delta(data: bytes) -> dict[str, Any]:
    return {"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()}


def words_told(words: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "speech.audio.words", "words": words}


def done(ms: float) -> dict[str, Any]:
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    return {"type": "speech.audio.done", "duration_ms": round(ms), "usage": usage}


async def lines(events: AsyncGenerator[dict[str, Any], None], form: str) -> AsyncGenerator[bytes, None]:
    """`events` in the `form` of NDJSON or SSE."""
    async with aclosing(events) as source:
        async for event in source:
            yield form.format(json.dumps(event, ensure_ascii=False, separators=(",", ":"))).encode()
