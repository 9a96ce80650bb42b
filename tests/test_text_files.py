"""Text is UTF-8, whatever the machine's locale says: every reader and writer of it says so."""

import ast
from pathlib import Path

import pytest

from server.settings import ROOT

SAID = {"read_text": 1, "write_text": 2, "open": 4}  # and how many arguments it takes to say the encoding
MODULES = sorted((ROOT / "server").rglob("*.py"))


def careless(call: ast.Call) -> bool:
    """Whether `call` reads or writes text in the locale's encoding."""
    named = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    if "encoding" in named:
        return False
    match call.func:
        case ast.Attribute(attr="read_text" | "write_text" as name) | ast.Name(id="open" as name):
            mode = str(named.get("mode") or [getattr(word, "value", "") for word in call.args[1:2]])
            return len(call.args) < SAID[name] and not (name == "open" and "b" in mode)
    return bool(named.get("text"))  # a program's, as of `subprocess.run`


@pytest.mark.parametrize("path", MODULES, ids=[path.relative_to(ROOT).as_posix() for path in MODULES])
def test_every_reader_of_text_names_its_encoding(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if careless(call)] == []


@pytest.mark.parametrize("code", ["open(x)", "open(x, 'w')", "p.read_text()", "p.write_text(x)", "run(x, text=True)"])
def test_what_is_careless(code: str) -> None:
    assert careless(ast.parse(code, mode="eval").body)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["open(x, 'rb')", "p.read_text('utf-8')", "p.write_text(x, encoding='utf-8')"])
def test_what_is_not(code: str) -> None:
    assert not careless(ast.parse(code, mode="eval").body)  # type: ignore[arg-type]
