"""faster-whisper itself, on a model of random weights: what it is given, what comes back, and what can go wrong."""

import asyncio

import numpy as np
import pytest

from server.audio import to_float
from server.errors import EngineUnavailable, STTError
from server.pipelines.loading import load
from server.pipelines.stt import faster_whisper as engine_module
from tests.speech import noise, silence
from tests.tiny_whisper import make

library = pytest.importorskip("faster_whisper", reason="pip install -e '.[whisper]'")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whisper"))


def options(model, **more):
    return {"model": str(model), "device": "cpu", "threads": 1, **more}


@pytest.fixture
async def engine(model):
    engine = load("stt", "faster_whisper", options(model))
    await engine.start()
    yield engine
    await engine.stop()


def sounds(level: float, ms: int = 1000) -> bytes:
    hum = level * np.sin(np.arange(ms * 16) / 16000 * 2 * np.pi * 300 * (1 + level))
    return (hum * 32767).astype("<i2").tobytes()


async def test_the_text_is_the_librarys_own(engine, model):
    pcm = sounds(0.4)
    recogniser = engine.open("en-US")
    for i in range(0, len(pcm), 1024):
        assert await recogniser.feed(pcm[i : i + 1024]) is None
    heard = await recogniser.finish()
    direct = library.WhisperModel(str(model), device="cpu", local_files_only=True)
    segments, _ = direct.transcribe(to_float(pcm), language="en", temperature=0.0, beam_size=1, without_timestamps=True)
    assert heard.text == "".join(segment.text for segment in segments).strip() != ""
    assert 0 < heard.confidence < 1
    await recogniser.close()


async def test_several_sessions_take_turns_and_get_their_own(engine):
    levels = (0.05, 0.3, 0.9)
    alone = [(await engine.transcribe(sounds(level), "en")).text for level in levels]
    assert len(set(alone)) == 3

    async def hear(level: float) -> str:
        recogniser = engine.open("en")
        await recogniser.feed(sounds(level))
        return (await recogniser.finish()).text

    assert await asyncio.gather(*map(hear, levels)) == alone


async def test_a_text_made_in_the_first_silence_is_not_made_again(engine):
    asked = []
    make_text = engine._transcribe

    def counted(pcm, language):
        asked.append(len(pcm))
        return make_text(pcm, language)

    engine._transcribe = counted
    recogniser = engine.open("en")
    await recogniser.feed(sounds(0.4) + silence(160))
    peeked = await recogniser.peek()
    await recogniser.feed(silence(400))
    assert await recogniser.finish() == peeked
    assert len(asked) == 1
    await recogniser.feed(sounds(0.4))
    await recogniser.peek()
    await recogniser.feed(sounds(0.4))
    await recogniser.finish()
    assert asked[1:] == [32_000, 64_000]
    await recogniser.close()


async def test_texts_so_far_are_made_while_somebody_speaks(model):
    engine = load("stt", "faster_whisper", options(model, partial_ms=500))
    await engine.start()
    recogniser = engine.open("en")
    recogniser._interval = 1e5  # so that a slow machine is quick enough
    texts = []
    for _ in range(400):
        texts.append(await recogniser.feed(sounds(0.4, 20)))
        await asyncio.sleep(0.005)
    assert any(texts)
    final = await recogniser.finish()
    assert final.text
    await recogniser.close()
    await engine.stop()


async def test_by_default_no_text_is_made_before_it_is_asked_for(engine):
    recogniser = engine.open("en")
    for _ in range(50):
        assert await recogniser.feed(sounds(0.4, 20)) is None
    assert engine._waiting == 0
    assert recogniser._task is None
    await recogniser.close()


async def test_nothing_said_is_an_empty_text(engine):
    recogniser = engine.open("en")
    assert (await recogniser.finish()).text == ""
    assert (await recogniser.peek()).text == ""
    await recogniser.close()


async def test_who_gives_up_disturbs_nobody(engine):
    gone, stays = engine.open("en"), engine.open("en")
    await gone.feed(sounds(0.2))
    await stays.feed(sounds(0.4))
    waiting = asyncio.ensure_future(gone.finish())
    await asyncio.sleep(0)
    waiting.cancel()
    assert (await stays.finish()).text == (await engine.transcribe(sounds(0.4), "en")).text
    assert waiting.cancelled()
    assert engine._waiting == 0


async def test_stopping_tells_who_waits(model):
    engine = load("stt", "faster_whisper", options(model))
    await engine.start()
    recognisers = [engine.open("en") for _ in range(3)]
    for recogniser in recognisers:
        await recogniser.feed(sounds(0.4))
    waiting = [asyncio.ensure_future(recogniser.finish()) for recogniser in recognisers]
    await asyncio.sleep(0.01)
    await engine.stop()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ends[-1], STTError)
    with pytest.raises(STTError, match="not started"):
        await engine.transcribe(noise(500), "en")


async def test_an_unknown_language_is_an_stt_error(engine, monkeypatch):
    monkeypatch.setattr(type(engine._model.model), "is_multilingual", True)  # only then does it look
    with pytest.raises(STTError, match="language"):
        await engine.transcribe(noise(500), "tlh")


async def test_a_failure_of_the_library_is_an_stt_error(engine):
    engine._decode["beam_size"] = -3
    recogniser = engine.open("en")
    await recogniser.feed(noise(500))
    with pytest.raises(STTError, match="Whisper"):
        await recogniser.finish()
    engine._decode["beam_size"] = 1
    await recogniser.feed(sounds(0.4))
    assert (await recogniser.finish()).text


async def refused(**given) -> str:
    engine = load("stt", "faster_whisper", {"device": "cpu", **given})
    with pytest.raises(EngineUnavailable) as caught:
        await engine.start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_model_that_is_not_there_names_the_settings(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for name in (str(tmp_path / "nowhere"), "no-such-size", "somebody/something-that-is-not-there"):
        said = await refused(model=name)
        assert "[stt] model" in said
        assert "local_files_only" in said


async def test_a_directory_without_a_model_says_so(tmp_path):
    assert "no tokenizer.json" in await refused(model=str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "cannot be loaded" in await refused(model=str(tmp_path))


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match=r"pip install -e '\.\[whisper\]'"):
        engine_module.create()
