"""Events: every message a conversation tells its client. Pure.

Times are milliseconds; only `retry_after` is seconds, as the header of that name.
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from server.errors import ParleyError

VERSION = 1  # of the native protocol


@dataclass(frozen=True)
class Event:
    """A message to the client. Fields that are None are left out."""

    type: ClassVar[str]

    def body(self) -> dict[str, Any]:
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"type": self.type} | {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class SessionCreated(Event):
    type = "session.created"
    session: str
    input_rate: int
    output_rate: int
    characters: list[dict[str, Any]]
    available: list[dict[str, Any]]
    engines: dict[str, str]
    turn: dict[str, Any]
    interrupt: dict[str, Any]
    lead_ms: float
    protocol: int = VERSION
    resumed: bool = False
    notice: str | None = None


@dataclass(frozen=True)
class SessionUpdated(SessionCreated):
    type = "session.updated"


@dataclass(frozen=True)
class UserStarted(Event):
    type = "user.started"
    at_ms: float


@dataclass(frozen=True)
class UserStopped(Event):
    type = "user.stopped"
    at_ms: float


@dataclass(frozen=True)
class TranscriptPartial(Event):
    type = "transcript.partial"
    text: str


@dataclass(frozen=True)
class TranscriptFinal(Event):
    type = "transcript.final"
    text: str
    turn: int


@dataclass(frozen=True)
class OfReply(Event):
    """A message about the reply of this number, which grows by one through the conversation."""

    reply: int


@dataclass(frozen=True)
class ReplyStarted(OfReply):
    type = "reply.started"
    turn: int
    character: str


@dataclass(frozen=True)
class ReplyText(OfReply):
    type = "reply.text"
    text: str


@dataclass(frozen=True)
class ReplySentence(OfReply):
    type = "reply.sentence"
    index: int
    text: str
    start_ms: float


@dataclass(frozen=True)
class ReplyAudio(OfReply):
    type = "reply.audio"
    rate: int
    format: str = "pcm_s16le"


@dataclass(frozen=True)
class Audio(OfReply):
    """A frame of PCM; on the JSON subprotocol a bare binary frame."""

    type = "audio"
    start_ms: float
    data: bytes


@dataclass(frozen=True)
class AudioTokens(OfReply):
    """A segment of speech as codec tokens, for a client on msgpack that decodes them: `tokens` little-endian 16-bit
    integers, `embedding` (the voice, in the first message of a reply) 128 little-endian 32-bit floats; the decoded
    audio is cut to `num_samples` at 48 kHz and multiplied by `gain`."""

    type = "audio"
    start_ms: float
    tokens: bytes
    num_samples: int
    gain: float
    embedding: bytes | None = None


@dataclass(frozen=True)
class ReplyPaused(OfReply):
    type = "reply.paused"
    heard_ms: float
    reason: str


@dataclass(frozen=True)
class ReplyResumed(OfReply):
    type = "reply.resumed"
    heard_ms: float
    reason: str


@dataclass(frozen=True)
class ReplyInterrupted(OfReply):
    type = "reply.interrupted"
    heard_ms: float
    heard: str
    unheard: str
    reason: str


@dataclass(frozen=True)
class ReplyDone(OfReply):
    type = "reply.done"
    text: str
    audio_ms: float


@dataclass(frozen=True)
class TurnMetrics(Event):
    type = "turn.metrics"
    turn: int
    reply: int | None = None
    stages: dict[str, float] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The stages lie beside `turn` and `reply`, not under a name of their own."""
        told = super().body()
        return {name: value for name, value in told.items() if name != "stages"} | self.stages


@dataclass(frozen=True)
class History(Event):
    type = "history"
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class Error(Event):
    type = "error"
    code: str
    message: str
    fatal: bool = False
    retry_after: float | None = None

    @classmethod
    def of(cls, error: ParleyError, *, fatal: bool = False) -> Self:
        wait = error.retry_after
        return cls(error.code, str(error), fatal, round(wait, 1) if wait else None)


@dataclass(frozen=True)
class Pong(Event):
    type = "pong"


# What stops when a reply is cut off. That it was cut off, and its metrics, are told after.
OF_A_REPLY = (
    ReplyStarted,
    ReplyText,
    ReplySentence,
    ReplyAudio,
    Audio,
    AudioTokens,
    ReplyPaused,
    ReplyResumed,
    ReplyDone,
)
