"""Engines by name: an engine is one module `server.pipelines.<kind>.<name>` with one `create(**options)`."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError, validate_call

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.engines import Kind


def load(kind: Kind, name: str, options: Mapping[str, Any]) -> Any:
    """The engine `name` of `kind`, not yet started.

    Raises `ConfigError` for an unknown name or option, `EngineUnavailable` for a missing package or file."""
    module = f"server.pipelines.{kind}.{name}"
    try:
        create = importlib.import_module(module).create
    except ModuleNotFoundError as error:
        if error.name == module:
            raise ConfigError(
                f"[{kind}] engine = {name!r} is not an engine; there are: {', '.join(names(kind))}"
            ) from None
        raise EngineUnavailable(f"engine {name!r} of [{kind}] needs the package {error.name!r}") from error
    known = inspect.signature(create).parameters
    if strange := sorted(set(options) - set(known)):
        raise ConfigError(f"[{kind}] {strange[0]} is not an option of engine {name!r}; its options: {', '.join(known)}")
    try:
        return validate_call(create)(**options)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"[{kind}] {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def names(kind: Kind) -> list[str]:
    """The engines of `kind` that ship with Parley."""
    folder = Path(__file__).parent / kind
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
