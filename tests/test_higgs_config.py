# ruff: noqa: E402
"""The configuration for a GPU, as it ships: its settings, its characters, what brings it up."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
yaml = pytest.importorskip("yaml", reason="pip install -e .[test]")

from server import characters
from server.pipelines.loading import load
from server.settings import ROOT, Settings, read


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return read(ROOT / "configs" / "gpu.toml")


def test_every_option_exists(settings: Settings) -> None:
    assert (settings.tts.engine, settings.stt.engine, settings.llm.engine) == ("higgs", "faster_whisper", "openai")
    for kind in ("vad", "stt", "llm", "tts"):
        table = getattr(settings, kind)
        create = __import__(f"server.pipelines.{kind}.{table.engine}", fromlist=["create"]).create
        assert set(table.options) <= set(inspect.signature(create).parameters), kind
    load("tts", "higgs", settings.tts.options)


def test_the_characters_use_a_description_a_clone_and_a_preset(settings: Settings) -> None:
    from server.pipelines.tts._higgs.timbre import Taste, timbre

    cast = characters.read(settings.characters.directory)
    characters.chosen(cast, settings.characters.active)
    assert [c.voice.method for c in cast.values()] == ["description", "clone", "preset"]
    voices = [timbre(c.voice, Taste(), {}) for c in cast.values()]
    assert voices[1].recording is not None
    assert len(voices[1].recording.wave) > 5 * 24_000
    assert voices[2].context == 8
    for character in cast.values():
        assert (ROOT / "static" / character.picture).is_file()


def test_the_compose_file_brings_up_both(settings: Settings) -> None:
    folder = ROOT / "deploy"
    services: dict[str, Any] = yaml.safe_load((folder / "compose.gpu.yaml").read_text())["services"]
    assert services.keys() == {"llm", "parley"}
    build = services["parley"]["build"]
    made = Path(folder, build["context"], build["dockerfile"]).resolve()
    copies = [line.split()[1:-1] for line in made.read_text().splitlines() if line.startswith("COPY")]
    for name in (name for names in copies for name in names):
        assert (ROOT / name).exists() or name == "README.md", f"{made.name} copies {name}"
    given = services["parley"]["environment"]
    assert given["PARLEY_LLM_BASE_URL"] == "http://llm:8000/v1"
    assert settings.llm.options["model"] in given["PARLEY_LLM_MODEL"]
    for variable in (name for name in given if name.startswith("PARLEY_")):
        table, key = variable.removeprefix("PARLEY_").lower().split("_", 1)
        assert key in getattr(settings, table).model_dump(), variable


async def test_doctor_tells_of_the_machine_and_what_is_missing(settings: Settings, tmp_path: Path) -> None:
    """Card, memory, versions, weights and streams: by trying the engine, on the tiny weights here."""
    from server.errors import EngineUnavailable
    from server.settings import EngineSettings
    from server.trials import trials, tried
    from tests.higgs import tiny

    options = {
        "engine": "higgs",
        "model": str(tiny.folder()),
        "local_files_only": True,
        "max_seconds": 2,
        "device": "cpu",
    }
    here = settings.model_copy(update={"tts": EngineSettings(**options)})
    cast = list(characters.read(settings.characters.directory).values())
    work = next(work for kind, _, _, work in trials(here, cast) if kind == "tts")
    told, well = await tried("tts", here.tts, work)
    assert well
    for part in (
        "speaks for Ada, Finn, Vera",
        "cpu without a card",
        "torch 2.",
        "transformers 5.",
        "streams in real time",
    ):
        assert part in told
    with pytest.raises(EngineUnavailable, match="hf download"):
        await tried("tts", EngineSettings(**options | {"model": str(tmp_path)}), work)


@pytest.mark.parametrize("error", ["OSError('libc10_cuda.so')", "RuntimeError('different CUDA versions')"])
def test_a_torchaudio_built_for_another_torch_serves_without_its_extension(error: str, tmp_path: Path) -> None:
    package = tmp_path / "torchaudio"
    (package / "_extension").mkdir(parents=True)
    (package / "__init__.py").write_text("from . import _extension\n")
    (package / "_extension" / "__init__.py").write_text(f"raise {error}\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from server.pipelines.tts._higgs import shim; shim.usable(); "
        "import torchaudio; assert torchaudio.__file__.startswith(sys.argv[1]); "
        "assert not torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60, cwd=ROOT)
