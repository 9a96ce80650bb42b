"""The engine `remote`: a voice that is made elsewhere, and what travels of it."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from server.audio import to_float
from server.errors import ConfigError, ProtocolError, TTSError
from server.pipelines.engines import Voice
from server.pipelines.loading import load
from server.pipelines.tiers.voices import described, sent
from tests.fake_codec import fake_codec
from tests.tiers_app import parley, until, upstream
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow."


async def spoken(speaker, text=TEXT):
    async with aclosing(speaker.speak(text)) as speech:
        pieces = [piece async for piece in speech]
    return b"".join(p.pcm for p in pieces), [w for p in pieces for w in p.words], pieces


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


def test_a_voice_travels_without_its_files():
    voice = Voice("bell", "x", "clone", "de", 1.5, reference=Path("/etc/passwd"), seed=4, options={"pitch": 3})
    assert sent(voice) == {"language": "de", "speed": 1.5, "seed": 4, "options": {"pitch": 3}}
    assert described(Voice("a"), sent(voice)) == Voice("a", language="de", speed=1.5, seed=4, options={"pitch": 3})
    assert sent(Voice()) == {}
    assert sent(Voice(language="en")) == {"language": "en"}  # the other's own voice may speak another


@pytest.mark.parametrize(
    "options", [{"reference": "/etc/passwd"}, {"engine": "x"}, {"speed": "fast"}, {"upsample": "y"}]
)
def test_what_must_not_travel_is_refused(options):
    with pytest.raises(ProtocolError, match=f"voice_options.{next(iter(options))}"):
        described(Voice(), options)
