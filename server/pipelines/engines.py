"""The interfaces every engine fulfils, and the values that pass between them.

An engine is one module `server.pipelines.<kind>.<name>` with exactly one `create(**options)`. It is created once per
process and shared by every session; what belongs to one conversation is the small object its `open` returns.

Audio everywhere: signed 16-bit little-endian mono PCM in `bytes`, except where float32 numpy is stated.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field

Kind = Literal["vad", "turn_end", "stt", "llm", "tts", "codec"]
Samples = npt.NDArray[np.float32]
Count = Annotated[int, Field(ge=1)]  # an option of `create`: how many workers, streams; none would serve nobody
Seconds = Annotated[float, Field(gt=0)]  # a time-out; with none at all nobody could answer in time

FRAME = 512  # samples at 16 kHz: what the VAD looks at, 32 ms
HEARING_RATE = 16_000  # Hz: the rate of everything that is heard


@dataclass(frozen=True)
class Word:
    """One spoken word: the characters `[start, end)` of the text given to `speak`, and when it sounds, in ms from the
    beginning of that utterance."""

    start: int
    end: int
    start_ms: float
    end_ms: float


@dataclass(frozen=True)
class Speech:
    """A piece of speech: PCM at the engine's rate, and the timings of the words that became known with it. A word told
    again corrects what was told of it before."""

    pcm: bytes
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Transcript:
    """What was said. `confidence` is 0..1, or None where the engine does not tell."""

    text: str
    confidence: float | None = None


@dataclass(frozen=True)
class Message:
    """One message of a prompt, in the roles of the chat-completions API."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Voice:
    """How one character sounds. Engines take what they know and ignore the rest.

    `name` is the engine's own name of a voice; `options` are the engine's own knobs (espeak: variant, pitch, speed).
    `method`: `preset` (by name), `description` (`speaker` and `scene` in words), `clone` (`reference` recording with
    its `transcript`), `convert` (any engine, then the timbre of `reference`).
    """

    name: str = ""
    engine: str = ""  # empty: the configured default
    method: Literal["preset", "description", "clone", "convert"] = "preset"
    language: str = ""  # empty: that of the engine's configured voice
    speed: float = 1.0
    speaker: str = ""
    scene: str = ""
    reference: Path | None = None
    transcript: str = ""
    instructions: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    upsample: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LLMSettings:
    """What a caller may ask of the language model for one reply. None leaves it to the engine's configuration."""

    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """What all engines share. `start` loads and warms up (slow work in a thread); `stop` frees everything."""

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None


class Detector(Protocol):
    """Voice activity of one stream."""

    async def push(self, frame: Samples) -> float:
        """Probability 0..1 that `frame` (512 float32 samples in -1..1 at 16 kHz) holds speech."""
        ...

    def reset(self) -> None: ...


class VAD(Engine, Protocol):
    def open(self) -> Detector: ...


class TurnEnd(Engine, Protocol):
    """A semantic end-of-turn model."""

    async def complete(self, samples: Samples) -> float:
        """Probability 0..1 that the turn in `samples` (float32 at 16 kHz, its last 8 s) is complete."""
        ...


class Recogniser(Protocol):
    """Speech recognition of one stream. Calls come one at a time, in order. All may raise `STTError`."""

    async def feed(self, pcm: bytes) -> str | None:
        """Take PCM at 16 kHz; the text of the utterance so far, or None if it has not changed."""
        ...

    async def peek(self) -> Transcript:
        """The best text so far, without ending the utterance."""
        ...

    async def finish(self) -> Transcript:
        """End the utterance: its final text. The next `feed` begins a new one."""
        ...

    async def reset(self) -> None:
        """Forget the utterance."""
        ...

    async def close(self) -> None: ...


class STT(Engine, Protocol):
    def open(self, language: str) -> Recogniser: ...


class LLM(Engine, Protocol):
    notice: str  # what the user should be told once about this model; usually empty

    def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncGenerator[str, None]:
        """The reply in deltas of text. Read it within `aclosing`: closing it cancels the request.

        Raises `LLMError`."""
        ...


class Speaker(Protocol):
    """One voice in one conversation; holds its rolling context where the engine has one. One utterance at a time."""

    def speak(self, text: str) -> AsyncGenerator[Speech, None]:
        """`text` (a sentence or more) as speech, piece by piece as it is made. Read it within `aclosing`: closing it
        stops the engine after the piece in flight. Raises `TTSError`."""
        ...

    async def close(self) -> None: ...


class TTS(Engine, Protocol):
    rate: int  # Hz
    streams: int  # how many utterances at once it carries faster than real time

    def open(self, voice: Voice) -> Speaker:
        """Raises `ConfigError` for a voice this engine does not have."""
        ...

    def voices(self) -> Sequence[str]:
        """The names `Voice.name` may take."""
        ...


@dataclass(frozen=True, eq=False)
class Coded:
    """Speech as a codec's tokens: `tokens` int64 `(T,)` and the voice's `embedding` float32 `(D,)`.

    `samples` is how many of the decoded samples are speech (None: all of them; the rest is what filled up the last
    token), `gain` the peak 0..1 of what was encoded, since a codec hears everything at full level."""

    tokens: npt.NDArray[np.int64]
    embedding: Samples
    samples: int | None = None
    gain: float = 1.0


class Codec(Engine, Protocol):
    """Speech to tokens and back. One model, shared: what several callers ask at once is joined into one pass.

    All may raise `CodecError`. Cancelling a caller takes its work out of the queue."""

    rate: int  # Hz of what it decodes

    async def encode(self, pcm: bytes, rate: int, embedding: Samples | None = None, gain: float | None = None) -> Coded:
        """`pcm` at `rate` Hz as tokens. With `embedding` that one is kept instead of the speech's own; with `gain`
        the speech is taken to have that peak (so that pieces of one recording keep their levels)."""
        ...

    async def decode(self, coded: Coded) -> bytes:
        """PCM at the codec's rate, exactly `coded.samples` long."""
        ...

    def pieces(self, coded: Coded) -> AsyncGenerator[bytes, None]:
        """As `decode`; what is long comes in pieces, each as soon as it is there. Read it within `aclosing`."""
        ...

    def stream(
        self, tokens: AsyncIterator[Sequence[int]], embedding: Samples, gain: float = 1.0
    ) -> AsyncGenerator[bytes, None]:
        """PCM while the tokens still come in, in overlapping windows. Read it within `aclosing`."""
        ...

    async def embedding(self, reference: Path) -> Samples:
        """The voice of a recording (16-bit WAV), kept once computed. Raises `ConfigError` where it cannot be read."""
        ...

    async def convert(self, pcm: bytes, rate: int, embedding: Samples | None = None) -> bytes:
        """`pcm` once through the codec: as long as it was, in the voice of `embedding` (None: its own)."""
        ...
