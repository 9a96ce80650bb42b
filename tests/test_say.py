"""`say`: a text by any engine and character, into a file or the loudspeaker."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server import characters, say
from server.audio import milliseconds, read_wav, to_float
from server.characters import Character
from server.errors import ConfigError, EngineUnavailable, TTSError
from server.manner import manner
from server.pipelines.engines import Voice
from server.settings import ROOT, EngineSettings, Settings, engine_for

TEXT = "Good morning to you all."


def settings(**tables: object) -> Settings:
    return Settings(**{"characters": {"directory": ROOT / "configs" / "characters"}} | tables)  # type: ignore[arg-type]


def loudness(pcm: bytes) -> float:
    return float(np.sqrt(np.mean(to_float(pcm) ** 2)))


async def test_every_character_sounds_different() -> None:
    told = {who: await say.speech(settings(), TEXT, who) for who in ("ada", "finn", "vera", "pip")}
    assert {t.engine for t in told.values()} == {"espeak"}
    assert len({t.pcm for t in told.values()}) == 4
    for one in told.values():
        assert 500 < milliseconds(one.pcm, one.rate) < 5_000
        assert loudness(one.pcm) > 0.01


async def test_the_first_character_is_the_default() -> None:
    default, ada = await say.speech(settings(), TEXT), await say.speech(settings(), TEXT, "ada")
    assert abs(len(default.pcm) - len(ada.pcm)) < 400  # espeak differs by a few samples from call to call


async def test_a_character_has_its_own_voice_on_another_engine() -> None:
    try:
        told = {who: await say.speech(settings(), TEXT, who, engine="flite") for who in ("ada", "finn", "vera")}
    except EngineUnavailable as error:
        pytest.skip(str(error))
    assert {t.engine for t in told.values()} == {"flite"}
    assert len({t.pcm for t in told.values()}) == 3
    assert all(loudness(t.pcm) > 0.01 for t in told.values())


def test_what_is_written_for_another_engine_is_left_out() -> None:
    knobs = Character("x", "X", "", voice=Voice(name="en", speed=1.1, options={"pitch": 50}))
    assert manner(settings(), knobs, "espeak", "") == knobs.voice
    assert manner(settings(), knobs, "flite", "") == Voice(speed=1.1)
    assert manner(settings(), knobs, "flite", "rms") == Voice(name="rms", speed=1.1)
    both = replace(knobs, voices={"flite": Voice(name="awb", options={"pitch": 0.9})})
    assert manner(settings(), both, "flite", "") == Voice(name="awb", options={"pitch": 0.9})
    assert manner(settings(), both, "flite", "rms").name == "rms"


def test_the_characters_that_ship_have_a_voice_on_every_engine() -> None:
    everybody = characters.read(ROOT / "configs" / "characters", "kokoro")
    assert len({c.voice.name for c in everybody.values()}) == 4
    for engine in ("flite", "kokoro", "pocket_tts", "openai", "higgs"):
        assert all(engine in c.voices for c in everybody.values()), engine


def test_engines_by_module_and_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    given = settings(voices={"slow": {"engine": "espeak", "rate": 90}})
    assert engine_for(given, "") == given.tts
    assert engine_for(given, "espeak") == given.tts
    assert engine_for(given, "slow").options == {"rate": 90}
    assert engine_for(given, "kokoro") == EngineSettings(engine="kokoro")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert engine_for(given, "openai").options == {"api_key": "k"}


async def test_a_named_voice_speaks_by_its_own_options() -> None:
    given = settings(voices={"slow": {"engine": "espeak", "rate": 90}})
    slow, usual = await say.speech(given, TEXT, engine="slow"), await say.speech(given, TEXT)
    assert slow.engine == "espeak"
    assert len(slow.pcm) >= len(usual.pcm)


async def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ConfigError, match="no character 'bob'"):
        await say.speech(settings(), TEXT, "bob")
    with pytest.raises(ConfigError, match="'nobody' is not an engine; there are: espeak"):
        await say.speech(settings(), TEXT, engine="nobody")
    with pytest.raises(ConfigError, match="gibberish"):
        await say.speech(settings(), TEXT, voice="gibberish")
    with pytest.raises(TTSError, match="nothing in this text"):
        await say.speech(settings(), "...")


def test_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "hello.wav"
    assert say.say(settings(), TEXT, "finn", "", "", str(out)) == 0
    pcm, rate = read_wav(out.read_bytes())
    assert rate == 22_050
    assert loudness(pcm) > 0.01
    assert capsys.readouterr().out.startswith(f"{out}: 1.")


def test_standard_output_holds_the_file_alone(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    say.say(settings(), TEXT, "", "", "", "-")
    assert loudness(read_wav(capfdbinary.readouterr().out)[0]) > 0.01


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out .*nowhere"):
        say.say(settings(), TEXT, "", "", "", str(tmp_path / "nowhere" / "x.wav"))


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose one player is `script`."""
    path = folder / "aplay"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_played_where_something_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, f'cp "$2" {tmp_path}/played.wav', monkeypatch)
    assert say.say(settings(), TEXT, "", "", "", "") == 0
    assert loudness(read_wav((tmp_path / "played.wav").read_bytes())[0]) > 0.01


def test_a_player_without_a_sound_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo 'aplay: main: audio open error' >&2; exit 1", monkeypatch)
    with pytest.raises(ConfigError, match=r"audio open error.*--out"):
        say.say(settings(), TEXT, "", "", "", "")


def test_a_file_where_nothing_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert say.say(settings(), TEXT, "", "", "", "") == 0
    assert loudness(read_wav((tmp_path / say.UNHEARD).read_bytes())[0]) > 0.01
