"""`doctor`: is everything here that the settings ask for, and how is it mended where it is not?

Engines are not looked at but tried (`trials`).
"""

import re
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import httpx

from server import characters
from server.characters import Character
from server.errors import ConfigError, ParleyError
from server.say import player
from server.serve import taken
from server.settings import ROOT, Settings, read, strangers
from server.trials import trials, tried

PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line of the report. `text` says how to mend what is not ok."""

    state: Literal["ok", "warn", "fail"]
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:5} {self.what:14} {self.text}"


async def examine(
    config: Path | None, host: str | None = None, port: int | None = None
) -> AsyncGenerator[Finding, None]:
    """Every finding, as soon as it is made. `config`, `host` and `port` as for `serve`."""
    yield python()
    yield packages()
    try:
        settings = read(config)
    except ConfigError as error:
        yield Finding("fail", "configuration", str(error))
        return
    yield Finding("ok", "configuration", str(config or "configs/embedded.toml"))
    for finding in [*environment(strangers()), *page(ROOT / "static"), *access(settings, host)]:
        yield finding
    yield await reach(host or settings.server.host, port if port is not None else settings.server.port)
    everybody, told = cast(settings)
    for finding in [told, *pictures(everybody)]:
        yield finding
    async for finding in engines(settings, everybody):
        yield finding
    yield audio(player())


def python(found: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    text = ".".join(map(str, found))
    if found < PYTHON:
        return Finding(
            "fail", "python", f"{text}; Parley needs 3.11 or newer: make clean run PYTHON=/path/to/python3.11"
        )
    return Finding("ok", "python", text)


def packages(wanted: Iterable[str] | None = None) -> Finding:
    """Whether what Parley depends on is installed. `wanted`: requirements, by default Parley's own."""
    try:
        wanted = (requires("parley") or []) if wanted is None else wanted
    except PackageNotFoundError:
        return Finding("warn", "packages", "Parley itself is not installed; run: pip install -e .")
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted if "extra ==" not in line]
    if missing := [name for name in names if not _installed(name)]:
        return Finding("fail", "packages", f"missing: {', '.join(missing)}; run: pip install -e .")
    return Finding("ok", "packages", f"{len(names)} of {len(names)}")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def environment(unknown: Iterable[str]) -> Iterator[Finding]:
    for name in unknown:
        yield Finding("warn", "environment", f"{name} is no setting; docs/configuration.md lists them")


def page(folder: Path) -> Iterator[Finding]:
    """Whether all that the page consists of is there: what it names, and what those files import."""
    wanted, seen = [folder / "index.html"], set[Path]()
    while wanted:
        if (path := wanted.pop()) in seen:
            continue
        seen.add(path)
        if path.is_file():
            wanted += _named(path, folder)
    missing = sorted(str(path.relative_to(folder)) for path in seen if not path.is_file())
    if missing:
        yield Finding("fail", "page", f"missing in {folder}: {', '.join(missing)}; restore them: git checkout static")
    else:
        yield Finding("ok", "page", f"{len(seen)} files")


def _named(path: Path, folder: Path) -> list[Path]:
    if path.suffix not in (".html", ".js", ".css"):
        return []
    pattern = r"""(?:src|href)="([\w./-]+\.\w+)"|(?:from|import) ["'](\./[\w./-]+|\.\./[\w./-]+)["']"""
    found = [a or b for a, b in re.findall(pattern, path.read_text("utf-8"))]
    return [(folder if name.startswith("/") else path.parent).joinpath(name.lstrip("/")).resolve() for name in found]


def access(settings: Settings, host: str | None) -> Iterator[Finding]:
    """What it means to listen where one is told to."""
    host = host or settings.server.host
    if host in ("127.0.0.1", "::1", "localhost"):
        return
    if not settings.server.token:
        text = f"{host} can be reached from elsewhere and no token is asked for: set PARLEY_SERVER_TOKEN"
        yield Finding("warn", "access", text)
    text = "browsers give the microphone to https pages only (and to localhost): docs/deployment.md"
    yield Finding("warn", "access", text)


async def reach(host: str, port: int) -> Finding:
    """Whether `port` is free, or Parley's already."""
    if not (reason := taken(host, port)):
        return Finding("ok", "port", f"{port} on {host} is free")
    if await _is_parley(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/health"):
        return Finding("ok", "port", f"{port} on {host}: Parley is serving there")
    return Finding("fail", "port", reason)


async def _is_parley(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
            return "engines" in (await client.get(url)).json()
    except (httpx.HTTPError, ValueError, TypeError):
        return False


def cast(settings: Settings) -> tuple[list[Character], Finding]:
    """Who can be talked to, and whether those who are to be present are among them."""
    everybody: dict[str, Character] = {}
    try:
        everybody = characters.read(settings.characters.directory, settings.tts.engine)
        characters.chosen(everybody, settings.characters.active)
    except ConfigError as error:
        return list(everybody.values()), Finding("fail", "characters", str(error))
    return list(everybody.values()), Finding("ok", "characters", ", ".join(everybody))


async def engines(settings: Settings, everybody: Sequence[Character]) -> AsyncGenerator[Finding, None]:
    """Every engine, tried."""
    codec = settings.codec if settings.codec.engine else None
    for kind, name, engine, work in trials(settings, everybody):
        try:
            done, well = await tried(kind, engine, work, codec, name)
            yield Finding("ok" if well else "warn", name, done)
        except ParleyError as error:
            yield Finding("fail", name, f"{engine.engine}: {error}")


def pictures(everybody: Iterable[Character]) -> Iterator[Finding]:
    for character in everybody:
        if character.picture and "://" not in character.picture and not (ROOT / "static" / character.picture).is_file():
            yield Finding("warn", "characters", f"{character.id}: no picture at static/{character.picture}")


def audio(program: str) -> Finding:
    if program:
        return Finding("ok", "audio", f"`say` plays with {program}")
    text = "`say` can only write files, the page is not concerned; to hear it: apt-get install alsa-utils"
    return Finding("ok", "audio", text)


async def report(config: Path | None, host: str | None = None, port: int | None = None) -> int:
    """Print the findings; 0 if nothing failed, else 1."""
    failed = 0
    async with aclosing(examine(config, host, port)) as findings:
        async for finding in findings:
            print(finding, flush=True)
            failed += finding.state == "fail"
    print(f"\n{failed} to mend" if failed else f"\nready: make run{f' CONFIG={config}' if config else ''}")
    return 1 if failed else 0
