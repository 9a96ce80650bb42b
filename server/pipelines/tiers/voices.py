"""How a voice is described to another Parley, and what is taken from such a description. Pure.

Only what concerns the sound travels. Paths do not: a recording is named by who keeps it.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from server.errors import ProtocolError
from server.pipelines.engines import Voice
from server.pipelines.quoting import brief

TRAVELS = (
    "method", "language", "speed", "speaker", "scene", "instructions",
    "temperature", "top_p", "top_k", "seed", "options",
)  # fmt: skip
_DEFAULTS = {field.name: getattr(Voice(), field.name) for field in fields(Voice)}
_voice = TypeAdapter(Voice)


def sent(voice: Voice) -> dict[str, Any]:
    """What is not as usual about `voice`, for the request's `voice_options`."""
    told = {name: getattr(voice, name) for name in TRAVELS if getattr(voice, name) != _DEFAULTS[name]}
    if told.get("method") in ("clone", "convert"):  # its recording is here, or is the other's own business
        del told["method"]
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in told.items()}


def described(voice: Voice, options: Mapping[str, Any]) -> Voice:
    """`voice` as `options` change it. Raises `ProtocolError`, naming the option."""
    if strange := sorted(set(options) - set(TRAVELS)):
        raise ProtocolError(f"voice_options.{brief(strange[0])}: unknown; there are {', '.join(TRAVELS)}")
    try:
        checked = _voice.validate_python(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        raise ProtocolError(f"voice_options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return replace(voice, **{name: getattr(checked, name) for name in options})
