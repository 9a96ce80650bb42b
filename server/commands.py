"""Commands: every message a client may send, validated. Pure."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from server.errors import ProtocolError
from server.incoming import first


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TurnUpdate(_Command):
    """How the user's turn ends: by itself (`auto`) or at `user.commit` (`manual`)."""

    mode: Literal["auto", "manual"] | None = None
    silence_ms: float | None = Field(None, ge=100, le=10_000)
    speculative: bool | None = None


class InterruptUpdate(_Command):
    """What it takes to interrupt, while it speaks and while it thinks."""

    speaking: bool | None = None
    thinking: bool | None = None
    min_ms: float | None = Field(None, ge=0, le=10_000)
    min_words: int | None = Field(None, ge=0, le=20)
    backchannels: list[Annotated[str, Field(max_length=40)]] | None = Field(None, max_length=200)


class LLMUpdate(_Command):
    model: str | None = Field(None, max_length=200)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=32_000)


class SessionUpdate(_Command):
    type: Literal["session.update"]
    input_rate: int | None = Field(None, ge=8_000, le=48_000)
    output_rate: int | None = Field(None, ge=8_000, le=48_000)
    lead_ms: float | None = Field(None, ge=60, le=5_000)
    character: str | None = None
    characters: list[str] | None = Field(None, min_length=1, max_length=8)
    turn: TurnUpdate | None = None
    interrupt: InterruptUpdate | None = None
    llm: LLMUpdate | None = None
    instructions: str | None = Field(None, max_length=20_000)


Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8_000)]


class UserText(_Command):
    type: Literal["user.text"]
    text: Line


class UserCommit(_Command):
    type: Literal["user.commit"]


class UserClear(_Command):
    type: Literal["user.clear"]


class Say(_Command):
    type: Literal["say"]
    text: Line
    character: str | None = None


class ReplyInterrupt(_Command):
    type: Literal["reply.interrupt"]


class ReplyPause(_Command):
    type: Literal["reply.pause"]


class ReplyResume(_Command):
    type: Literal["reply.resume"]


class Playback(_Command):
    type: Literal["playback"]
    reply: int = Field(ge=0)
    ms: float = Field(ge=0, le=86_400_000)


class HistoryGet(_Command):
    type: Literal["history.get"]


class HistoryClear(_Command):
    type: Literal["history.clear"]


class Ping(_Command):
    type: Literal["ping"]


Command = (
    SessionUpdate | UserText | UserCommit | UserClear | Say | ReplyInterrupt | ReplyPause | ReplyResume
    | Playback | HistoryGet | HistoryClear | Ping
)  # fmt: skip
_command: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def command(message: object) -> Command:
    """`message` (what JSON or msgpack gave) as a command. Raises `ProtocolError`, naming the field at fault."""
    if not isinstance(message, dict) or message.get("type") is None:
        raise ProtocolError('a message is an object with a "type"')
    try:
        return _command.validate_python(message)
    except ValidationError as error:
        raise ProtocolError(first(error)) from None
