"""The tiers in the settings and in the application."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.loading import load
from server.pipelines.tiers.services import Service, TierRules, customary
from server.settings import read
from tests import fakes
from tests.fake_codec import fake_codec
from tests.tiers_app import application, asked, serving
from tests.tones import ToneTTS, heard, pitches

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow."


def test_customary_variables_are_understood():
    rules = customary(
        TierRules(
            services={
                "vibevoice": Service(kind="runpod", url="https://api.example/v2/a"),
                "own": Service(kind="runpod", url="https://api.example/v2/c", key="own"),
                "parley": Service(url="https://parley.example"),
            }
        ),
        {
            "ENABLE_STREAMING": "false",
            "RUNPOD_API_KEY": "secret",
            "ECHOTTS_STREAMING_ENDPOINT": "https://api.example/v2/b/runsync",
            "OTHER_STREAMING_ENDPOINT": "http://other.example/tts",
        },
    )
    assert rules.streaming is False
    assert rules.services["vibevoice"].key == rules.services["echotts"].key == "secret"
    assert (rules.services["own"].key, rules.services["parley"].key) == ("own", "")
    assert rules.services["echotts"].kind == "runpod"
    assert (rules.services["other"].kind, rules.services["other"].key) == ("ndjson", "")
    assert "secret" not in repr(rules)
    assert customary(TierRules(), {}) == TierRules()
    with pytest.raises(ConfigError, match="ENABLE_STREAMING"):
        customary(TierRules(), {"ENABLE_STREAMING": "maybe"})
    for there in (TierRules(), TierRules(services={"echotts": Service(kind="runpod", url="https://api.example/v2/a")})):
        with pytest.raises(ConfigError, match=r"ECHOTTS_STREAMING_ENDPOINT=api\.example"):
            customary(there, {"ECHOTTS_STREAMING_ENDPOINT": "api.example"})


def test_the_settings_hold_the_tiers(tmp_path, monkeypatch):
    file = tmp_path / "a.toml"
    file.write_text('[codec]\nengine = "linacodec"\nmodel = "/m"\n[tiers.services.a]\nurl = "http://x"\n')
    monkeypatch.setenv("ENABLE_STREAMING", "false")
    monkeypatch.setenv("PARLEY_CODEC_DEVICE", "cpu")
    settings = read(file)
    assert settings.codec.options == {"model": "/m", "device": "cpu"}
    assert settings.tiers.services["a"].kind == "parley"
    assert settings.tiers.streaming is False
    file.write_text('[tiers.services.a]\nkind = "runpod"\n')
    with pytest.raises(ConfigError, match=r"tiers\.services\.a.*url is missing"):
        read(file)


async def test_two_applications_are_back_end_and_middleware():
    far, near = fake_codec(), fake_codec()
    async with (
        serving(application(ToneTTS(), far, server={"token": "abc"})) as back,
        serving(application(ToneTTS(), near, tiers={"services": {"echotts": {"url": back, "key": "abc"}}})) as url,
        asked(url) as client,
    ):
        response = await client.post("/api/tts/stream", json={"text": TEXT, "voice": "default", "service": "echotts"})
        assert heard(response.content) == pitches(TEXT)
        names = [service["name"] for service in (await client.get("/api/tts/services")).json()["services"]]
        assert names == ["echotts"]
        health = (await client.get("/health")).json()
        assert health["engines"]["codec"] == "codec"
        assert "parley_tier_seconds" in (await client.get("/metrics")).text
        assert (await client.get("/")).status_code == 200


async def test_a_character_lends_its_voice_and_a_stranger_is_refused():
    from server import characters

    everybody = characters.read(Path("configs/characters"))
    tts = ToneTTS()
    id, character = next(iter(everybody.items()))
    tts.voices = lambda: (character.voice.name,)
    tts.open = lambda voice, of=ToneTTS.open: of(tts, replace(voice, name=""))
    async with serving(application(tts, None)) as url, asked(url) as client:
        response = await client.post("/api/tts/stream", json={"text": TEXT, "voice": id, "service": "local"})
        assert heard(response.content) == pitches(TEXT)
        body = {"text": TEXT, "voice": "default", "output_format": "pcm_16", "engine": "nobody"}
        response = await client.post("/api/tts/synthesize", json=body)
        assert (response.status_code, response.json()["code"]) == (400, "bad_config")
        body = {"text": TEXT, "voice_options": {"reference": "/etc/passwd"}, "output_format": "pcm_16"}
        assert (await client.post("/api/tts/synthesize", json=body)).status_code == 400


async def test_the_rack_hands_its_codec_to_a_remote_voice():
    codec = fake_codec()
    engine = load("tts", "remote", {"url": "http://127.0.0.1:9"})
    rack = fakes.rack(tts=engine, codec=codec)
    assert engine.codec is codec
    assert codec in rack.engines()


async def test_a_codec_that_is_not_installed_says_how_and_nothing_else_is_affected():
    from server.pipelines.codec._lina.imports import present

    if present():
        pytest.skip("the package linacodec is installed here")
    with pytest.raises(EngineUnavailable, match=r"pip install -e '\.\[linacodec\]'"):
        load("codec", "linacodec", {})
    async with serving(application(ToneTTS(), None)) as url, asked(url) as client:
        response = await client.post("/api/tts/stream", json={"text": TEXT, "voice": "default", "service": "local"})
        assert heard(response.content) == pitches(TEXT)
        response = await client.post("/api/tts/synthesize", json={"text": TEXT, "stream": True})
        assert (response.status_code, json.loads(response.content)["code"]) == (503, "engine_unavailable")
