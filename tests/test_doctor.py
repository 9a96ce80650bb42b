"""The doctor: what is well, what is not, and that every complaint says how to mend it."""

import asyncio
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server import doctor
from server.doctor import Finding
from server.errors import TTSError
from server.pipelines.engines import Voice
from server.settings import ROOT, EngineSettings, Settings, strangers
from server.trials import trials, tried
from tests import fakes
from tests.llm_server import LLMServer
from tests.wire import serving


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Write = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path) -> Write:
    """Writes a configuration of the tables given, with the characters that ship and the offline model by default."""

    def write(more: str = "", llm: str = 'engine = "eliza"', cast: str = f"{ROOT}/configs/characters") -> Path:
        path = tmp_path / "parley.toml"
        path.write_text(f'[characters]\ndirectory = "{cast}"\n[llm]\n{llm}\n{more}')
        return path

    return write


async def found(config: Path | None, port: int) -> dict[str, Finding]:
    """The worst finding on each subject."""
    worst: dict[str, Finding] = {}
    async for finding in doctor.examine(config, port=port):
        grades = ("ok", "warn", "fail")
        if finding.what not in worst or grades.index(finding.state) > grades.index(worst[finding.what].state):
            worst[finding.what] = finding
    return worst


async def test_all_is_well_with_what_ships(config: Write, free_port: int) -> None:
    findings = await found(config(), free_port)
    assert [f for f in findings.values() if f.state == "fail"] == []
    assert {"python", "packages", "configuration", "page", "characters", "port"} <= set(findings)
    assert findings["vad"].text.startswith("silero: looks at frames")
    assert findings["stt"].text.startswith("pocketsphinx: listens (en)")
    assert findings["tts"].text.startswith("espeak: speaks for Ada, Finn, Vera, Pip")
    assert (findings["llm"].state, "PARLEY_LLM_BASE_URL" in findings["llm"].text) == ("warn", True)


async def test_every_engine_is_stopped_again() -> None:
    tasks, threads = set(asyncio.all_tasks()), set(threading.enumerate())
    for kind, _, engine, work in trials(Settings(llm={"engine": "eliza"}), []):
        await tried(kind, engine, work)
    async with asyncio.timeout(10):
        while left := {t.name for t in set(threading.enumerate()) - threads if not t.name.startswith("asyncio_")}:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not left
    assert set(asyncio.all_tasks()) == tasks


async def test_the_report_counts_what_is_to_mend(
    config: Write, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config('[stt]\nengine = "whisperer"\n', llm='engine = "elisa"')
    assert await doctor.report(path, port=free_port) == 1
    out = capsys.readouterr().out
    assert "fail  llm            elisa: [llm] engine = 'elisa' is not an engine; there are: auto, eliza" in out
    assert "fail  stt " in out
    assert out.endswith("2 to mend\n")


async def test_a_wrong_configuration_ends_it(tmp_path: Path, free_port: int) -> None:
    findings = await found(tmp_path / "nowhere.toml", free_port)
    assert findings["configuration"].state == "fail"
    assert "nowhere.toml" in findings["configuration"].text
    assert "vad" not in findings


async def test_an_endpoint_that_nobody_serves(config: Write, free_port: int) -> None:
    path = config(llm=f'engine = "openai"\nbase_url = "http://127.0.0.1:{free_port}/v1"')
    findings = await found(path, free_port + 1 if free_port < 65_000 else free_port - 1)
    assert findings["llm"].state == "fail"
    assert f"http://127.0.0.1:{free_port}/v1" in findings["llm"].text


async def test_an_endpoint_is_asked_for_an_answer() -> None:
    async with LLMServer("Hello there.") as server:
        engine = EngineSettings(engine="openai", base_url=server.url, model="m")
        work = next(work for kind, _, _, work in trials(Settings(), []) if kind == "llm")
        assert await tried("llm", engine, work) != ("", False)
        assert server.requests[0].body["model"] == "m"


async def test_a_character_whose_voice_does_not_exist(config: Write, free_port: int, tmp_path: Path) -> None:
    folder = tmp_path / "cast"
    folder.mkdir()
    (folder / "zoe.toml").write_text('name = "Zoe"\nprompt = "x"\npicture = "none.svg"\n[voice]\nname = "gibberish"\n')
    findings = await found(config(cast="cast"), free_port)
    assert findings["tts"].state == "fail"
    assert "gibberish" in findings["tts"].text
    assert findings["characters"] == Finding("warn", "characters", "zoe: no picture at static/none.svg")


async def test_an_engine_that_no_character_speaks_with_is_tried_too(config: Write, free_port: int) -> None:
    findings = await found(config("[voices.robot]\nengine = 'espeak'\n"), free_port)
    assert findings["voices.robot"].text.startswith("espeak: speaks, with no character of its own")
    work = next(work for _, name, _, work in trials(Settings(), []) if name == "tts")
    with pytest.raises(TTSError, match="broke"):
        await work(Broken())


class Broken(fakes.FakeTTS):
    def open(self, voice: Voice) -> fakes.FakeSpeaker:
        raise TTSError("it broke")


def test_an_old_python() -> None:
    assert doctor.python((3, 11, 0)).state == "ok"
    assert doctor.python((3, 10, 14)).state == "fail"


def test_missing_packages() -> None:
    wanted = ["numpy>=1.26", "no-such-package>=1", 'torch>=2; extra == "higgs"']
    assert doctor.packages(wanted).text == "missing: no-such-package; run: pip install -e ."
    assert doctor.packages(wanted[::2]).text == "1 of 1"


def test_the_page_is_followed_to_its_last_module(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text('<script type="module" src="app.js"></script><link href="css/a.css">')
    (tmp_path / "app.js").write_text('import { a } from "./views/a.js";\nimport "./gone.js";\n')
    (tmp_path / "css").mkdir()
    (tmp_path / "css" / "a.css").write_text("")
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "a.js").write_text('export { b } from "../b.js";')
    (finding,) = doctor.page(tmp_path)
    assert finding.state == "fail"
    assert "missing in" in finding.text
    assert ": b.js, gone.js;" in finding.text


def test_the_page_that_ships_is_whole() -> None:
    (finding,) = doctor.page(ROOT / "static")
    assert finding.state == "ok"
    modules = len(list((ROOT / "static").glob("**/*.js")))
    assert int(finding.text.split()[0]) > modules / 2


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finding = await doctor.reach("127.0.0.1", taken.getsockname()[1])
    assert finding.state == "fail"
    assert "--port" in finding.text


async def test_a_port_that_parley_serves_already() -> None:
    async with serving(fakes.rack()) as server:
        finding = await doctor.reach("127.0.0.1", server.port)
    assert (finding.state, finding.text.endswith("Parley is serving there")) == ("ok", True)


def test_listening_to_the_world() -> None:
    assert list(doctor.access(Settings(), None)) == []
    assert [f.state for f in doctor.access(Settings(), "0.0.0.0")] == ["warn", "warn"]
    with_token = Settings(server={"token": "t", "host": "::"})
    (https,) = doctor.access(with_token, None)
    assert "https" in https.text


def test_variables_that_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PARLEY_LMM_MODEL", "PARLEY_LLM_MODEL", "PARLEY_LANGUAGE", "PARLEY_SERVER_TOKEN"):
        monkeypatch.setenv(name, "en")
    assert strangers() == ["PARLEY_LMM_MODEL"]
    assert [f.state for f in doctor.environment(strangers())] == ["warn"]
