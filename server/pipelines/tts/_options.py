"""What engines ask of a voice's options. Pure."""

from collections.abc import Mapping
from typing import Any

from server.errors import ConfigError
from server.pipelines.quoting import quoted


def number(engine: str, options: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """The option `name`, a number from `low` to `high`. Raises `ConfigError` that names it."""
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{engine}: {name} = {quoted(value)} is not a number from {low:g} to {high:g}")
    return float(value)


def one_of(engine: str, what: str, name: str, known: Mapping[str, str] | tuple[str, ...]) -> str:
    """`name`, in the spelling the engine knows it by. Raises `ConfigError` that lists them all."""
    for spelling in known:
        if spelling.casefold() == name.casefold():
            return spelling
    raise ConfigError(f"{engine} has no {what} {quoted(name)}; there are: {', '.join(known)}")
