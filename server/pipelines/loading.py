"""Engines by name: an engine is one module `server.pipelines.<kind>.<name>` with one `create(**options)`."""

import importlib
import inspect
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_origin

from pydantic import ValidationError, validate_call

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.engines import Kind


def load(kind: Kind, name: str, options: Mapping[str, Any], table: str = "") -> Any:
    """The engine `name` of `kind`, not yet started. `table` of the settings asks for it; empty: the one of its kind.

    Raises `ConfigError` for an unknown name or option, `EngineUnavailable` for a missing package or file."""
    table = table or kind
    if name not in names(kind):
        raise ConfigError(f"[{table}] engine = {name!r} is not an engine; there are: {', '.join(names(kind))}")
    try:
        create = importlib.import_module(f"server.pipelines.{kind}.{name}").create
    except ModuleNotFoundError as error:
        raise EngineUnavailable(f"engine {name!r} of [{table}] needs the package {error.name!r}") from error
    known = inspect.signature(create).parameters
    if strange := sorted(set(options) - set(known)):
        raise ConfigError(
            f"[{table}] {strange[0]} is not an option of engine {name!r}; its options: {', '.join(known)}"
        )
    try:
        return validate_call(create)(**{key: _read(value, known[key].annotation) for key, value in options.items()})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"[{table}] {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _read(value: Any, wanted: Any) -> Any:
    """A variable is text: where a list or a table is wanted, it is the JSON of one."""
    if isinstance(value, str) and get_origin(wanted) in (Sequence, Mapping, tuple):
        with suppress(ValueError):
            return json.loads(value)
    return value


def names(kind: Kind) -> list[str]:
    """The engines of `kind` that ship with Parley."""
    folder = Path(__file__).parent / kind
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
