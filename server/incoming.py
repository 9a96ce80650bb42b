"""What comes from outside as JSON: made fit to be passed on, checked, and refused in words. Pure."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from server.errors import ProtocolError
from server.pipelines.halves import whole
from server.pipelines.quoting import brief

M = TypeVar("M", bound=BaseModel)


def decoded(raw: str | bytes | bytearray) -> Any:
    """`raw` as JSON, with U+FFFD for each half of a character. Raises `ProtocolError`."""
    try:
        value = json.loads(raw)
        text = json.dumps(value, ensure_ascii=False)
        return value if (sound := whole(text)) == text else json.loads(sound)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None


def given(model: type[M], message: Mapping[str, Any]) -> M:
    """`message` as `model`, null being the same as nothing. Raises `ProtocolError` that names the field at fault."""
    try:
        return model.model_validate(without_null(message))
    except ValidationError as error:
        raise ProtocolError(first(error)) from None


def without_null(message: Any) -> Any:
    """`message` without the fields that are null."""
    if not isinstance(message, Mapping):
        return message
    return {key: value for key, value in message.items() if value is not None}


def first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    what = error.errors()[0]
    return f"{'.'.join(map(str, place(what))) or 'message'}: {said(what)}"


def place(what: ErrorDetails) -> list[int | str]:
    """Where it is: the names may be the client's own."""
    return [part if isinstance(part, int) else brief(part) for part in what["loc"]]


def said(what: ErrorDetails) -> str:
    """What is wrong, in pydantic's words, but for those that name a class of ours or hold the client's own in full."""
    if what["type"] == "model_type":
        return "Input should be an object"
    tag = str(what.get("ctx", {}).get("tag", ""))
    return what["msg"].replace(tag, brief(tag)) if tag else what["msg"]
