"""Voices over the tiers: the engine `remote`, conversion and upsampling, the settings, the application."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from server.app import create_app
from server.audio import SAMPLE, to_float, wav
from server.errors import ConfigError, EngineUnavailable, ProtocolError, TTSError
from server.pipelines.engines import Voice
from server.pipelines.loading import load
from server.pipelines.tiers.services import Service, TierRules, customary
from server.pipelines.tiers.voices import described, sent
from server.pipelines.tts._revoiced import quietest, revoiced
from server.settings import Settings, read
from tests import fakes
from tests.fake_codec import FakeNetwork, fake_codec, tone
from tests.tiers_app import asked, parley, serving, until, upstream
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow."


async def spoken(speaker, text=TEXT):
    async with aclosing(speaker.speak(text)) as speech:
        pieces = [piece async for piece in speech]
    return b"".join(p.pcm for p in pieces), [w for p in pieces for w in p.words], pieces


# The engine `remote`


async def remote(url, codec=None, **options):
    engine = load("tts", "remote", {"url": url, **options})
    engine.codec = codec
    await engine.start()
    return engine


@pytest.mark.parametrize("format", ["linacodec_tokens", "pcm_16"])
async def test_a_voice_made_elsewhere_is_heard_here(format):
    tts, far, near = ToneTTS(), fake_codec(), fake_codec()
    async with parley(tts, far) as url:
        engine = await remote(url, near, format=format)
        assert engine.rate == 48_000
        speaker = engine.open(Voice(name="bell", speed=1.2, options={"variant": "f3"}))
        for text in (TEXT, "Ember island."):
            pcm, _, _ = await spoken(speaker, text)
            assert heard(pcm) == pitches(text)
        made = tts.voices_opened[-1]
        assert (made.name, made.speed, made.options) == ("bell", 1.2, {"variant": "f3"})
        await speaker.close()
        await engine.stop()
    assert near.worker.decoded == (2 if format == "linacodec_tokens" else 0)
    await far.stop()
    await near.stop()


async def test_each_character_has_its_own_voice():
    tts, far, near = ToneTTS(), fake_codec(), fake_codec()
    async with parley(tts, far) as url:
        engine = await remote(url, near)
        bell, _, _ = await spoken(engine.open(Voice(name="bell")))
        flute, _, _ = await spoken(engine.open(Voice(name="flute")))
        assert heard(bell) == heard(flute)
        assert np.abs(to_float(bell) - to_float(flute)).mean() > 0.02
        await engine.stop()
    await far.stop()
    await near.stop()


async def test_cancelling_a_reply_stops_the_voice_elsewhere():
    tts, far, near = ToneTTS(delay=0.02), fake_codec(), fake_codec()
    async with parley(tts, far) as url:
        engine = await remote(url, near)
        async with aclosing(engine.open(Voice()).speak(prose(9_000))) as speech:
            await anext(speech)
            assert tts.open_now == 1
        await until(lambda: tts.open_now == 0)
        assert len(tts.said) < 15
        await engine.stop()
    assert not [t for t in asyncio.all_tasks() if t.get_name() in ("ahead", "codec")]
    await far.stop()
    await near.stop()


@pytest.mark.parametrize(
    ("voice", "text", "code"), [("tuba", TEXT, "upstream_failed"), ("flute", "Then EXPLODE now.", "upstream_failed")]
)
async def test_what_fails_elsewhere_is_a_failure_of_the_voice(voice, text, code):
    far, near = fake_codec(), fake_codec()
    async with parley(ToneTTS(), far) as url:
        engine = await remote(url, near)
        with pytest.raises(TTSError) as error:
            await spoken(engine.open(Voice(name=voice)), text)
        assert error.value.code == code
        await engine.stop()
    await far.stop()
    await near.stop()


async def test_an_upstream_that_dies_is_a_failure_of_the_voice():
    async def script(answer):
        answer.die()

    async with upstream(script) as url:
        engine = await remote(url, fake_codec())
        with pytest.raises(TTSError) as error:
            await spoken(engine.open(Voice()))
        assert error.value.code == "upstream_died"
        await engine.stop()


async def test_one_connection_serves_one_sentence_after_the_other():
    ports = set()
    far, near = fake_codec(), fake_codec()

    class Watched(ToneTTS):
        pass

    async with parley(Watched(), far) as url:
        engine = await remote(url, near)
        pool = engine._http._transport._pool
        speaker = engine.open(Voice())
        for _ in range(3):
            await spoken(speaker)
            await until(lambda: all(c.is_idle() for c in pool.connections))
            ports |= {id(c) for c in pool.connections}
        assert len(ports) == 1
        await engine.stop()
    await far.stop()
    await near.stop()


async def test_tokens_without_a_codec_are_refused_at_the_start_with_what_to_do():
    with pytest.raises(ConfigError, match="encoder = false"):
        await remote("http://127.0.0.1:9")


def test_options_that_are_wrong_are_named():
    with pytest.raises(ConfigError, match="url"):
        load("tts", "remote", {"url": "ftp://x"})
    with pytest.raises(ConfigError, match="format"):
        load("tts", "remote", {"url": "http://x", "format": "mp3"})


# What travels of a voice


def test_a_voice_travels_without_its_files():
    voice = Voice("bell", "x", "clone", "de", 1.5, reference=Path("/etc/passwd"), seed=4, options={"pitch": 3})
    assert sent(voice) == {"language": "de", "speed": 1.5, "seed": 4, "options": {"pitch": 3}}
    assert described(Voice("a"), sent(voice)) == Voice("a", language="de", speed=1.5, seed=4, options={"pitch": 3})
    assert sent(Voice()) == {}


@pytest.mark.parametrize(
    "options", [{"reference": "/etc/passwd"}, {"engine": "x"}, {"speed": "fast"}, {"upsample": "y"}]
)
def test_what_must_not_travel_is_refused(options):
    with pytest.raises(ProtocolError, match=f"voice_options.{next(iter(options))}"):
        described(Voice(), options)


# Conversion and upsampling


@pytest.fixture
def bell(tmp_path):
    file = tmp_path / "bell.wav"
    file.write_bytes(wav(tone(500, 1.5, 24_000, octave=0.8), 24_000))
    return file


def octaves(pcm: bytes, rate: int) -> float:
    """How strong the octave is over each word's pitch, on average."""
    step = rate * 160 // 1000
    frames = to_float(pcm)[: len(pcm) // 2 // step * step].reshape(-1, step)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))
    best = spectrum.argmax(axis=1)
    rows = np.arange(len(frames))
    return float(np.mean(spectrum[rows, np.minimum(best * 2, spectrum.shape[1] - 1)] / spectrum[rows, best]))


@pytest.mark.parametrize("text", [TEXT, prose(400), "Ember."])
async def test_convert_keeps_the_words_and_takes_the_timbre(bell, text):
    codec, tts = fake_codec(), ToneTTS(rate=24_000)
    voice = Voice(name="flute", method="convert", reference=bell)
    engine = revoiced(tts, voice, codec)
    assert engine.rate == 48_000
    pcm, words, _ = await spoken(engine.open(voice), text)
    plain, plain_words, _ = await spoken(tts.open(Voice(name="flute")), text)
    assert len(pcm) == 2 * len(plain)
    assert [p for p in heard(pcm) if p >= 0] == pitches(text)
    assert words == plain_words
    assert octaves(pcm, 48_000) > octaves(plain, 24_000) + 0.3
    assert tts.voices_opened[0] == Voice(name="flute")
    await codec.stop()


async def test_upsample_keeps_the_voice_and_brings_48_khz():
    codec, tts = fake_codec(), ToneTTS(rate=24_000)
    voice = Voice(name="bell", upsample="linacodec")
    pcm, _, _ = await spoken(revoiced(tts, voice, codec).open(voice))
    assert heard(pcm) == pitches(TEXT)
    assert octaves(pcm, 48_000) > 0.3
    await codec.stop()


async def test_a_long_text_is_heard_in_segments_and_loses_nothing():
    codec, tts = fake_codec(), ToneTTS(rate=22_050)
    voice = Voice(upsample="linacodec")
    text = prose(600)
    pcm, _, pieces = await spoken(revoiced(tts, voice, codec).open(voice), text)
    assert len(pieces) > 3
    assert 700 < len(pieces[0].pcm) / 96 <= 1_500
    assert abs(len(pcm) // SAMPLE - len(pitches(text)) * 7_680) <= len(pieces)
    await codec.stop()


async def test_without_either_the_engine_is_left_alone():
    tts = ToneTTS()
    assert revoiced(tts, Voice(), fake_codec()) is tts


@pytest.mark.parametrize(
    ("voice", "codec", "says"),
    [
        (Voice(method="convert", reference=Path("x.wav")), False, "set \\[codec\\] engine"),
        (Voice(upsample="linacodec"), False, "set \\[codec\\] engine"),
        (Voice(method="convert"), True, "voice.reference"),
        (Voice(upsample="magic"), True, "only 'linacodec'"),
    ],
)
def test_what_a_voice_lacks_is_told(voice, codec, says):
    with pytest.raises(ConfigError, match=says):
        revoiced(ToneTTS(), voice, fake_codec() if codec else None)


async def test_a_reference_that_is_not_there_and_a_codec_that_fails_fail_the_voice(tmp_path):
    network = FakeNetwork()
    codec, tts = fake_codec(network), ToneTTS()
    voice = Voice(method="convert", reference=tmp_path / "gone.wav")
    with pytest.raises(TTSError, match=r"gone\.wav"):
        await spoken(revoiced(tts, voice, codec).open(voice))
    network.failing = RuntimeError("lost")
    voice = Voice(upsample="linacodec")
    with pytest.raises(TTSError, match="lost"):
        await spoken(revoiced(tts, voice, codec).open(voice))
    assert tts.speaking == 0
    await codec.stop()


def test_speech_is_cut_where_it_is_quiet():
    pcm = tone(300, 1.0, 16_000) + bytes(1_600) + tone(300, 0.3, 16_000)
    assert 32_000 < quietest(pcm, 16_000) < 33_600
    assert quietest(tone(300, 1.0, 16_000), 16_000) % SAMPLE == 0


# Settings


def test_customary_variables_are_understood():
    rules = customary(
        TierRules(services={"vibevoice": Service(kind="runpod", url="https://api.example/v2/a")}),
        {
            "ENABLE_STREAMING": "false",
            "RUNPOD_API_KEY": "secret",
            "ECHOTTS_STREAMING_ENDPOINT": "https://api.example/v2/b/runsync",
            "OTHER_STREAMING_ENDPOINT": "http://other.example/tts",
        },
    )
    assert rules.streaming is False
    assert rules.services["vibevoice"].key == rules.services["echotts"].key == "secret"
    assert rules.services["echotts"].kind == "runpod"
    assert (rules.services["other"].kind, rules.services["other"].key) == ("ndjson", "")
    assert "secret" not in repr(rules)
    assert customary(TierRules(), {}) == TierRules()
    with pytest.raises(ConfigError, match="ENABLE_STREAMING"):
        customary(TierRules(), {"ENABLE_STREAMING": "maybe"})


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


# In the application


def application(tts, codec, **settings):
    made = Settings(**settings)
    characters = made.characters.model_copy(update={"directory": Path("configs/characters")})
    rack = fakes.rack(tts=tts, codec=codec)
    return create_app(made.model_copy(update={"characters": characters}), rack)


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
