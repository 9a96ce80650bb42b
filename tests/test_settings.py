"""Settings: a file, variables that win over it, and what is wrong with either named in one line."""

from pathlib import Path

import pytest

from server.app import create_app
from server.errors import ConfigError
from server.settings import Settings, read
from tests import fakes
from tests.wire import ROOT


def configured(tmp_path: Path, text: str) -> Settings:
    path = tmp_path / "parley.toml"
    path.write_text(text)
    return read(path)


def test_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARLEY_TURN_SILENCE_MS", "700")
    monkeypatch.setenv("PARLEY_SERVER_ORIGINS", '["https://talk.example.org"]')
    monkeypatch.setenv("PARLEY_INTERRUPT_BACKCHANNELS", '{"en": ["hup"]}')
    settings = configured(tmp_path, "[turn]\nsilence_ms = 300\nspeculative = false\n")
    assert (settings.turn.silence_ms, settings.turn.speculative) == (700, False)
    assert settings.server.origins == ("https://talk.example.org",)
    assert settings.interrupt.listed("en-US") == ("hup",)


def test_openais_variables_are_for_who_speaks_its_api_and_has_no_setting_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://llm.example.org/v1")
    voices = '[voices.cloud]\nengine = "openai"\n[voices.robot]\nengine = "espeak"\n'
    settings = configured(tmp_path, f'[stt]\nengine = "openai"\napi_key = "its own"\n{voices}')
    assert settings.llm.options == {"api_key": "k", "base_url": "https://llm.example.org/v1"}
    assert settings.stt.options == {"api_key": "its own", "base_url": "https://llm.example.org/v1"}
    assert settings.voices["cloud"].options == settings.llm.options
    assert settings.tts.options == settings.voices["robot"].options == {}  # espeak knows no keys


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[server]\ntypo = 1", "server.typo"),
        ("typo = 1", "typo"),
        ("[audio]\noutput_rate = 3", "PARLEY_AUDIO_OUTPUT_RATE.*at least 8000"),
        ("[turn]\nstart = 0.2\nstop = 0.9", "stop should not be greater than start"),
        ("[turn]\nmax_ms = nan", "turn.max_ms"),
        ("x = ", "parley.toml"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, text: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint):
        configured(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("PARLEY_SERVER_PORT", "eighty", "PARLEY_SERVER_PORT"),
        ("PARLEY_SERVER_ORIGINS", "https://talk.example.org", "PARLEY_SERVER_ORIGINS: .* JSON"),
    ],
)
def test_a_variable_that_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=complaint):
        configured(tmp_path, "")


async def test_a_language_that_the_recogniser_does_not_know_is_noticed_at_the_start():
    class English(fakes.FakeSTT):
        def open(self, language):
            if language != "en":
                raise ConfigError(f"English only, not {language!r}")
            return super().open(language)

    settings = Settings(language="de", characters={"directory": ROOT / "configs" / "characters"})
    app = create_app(settings, fakes.rack(stt=English()))
    with pytest.raises(ConfigError, match="not 'de'"):
        async with app.router.lifespan_context(app):
            pass
    assert app.state.failure
