"""The law of one-way imports: `__main__ -> app -> ws, http -> session -> reply -> pipelines -> audio, errors`."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from server.settings import ROOT

FLOORS = [  # from the ground up; a module imports from its own floor and from those below
    {"errors", "audio"},
    {"pipelines"},
    {"incoming", "events", "commands", "timeline", "limits", "telemetry", "spoken", "outbox", "characters", "history"},
    {"settings", "access", "rack", "cast", "manner", "clients"},
    {
        "bill",
        "turns",
        "packing",
        "reply",
        "answer",
        "podium",
        "transcriber",
        "ear",
        "floor",
        "hearing",
        "session",
        "lobby",
    },
    {"ws", "http"},
    {"app", "services", "serve"},
    {"say", "trials", "doctor", "linacodec_cli"},
    {"__main__"},
]
PURE = [  # decided in plain functions: no tasks, no clock of their own, no web framework
    "audio", "errors", "events", "commands", "characters", "history", "spoken", "floor", "limits", "ws.protocol",
    "pipelines.turn", "pipelines.barge_in", "pipelines.joins", "pipelines.boundaries", "pipelines.prose",
]  # fmt: skip
IMPURE = {"asyncio", "time", "threading", "starlette", "uvicorn", "random"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "server").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in (ROOT / "server").rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """Every module that `path` imports, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path: Path) -> set[str]:
    """What `path` imports of this package, as modules."""
    names = {name.removeprefix("server.") for name in imported(path) if name.startswith("server.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in names}


def floor(module: str) -> int:
    family = module.split(".")[0]
    found = [number for number, families in enumerate(FLOORS) if family in families]
    assert found, f"server/{family} stands on no floor: give it one in FLOORS"
    return found[0]


@pytest.mark.parametrize("module", sorted(filter(None, MODULES)))
def test_imports_point_down(module: str) -> None:
    upwards = [other for other in own(MODULES[module]) - {""} if floor(other) > floor(module)]
    assert not upwards, f"{module} imports {', '.join(upwards)}, which stand above it"


def test_no_module_imports_itself_by_a_detour() -> None:
    TopologicalSorter({name: own(path) - {name} for name, path in MODULES.items()}).prepare()


def test_pipelines_know_nothing_of_the_server() -> None:
    for module, path in MODULES.items():
        if module.startswith("pipelines"):
            foreign = {name.split(".")[0] for name in own(path)} - {"pipelines", "audio", "errors"}
            assert not foreign, f"{module} imports {foreign}"
            assert not [name for name in imported(path) if name.startswith("starlette")], module


@pytest.mark.parametrize("module", PURE)
def test_what_decides_is_pure(module: str) -> None:
    found = {name.split(".")[0] for name in imported(MODULES[module])} & IMPURE
    assert not found, f"{module} imports {found}"


def test_settings_alone_read_the_environment() -> None:
    readers = []
    for module, path in MODULES.items():
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))}
        readers += [module] if names & {"environ", "getenv"} else []
    assert readers.pop(readers.index("")) == ""  # the package itself sets one, for a library
    assert readers == ["settings"]


def test_the_server_needs_neither_tests_nor_bench() -> None:
    for module, path in MODULES.items():
        assert not [name for name in imported(path) if name.split(".")[0] in ("tests", "bench")], module


def test_every_engine_has_exactly_one_create() -> None:
    for kind in ("vad", "turn_end", "stt", "llm", "tts", "codec"):
        for path in (ROOT / "server" / "pipelines" / kind).glob("[!_]*.py"):
            made = [n for n in ast.parse(path.read_text()).body if getattr(n, "name", "") == "create"]
            assert len(made) == 1, path
