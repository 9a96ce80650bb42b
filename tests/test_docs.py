"""The documentation tells the truth: its settings, messages, links, and its programs, which are run as printed."""

import asyncio
import json
import re
import sys
import tomllib
import wave
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from server import commands, events, telemetry
from server.__main__ import _parser
from server.audio import wav
from server.characters import Character
from server.pipelines.engines import Voice
from server.pipelines.loading import names
from server.settings import ROOT, EngineSettings, Settings, read
from tests import fakes
from tests.wire import serving

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text()


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every setting with its default."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, EngineSettings):
            found[prefix + name] = default.engine
        elif isinstance(default, BaseModel):
            found |= settings_of(type(default), f"{prefix}{name}.")
        else:
            found[prefix + name] = default
    return found


def shown(default: Any) -> str:
    """A default as the table shows it."""
    return json.dumps(default, default=str)


@pytest.mark.parametrize(("name", "default"), settings_of(Settings).items())
def test_every_setting_is_listed_with_its_default(name: str, default: Any) -> None:
    row = re.search(rf"^\| `{re.escape(name)}` \| `([^`]*)` \|", text("docs/configuration.md"), re.MULTILINE)
    assert row, f"{name} is not in docs/configuration.md"
    begin, cut, _ = row[1].partition(" …")
    assert shown(default).startswith(begin) if cut else shown(default) == begin


def test_no_setting_is_listed_that_does_not_exist() -> None:
    listed = re.findall(r"^\| `([\w.]+)` \| `", text("docs/configuration.md"), re.MULTILINE)
    assert sorted(listed) == sorted(settings_of(Settings))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.name)
def test_the_configurations_that_ship_are_right(path: Path) -> None:
    settings = read(path)
    for kind, table in (("vad", settings.vad), ("stt", settings.stt), ("llm", settings.llm), ("tts", settings.tts)):
        assert table.engine in names(kind)  # type: ignore[arg-type]
    assert settings.characters.directory.is_dir()


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "characters").glob("*.toml")), ids=lambda path: path.name)
def test_the_characters_that_ship_say_nothing_in_vain(path: Path) -> None:
    table = tomllib.loads(path.read_text())
    assert set(table) <= set(Character.__dataclass_fields__)
    for voice in (table.get("voice", {}), *table.get("voices", {}).values()):
        assert set(voice) <= set(Voice.__dataclass_fields__)


def kinds(union: Any) -> dict[str, type[BaseModel]]:
    return {get_args(command.model_fields["type"].annotation)[0]: command for command in get_args(union)}


@pytest.mark.parametrize(("name", "command"), kinds(commands.Command).items())
def test_every_command_is_in_the_protocol_with_its_fields(name: str, command: type[BaseModel]) -> None:
    row = re.search(rf"^\| `{re.escape(name)}` \|.*$", text("docs/protocol.md"), re.MULTILINE)
    assert row, f"{name} is not in docs/protocol.md"
    for field in set(command.model_fields) - {"type"}:
        assert f"`{field}" in row[0], f"{name}: {field}"


@pytest.mark.parametrize("event", [e for e in vars(events).values() if isinstance(e, type) and "type" in vars(e)])
def test_every_event_is_in_the_protocol_with_its_fields(event: Any) -> None:
    if event is events.Audio:
        return
    row = re.search(rf"^\| `{re.escape(event.type)}` \|.*$", text("docs/protocol.md"), re.MULTILINE)
    assert row, f"{event.type} is not in docs/protocol.md"
    for field in {field.name for field in fields(event)} - {"stages"}:
        assert f"`{field}`" in row[0], f"{event.type}: {field}"


@pytest.mark.parametrize("kind", ["vad", "turn_end", "stt", "llm", "tts", "codec"])
def test_every_engine_and_each_of_its_options_is_in_engines(kind: Any) -> None:
    import importlib
    import inspect

    page = text("docs/engines.md")
    own = {"higgs": "docs/gpu.md", "linacodec": "docs/linacodec.md", "remote": "docs/linacodec.md"}
    for name in names(kind):
        assert f"`{name}`" in page, name
        create = importlib.import_module(f"server.pipelines.{kind}.{name}").create
        section = text(own[name]) if name in own else page[page.index(f"`{name}`") :]
        for option in inspect.signature(create).parameters:
            assert re.search(rf"`{option}[` ]|^{option} =", section, re.MULTILINE), f"{kind} {name}: {option}"


def test_every_metric_of_conversations_is_in_deployment() -> None:
    metrics = [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]
    assert metrics
    for metric in metrics:
        (described,) = metric.describe()
        name = described.name + ("_total" if described.type == "counter" else "")
        labels = "{" + ",".join(metric._labelnames) + "}" if metric._labelnames else ""
        assert f"`{name}{labels}`" in text("docs/deployment.md"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_every_command_of_the_command_line_is_in_the_readme() -> None:
    choices = next(a for a in _parser()._actions if a.choices).choices
    assert choices
    for name in ("serve", "doctor", "say", "bench"):
        assert name in choices
        assert f"python -m server {name}" in text("README.md")


def program(page: str, about: str) -> str:
    """The Python program of `page` that mentions `about`."""
    return next(p for p in re.findall(r"```python\n(.*?)```", text(page), re.DOTALL) if about in p)


async def run_program(code: str, port: int, folder: Path) -> str:
    """The output of a program that connects to port 8000, on a server elsewhere."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code.replace("localhost:8000", f"127.0.0.1:{port}")),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


async def test_the_readmes_client_works_as_printed(tmp_path: Path) -> None:
    code = program("README.md", "user.text")
    assert len([line for line in code.splitlines() if line]) <= 10
    async with serving(fakes.rack(fakes.FakeLLM("Hello there. I am Ada."))) as server:
        printed = await run_program(code, server.port, tmp_path)
    assert printed.split("\n")[:2] == ["Hello there.", "I am Ada."]
    with wave.open(str(tmp_path / "reply.wav")) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(5 * fakes.WORD_MS / 1000, abs=0.1)


async def test_the_example_speaks_a_recording_and_records_the_answer(tmp_path: Path) -> None:
    (tmp_path / "question.wav").write_bytes(wav(fakes.voice("who are you"), fakes.RATE))
    code = text("examples/client.py").replace("parse_args()", 'parse_args(["question.wav", "answer.wav"])')
    async with serving(fakes.rack(fakes.FakeLLM("Hello there. I am Ada."))) as server:
        printed = await run_program(code, server.port, tmp_path)
    assert printed.splitlines() == ["you:  who are you", "them: Hello there.", "them: I am Ada."]
    with wave.open(str(tmp_path / "answer.wav")) as file:
        assert fakes.words(file.readframes(file.getnframes())) == ["hello", "there", "i", "am", "ada"]


async def test_the_example_says_that_nobody_is_there_and_leaves_no_empty_answer(tmp_path: Path) -> None:
    (tmp_path / "question.wav").write_bytes(wav(fakes.voice("who are you"), fakes.RATE))
    code = text("examples/client.py").replace("parse_args()", 'parse_args(["question.wav", "answer.wav"])')
    code = code.replace("localhost:8000", "127.0.0.1:9")
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=tmp_path, stderr=asyncio.subprocess.PIPE
    )
    _, told = await running.communicate()
    assert told.decode().splitlines()[-1].startswith("ConnectionRefusedError")
    assert not (tmp_path / "answer.wav").exists()
