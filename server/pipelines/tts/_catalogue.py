"""The voices and variants in espeak-ng's data folder: what can be asked for by name."""

import functools
import re
from pathlib import Path

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*")
_TAG = re.compile(r"^(?:language|name)\s+(.+?)\s*\d*$", re.MULTILINE)


@functools.cache
def languages(data: str) -> dict[str, str]:
    """The library's identifier of each language by its short name, as in `{"en-us": "gmw/en-US"}`."""
    root = Path(data, "lang")
    return {p.name.lower(): p.relative_to(root).as_posix() for p in sorted(root.rglob("*")) if p.is_file()}


@functools.cache
def also(data: str) -> dict[str, str]:
    """Other names of the languages (`en-gb`, `English (America)`), in lower case, with the short name of each."""
    root = Path(data, "lang")
    return {
        tag.lower(): short
        for short, identifier in reversed(languages(data).items())
        for tag in _TAG.findall((root / identifier).read_text(encoding="utf-8", errors="replace"))
    }


@functools.cache
def tags(data: str) -> tuple[str, ...]:
    """The language tags among the other names."""
    return tuple(tag for tag in also(data) if _LANGUAGE.fullmatch(tag))


@functools.cache
def variants(data: str) -> tuple[str, ...]:
    """The names of the variants (`f3`, `m5`, `whisper`)."""
    return tuple(sorted(p.name for p in Path(data, "voices", "!v").iterdir() if p.is_file()))
