"""What the engines' options are read with: variables of the environment are text, and empty ones are as none. Pure."""

import json
import math
from collections.abc import Mapping
from typing import Any

from server.errors import ConfigError


def number(name: str, value: float | str | None, least: float = 0) -> float | None:
    """`value` as a number, `least` or more; None where it is empty. Raises `ConfigError`."""
    if value in (None, ""):
        return None
    if not (least <= (read := _read(value)) and math.isfinite(read)):
        raise ConfigError(f"[llm] {name} = {value!r}: it is a number" + f", {least:g} or more" * math.isfinite(least))
    return read


def whole_number(name: str, value: float | str | None, least: float = 0) -> int | None:
    """The same without what stands behind the point."""
    return None if (read := number(name, value, least)) is None else int(read)


def seconds(name: str, value: float | str, default: float) -> float:
    """A time-out, `default` where it is empty. With none at all no server could ever answer. Raises `ConfigError`."""
    if value == "":
        return default
    if not (read := _read(value)) > 0:
        raise ConfigError(f"[llm] {name} = {value!r}: it is a number of seconds, more than 0")
    return read


def table(name: str, value: Mapping[str, Any] | str) -> dict[str, Any]:
    """`value`, or the JSON object that it is the text of. Raises `ConfigError`."""
    try:
        return dict(json.loads(value or "{}") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        raise ConfigError(f"[llm] {name} = {value!r}: it is a table, or a JSON object in a string") from None


def _read(value: float | str | None) -> float:
    """Not a number where it is none: that compares as false with everything."""
    try:
        return float(value or 0)
    except ValueError:
        return math.nan
