"""The command line, and a server of its own process from start to SIGTERM."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import websockets

from server.__main__ import main
from server.settings import ROOT
from tests.live import served


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_a_reader_that_has_read_enough_of_the_report() -> None:
    """`python -m server doctor | head -1`"""
    started = [sys.executable, "-m", "server", "doctor", "--port", "0"]
    environment = os.environ | {"PARLEY_LLM_ENGINE": "eliza"}
    doctor = subprocess.Popen(
        started, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert doctor.stdout
    assert doctor.stderr
    with doctor:
        assert doctor.stdout.readline().startswith("ok")
        doctor.stdout.close()
        assert "Traceback" not in doctor.stderr.read()


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["say", "hello", "--loud"])
    assert "unknown: --loud" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve"], ["say", "x"]])
def test_what_is_wrong_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--config", "nowhere.toml"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("parley: no configuration at nowhere.toml")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_engine_that_does_not_exist_keeps_it_from_starting() -> None:
    done = command("serve", "--port", "0", PARLEY_TTS_ENGINE="gramophone")
    assert done.returncode == 2
    assert done.stderr.startswith("parley: [tts] engine = 'gramophone' is not an engine; there are: espeak")
    assert done.stderr.count("\n") == 1


def test_a_model_file_that_is_missing_is_one_line_without_a_traceback() -> None:
    done = command("serve", "--port", "0", PARLEY_TURNEND_ENGINE="smart_turn", PARLEY_TURNEND_MODEL="/nowhere.onnx")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("parley: [turnend] model = '/nowhere.onnx': there is no such file")
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_is_said_before_anything_is_loaded() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("serve", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"parley: {port} on 127.0.0.1: Address already in use; take another: --port N")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("port", ["70000", "-1", "eighty"])
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_a_port_that_is_none(command: str, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--port", port])
    assert ended.value.code == 2
    assert f"--port: {port} is no port: 0 to 65535" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["203.0.113.7", "nowhere.invalid"])
def test_a_host_that_is_not_here(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", host, "--port", "0"]) == 2
    assert capsys.readouterr().err.endswith(
        f"{host} is no address of this machine: --host 127.0.0.1, or 0.0.0.0 for all\n"
    )


def test_the_doctor_ends_with_what_it_found() -> None:
    done = command("doctor", "--port", "0", PARLEY_LLM_ENGINE="eliza", PARLEY_STT_ENGINE="ear_trumpet")
    assert done.returncode == 1
    assert "fail  stt            ear_trumpet: [stt] engine = 'ear_trumpet' is not an engine" in done.stdout
    assert done.stdout.endswith("1 to mend\n")


def test_all_files_are_utf_8_whatever_the_machine_says() -> None:
    ascii = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = command("doctor", "--port", "0", PARLEY_LLM_ENGINE="eliza", **ascii)
    assert done.returncode == 0, done.stderr


def test_a_setting_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PARLEY_SERVER_PORT", "eighty")
    assert main(["serve"]) == 2
    assert "PARLEY_SERVER_PORT" in capsys.readouterr().err


def test_the_bench_tells_its_options() -> None:
    done = command("bench", "--help")
    assert done.returncode == 0
    assert "--sessions" in done.stdout


def test_torch_is_not_needed_to_start() -> None:
    script = "import sys, server.app; from server.settings import read; server.app.create_app(read()); " + (
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60).returncode == 0


def test_the_runtime_of_small_models_reports_to_nobody(tmp_path: Path) -> None:
    """onnxruntime keeps an id of the machine in the home directory, and sends what it runs to its makers."""
    script = "from server.pipelines.vad.silero import bundled; from server.pipelines.onnx_model import open_model; " + (
        "open_model(bundled(), '', set())"
    )
    subprocess.run([sys.executable, "-c", script], env={"HOME": str(tmp_path)}, check=True, timeout=60)
    assert not list(tmp_path.rglob("*"))


async def test_serve_from_start_to_sigterm() -> None:
    async with served("--config", "configs/embedded.toml") as process:
        async with httpx.AsyncClient(trust_env=False, base_url=process.url) as client:
            health = (await client.get("/health")).json()
            assert health["engines"] == {"vad": "silero", "stt": "pocketsphinx", "llm": "eliza", "tts": "espeak"}
            assert "<title>" in (await client.get("/")).text
        async with websockets.connect(process.url.replace("http", "ws") + "/ws") as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            assert await process.stop() == -signal.SIGTERM
            told = []
            with contextlib.suppress(websockets.ConnectionClosedError):
                async for frame in socket:
                    told.append(json.loads(frame))
            assert (told[-1]["code"], told[-1]["fatal"]) == ("restart", True)
            assert socket.close_code == 1012
    assert "Parley is ready: open http://localhost:" in process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize(
    ("python", "why"), [("", ""), ("/nowhere/python3", "; /nowhere/python3 is none"), ("{old}", "; {old} is none")]
)
def test_make_wants_a_python_that_will_do(python: str, why: str, tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\ntest $1 != -c\n")  # it is asked for its version, and says no
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        ["make", ".venv/bin/python", f"PYTHON={python.format(old=old)}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"Parley needs Python 3.11 or newer{why.format(old=old)}. Name one: make run PYTHON=/path/to/python3\n"
    )
    assert not (tmp_path / ".venv").exists()


def test_two_commands_and_the_gate() -> None:
    targets = ("run", "test", "check", "bench")
    plan = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert plan.returncode == 0, plan.stderr
    assert "-m server serve --config configs/embedded.toml --host 127.0.0.1 --port 8000" in plan.stdout
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text()
