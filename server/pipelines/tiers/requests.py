"""What is asked of a back end, checked. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from server.errors import ProtocolError
from server.pipelines.quoting import brief

Format = Literal["linacodec_tokens", "pcm_16"]
FORMATS = ("linacodec_tokens", "pcm_16")
KNOWN = {"text", "voice", "service", "engine", "stream", "output_format", "sample_rate", "voice_options", "max_chars"}


@dataclass(frozen=True)
class Request:
    """A text to be spoken. `voice` names a character or an engine's voice; `engine` a TTS engine (empty: the voice's
    or the default one); `max_chars` the longest chunk (0: as configured); `client` whom to be fair to."""

    text: str
    voice: str = ""
    engine: str = ""
    stream: bool = True
    format: Format = "linacodec_tokens"
    voice_options: Mapping[str, Any] = field(default_factory=dict)
    max_chars: int = 0
    client: str = ""


def request(body: Any, longest: int) -> Request:
    """The request in a JSON body, bare or under `input` as RunPod has it. Raises `ProtocolError`, naming the field."""
    fields = body.get("input", body) if isinstance(body, Mapping) else None
    if not isinstance(fields, Mapping):
        raise ProtocolError('a JSON object is needed: {"text", "voice", "stream", "output_format"}')
    if strange := sorted(set(fields) - KNOWN):
        raise ProtocolError(f"{brief(strange[0])}: unknown; there are {', '.join(sorted(KNOWN))}")
    format = fields.get("output_format", "linacodec_tokens")
    if format not in FORMATS:
        raise ProtocolError(f"output_format: one of {', '.join(FORMATS)}")
    if fields.get("sample_rate", 48_000) != 48_000:
        raise ProtocolError("sample_rate: 48000 is what the codec gives")
    return Request(
        text=text(fields, longest),
        voice=_string(fields, "voice", "default"),
        engine=_string(fields, "engine", ""),
        stream=_flag(fields, "stream"),
        format=format,
        voice_options=_options(fields),
        max_chars=_count(fields, "max_chars"),
    )


def text(fields: Mapping[str, Any], longest: int) -> str:
    """The `text` of a request: something to say, and not too much. Raises `ProtocolError`."""
    said = fields.get("text")
    if not isinstance(said, str) or not any(map(str.isalnum, said)):
        raise ProtocolError("text: required, something with words in it")
    if len(said) > longest:
        raise ProtocolError(f"text: {len(said)} characters; at most {longest}")
    return said


def _string(fields: Mapping[str, Any], name: str, default: str) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or len(value) > 200:
        raise ProtocolError(f"{name}: not a string of at most 200 characters")
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise ProtocolError(f"{name}: true or false")
    return value


def _count(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not (value == 0 or 20 <= value <= 5_000):
        raise ProtocolError(f"{name}: 20 to 5000")
    return value


def _options(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    value = fields.get("voice_options", {})
    if not isinstance(value, Mapping):
        raise ProtocolError("voice_options: an object")
    return value
