"""Engines by name: what is wrong is named, with the table that asked for it."""

import pytest

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.loading import load
from server.rack import Rack
from server.settings import EngineSettings, Settings
from tests import fakes


@pytest.mark.parametrize("name", ["", "gramophone", "_batches", "__init__", "../vad/silero"])
def test_what_is_no_engine_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[vad\] engine = '.*' is not an engine; there are: silero$"):
        load("vad", name, {})


def test_an_option_that_does_not_exist_is_told_with_those_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"^\[tts\] pitch is not an option .* its options: voice, variant, rate, work"
    ):
        load("tts", "espeak", {"pitch": 3})


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ("turnend", {"turnend": EngineSettings(engine="crystal_ball")}),
        ("voices.robot", {"voices": {"robot": EngineSettings(engine="gramophone")}}),
        ("voices.robot", {"voices": {"robot": EngineSettings(engine="espeak", horn="brass")}}),
        ("voices.robot", {"voices": {"robot": EngineSettings(engine="espeak", rate="fast")}}),
    ],
)
def test_the_table_that_is_named_is_the_one_in_the_file(table: str, settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as told:
        Rack.of(Settings(**settings))
    assert str(told.value).startswith(f"[{table}] ")


async def test_where_one_engine_cannot_be_opened_the_others_are_closed_again() -> None:
    stopped = []

    class Mute(fakes.FakeTTS):
        async def start(self) -> None:
            raise EngineUnavailable("no voice")

    class Deaf(fakes.FakeSTT):
        async def stop(self) -> None:
            stopped.append(self)

    rack = Rack(fakes.FakeVAD(), Deaf(), fakes.FakeLLM(), Mute())  # type: ignore[arg-type]
    with pytest.raises(EngineUnavailable, match="no voice"):
        async with rack:
            pass
    assert stopped == [rack.stt]
    assert not rack.ready


class Stopping(fakes.FakeTTS):
    """Any engine: notes that it stops, or fails at it."""

    def __init__(self, name: str, stopped: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.name, self._stopped, self._error = name, stopped, error

    async def stop(self) -> None:
        self._stopped.append(self.name)
        if self._error:
            raise self._error


async def test_a_voice_stops_before_the_codec_that_decodes_for_it() -> None:
    stopped: list[str] = []
    voice, codec = Stopping("voice", stopped), Stopping("codec", stopped)
    async with Rack(fakes.FakeVAD(), fakes.FakeSTT(), fakes.FakeLLM(), voice, codec=codec):  # type: ignore[arg-type]
        assert stopped == []
    assert stopped == ["voice", "codec"]


async def test_an_engine_that_fails_to_stop_keeps_none_of_the_others_from_it() -> None:
    stopped: list[str] = []
    voice = Stopping("voice", stopped, OSError("its thread hangs"))
    vad, stt, llm = (Stopping(name, stopped) for name in ("vad", "stt", "llm"))
    with pytest.raises(OSError, match="its thread hangs"):
        async with Rack(vad, stt, llm, voice):  # type: ignore[arg-type]
            pass
    assert sorted(stopped) == ["llm", "stt", "vad", "voice"]


def test_a_list_or_a_table_may_come_as_the_json_of_a_variable() -> None:
    assert load("llm", "auto", {"candidates": '["http://127.0.0.1:9/v1"]'})._candidates == ["http://127.0.0.1:9/v1"]
    assert load("tts", "openai", {"extra": '{"stream": true}'})._fields["stream"] is True
    with pytest.raises(ConfigError, match=r"^\[llm\] candidates"):
        load("llm", "auto", {"candidates": "http://127.0.0.1:9/v1"})


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("espeak", {"workers": 0}),
        ("flite", {"workers": -1}),
        ("kokoro", {"streams": 0}),
        ("openai", {"streams": 0}),
        ("pocket_tts", {"streams": "0"}),
        ("remote", {"url": "http://127.0.0.1:9", "streams": 0}),
    ],
)
def test_an_engine_of_no_workers_would_serve_nobody(engine: str, options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^\[tts\] (workers|streams): .* greater than or equal to 1"):
        load("tts", engine, options)


@pytest.mark.parametrize("engine", ["espeak", "flite"])
def test_a_voice_that_does_not_exist_is_told_at_once(engine: str) -> None:
    with pytest.raises(ConfigError, match=f"{engine} has no voice 'darth'; there are: "):
        load("tts", engine, {"voice": "darth"})
