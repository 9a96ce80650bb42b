"""Kokoro and Pocket TTS by their real libraries, on models a thousandth of the size with random weights."""

import asyncio
import importlib.util
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.audio import milliseconds, wav
from server.errors import ConfigError, EngineUnavailable, TTSError
from server.pipelines.engines import TTS, Voice
from server.pipelines.loading import load
from tests.speech import noise
from tests.spoken import spoken


def lacks(*packages: str) -> bool:
    return any(importlib.util.find_spec(p) is None for p in packages)


NEED_KOKORO = pytest.mark.skipif(lacks("kokoro_onnx", "onnx"), reason="pip install -e '.[kokoro]' onnx")
NEED_POCKET = pytest.mark.skipif(lacks("pocket_tts"), reason="pip install torch==2.13.0; pip install -e '.[pocket]'")


def tiny_kokoro(folder: Path, durations: bool) -> dict[str, str]:
    """A model with Kokoro's inputs and outputs: every phoneme has a random sound of 75 ms, every voice a loudness."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(3)
    constants = {
        "sounds": rng.uniform(-0.5, 0.5, (200, 1800)).astype(np.float32),
        "length": np.array([1800], np.float32),
        "zero": np.array([0], np.int64),
        "axis": np.array([2], np.int64),
        "flat": np.array([-1], np.int64),
        "frames": np.array([3], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["sounds", "tokens"], ["each"]),  # [1, tokens, 1800]
        helper.make_node("Div", ["length", "speed"], ["shorter"]),
        helper.make_node("Cast", ["shorter"], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", ["each", "zero", "end", "axis"], ["cut"]),
        helper.make_node("Reshape", ["cut", "flat"], ["plain"]),
        helper.make_node("ReduceMean", ["style"], ["loudness"], keepdims=0),
        helper.make_node("Mul", ["plain", "loudness"], ["audio"]),
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Expand", ["frames", "shape"], ["per_token"]),
        helper.make_node("Reshape", ["per_token", "flat"], ["duration"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, None]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("audio", TensorProto.FLOAT, [None]),
        helper.make_tensor_value_info("duration", TensorProto.INT64, [None]),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "kokoro", inputs, outputs if durations else outputs[:1], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, folder / "kokoro.onnx")
    levels = {"af_loud": 1.0, "bm_quiet": 0.2}
    with (folder / "voices.bin").open("wb") as file:
        np.savez(file, **{name: np.full((510, 1, 256), level, np.float32) for name, level in levels.items()})
    return {"model": str(folder / "kokoro.onnx"), "voices": str(folder / "voices.bin"), "voice": "af_loud"}


def tiny_pocket(folder: Path) -> dict[str, str]:
    """Pocket TTS's own classes with a few dozen dimensions, and a recording to clone."""
    import yaml
    from pocket_tts.utils.config import CONFIGS_DIR
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=100, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["The quick brown fox jumps over the lazy dog. Hello, how are you?"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = yaml.safe_load((CONFIGS_DIR / "english.yaml").read_text())
    del config["weights_path"], config["weights_path_without_voice_cloning"]
    lm, mimi = config["flow_lm"], config["mimi"]
    lm["flow"] = {"depth": 1, "dim": 16}
    lm["transformer"].update(d_model=32, hidden_scale=2, num_heads=2, num_layers=1)
    lm["lookup_table"].update(dim=32, n_bins=tokenizer.get_vocab_size(), tokenizer_path=str(folder / "tokenizer.json"))
    mimi.update(inner_dim=8, outer_dim=16, quantizer={"dimension": 8, "output_dimension": 16})
    mimi["seanet"].update(dimension=16, n_filters=2)
    mimi["transformer"].update(
        d_model=16, num_heads=2, num_layers=1, dim_feedforward=32, input_dimension=16, output_dimensions=[16]
    )
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    (folder / "me.wav").write_bytes(wav(noise(2000, 0.1, 24_000), 24_000))
    return {"config": str(folder / "tiny.yaml"), "voice": str(folder / "me.wav")}


@pytest.fixture(params=[pytest.param("kokoro", marks=NEED_KOKORO), pytest.param("pocket_tts", marks=NEED_POCKET)])
async def tts(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TTS]:
    options = tiny_kokoro(tmp_path, True) if request.param == "kokoro" else tiny_pocket(tmp_path)
    engine: TTS = load("tts", request.param, options)
    await engine.start()
    yield engine
    await engine.stop()


async def test_it_speaks(tts: TTS) -> None:
    pcm, _ = await spoken(tts.open(Voice()), "Hello, how are you?")
    assert milliseconds(pcm, tts.rate) > 500
    assert np.abs(np.frombuffer(pcm, "<i2")).max() > 100


@pytest.mark.parametrize("text", ["", "  ", "?!", "😀"])
async def test_what_cannot_be_spoken_is_silence(tts: TTS, text: str) -> None:
    assert await spoken(tts.open(Voice()), text) == (b"", [])


async def test_closing_the_stream_frees_the_engine_for_the_next(tts: TTS) -> None:
    speaker = tts.open(Voice())
    for _ in range(3):
        async with aclosing(speaker.speak("This will never be said to its end. " * 30)) as speech:
            assert (await anext(speech)).pcm
    assert (await asyncio.wait_for(spoken(speaker, "Hello, how are you?"), 20))[0]


async def test_a_listener_who_pauses_keeps_nobody_waiting(tts: TTS) -> None:
    async with aclosing(tts.open(Voice()).speak("And so on and so forth. " * 40)) as paused:
        await anext(paused)
        assert (await asyncio.wait_for(spoken(tts.open(Voice()), "I am not affected."), 20))[0]


async def test_several_at_once(tts: TTS) -> None:
    speakers = [tts.open(Voice()) for _ in range(4)]
    for pcm, _ in await asyncio.gather(*(spoken(s, "Hello, how are you?") for s in speakers)):
        assert milliseconds(pcm, tts.rate) > 300


async def test_an_unknown_voice_is_refused(tts: TTS) -> None:
    with pytest.raises(ConfigError, match=r"darth.wav"):
        tts.open(Voice(name="darth.wav"))


async def test_an_engine_that_has_stopped_says_so(tts: TTS) -> None:
    speaker = tts.open(Voice())
    await tts.stop()
    with pytest.raises(TTSError, match="not started"):
        await spoken(speaker, "Hello.")
    await tts.start()
    assert (await spoken(speaker, "Hello."))[0]


@NEED_KOKORO
async def test_kokoro_times_its_words_where_the_model_tells_durations(tmp_path: Path) -> None:
    text = "Hello there, how are you? " * 10
    engine: TTS = load("tts", "kokoro", tiny_kokoro(tmp_path, durations=True))
    await engine.start()
    pcm, words = await spoken(engine.open(Voice()), text)
    assert [text[w.start : w.end] for w in words] == ["Hello", "there", "how", "are", "you"] * 10
    assert all(w.start_ms < w.end_ms for w in words)
    assert all(a.end_ms <= b.start_ms for a, b in itertools.pairwise(words))
    assert abs(words[-1].end_ms - milliseconds(pcm, engine.rate)) < 400
    await engine.stop()


@NEED_KOKORO
async def test_kokoro_without_durations_tells_no_words(tmp_path: Path) -> None:
    engine: TTS = load("tts", "kokoro", tiny_kokoro(tmp_path, durations=False))
    await engine.start()
    pcm, words = await spoken(engine.open(Voice()), "Hello there.")
    assert pcm
    assert words == []
    await engine.stop()


@NEED_KOKORO
async def test_kokoro_voices_and_speed(tmp_path: Path) -> None:
    engine: TTS = load("tts", "kokoro", tiny_kokoro(tmp_path, durations=True))
    assert list(engine.voices()) == ["af_loud", "bm_quiet"]
    await engine.start()
    loud, _ = await spoken(engine.open(Voice()), "Hello there.")
    quiet, _ = await spoken(engine.open(Voice(name="bm_quiet", options={"language": "en-us"})), "Hello there.")
    fast, _ = await spoken(engine.open(Voice(speed=2.0)), "Hello there.")
    assert np.frombuffer(loud, "<i2").std() > 3 * np.frombuffer(quiet, "<i2").std()
    assert 1.9 < len(loud) / len(fast) < 2.1
    with pytest.raises(ConfigError, match="speed"):
        engine.open(Voice(speed=3))
    await engine.stop()


@NEED_KOKORO
async def test_kokoro_shares_a_process_with_espeak(tmp_path: Path) -> None:
    """Both drive a copy of espeak-ng."""
    kokoro: TTS = load("tts", "kokoro", tiny_kokoro(tmp_path, durations=True))
    espeak: TTS = load("tts", "espeak", {})
    await kokoro.start()
    await espeak.start()
    speakers = [kokoro.open(Voice()), espeak.open(Voice(language="de"))]
    alone = [await spoken(s, "Hello there, how are you?") for s in speakers]
    together = await asyncio.gather(*(spoken(s, "Hello there, how are you?") for s in speakers * 10))
    for (pcm, _), (expected, _) in zip(together, alone * 10, strict=True):
        assert abs(len(pcm) - len(expected)) < 0.02 * len(expected)
    await kokoro.stop()
    await espeak.stop()


@NEED_KOKORO
@pytest.mark.parametrize("option", ["model", "voices"])
@pytest.mark.parametrize("path", ["", "nowhere.bin"])
def test_kokoro_names_the_file_it_lacks_and_where_to_get_it(tmp_path: Path, option: str, path: str) -> None:
    options = tiny_kokoro(tmp_path, durations=True) | {option: path}
    with pytest.raises(EngineUnavailable, match=rf"\[tts\] {option}.*release") as told:
        load("tts", "kokoro", options)
    assert "\n" not in str(told.value)


@NEED_KOKORO
async def test_kokoro_says_that_a_file_is_no_model(tmp_path: Path) -> None:
    options = tiny_kokoro(tmp_path, durations=True)
    (tmp_path / "broken").write_bytes(b"no model")
    with pytest.raises(EngineUnavailable, match=r"cannot read.*broken"):
        load("tts", "kokoro", options | {"voices": str(tmp_path / "broken")})
    engine: TTS = load("tts", "kokoro", options | {"model": str(tmp_path / "broken")})
    with pytest.raises(EngineUnavailable, match=r"cannot read.*broken"):
        await engine.start()


@NEED_POCKET
async def test_pocket_clones_a_recording(tmp_path: Path) -> None:
    engine: TTS = load("tts", "pocket_tts", tiny_pocket(tmp_path))
    await engine.start()
    other = tmp_path / "other.wav"
    other.write_bytes(wav(noise(1000, 0.02, 16_000), 16_000))
    pcm, _ = await spoken(engine.open(Voice(method="clone", reference=other)), "Hello, how are you?")
    assert milliseconds(pcm, engine.rate) > 300
    with pytest.raises(ConfigError, match=r"no recording.*nobody\.wav"):
        engine.open(Voice(method="clone", reference=tmp_path / "nobody.wav"))
    await engine.stop()


@NEED_POCKET
async def test_pocket_stops_after_the_frame_in_flight(tmp_path: Path) -> None:
    engine = load("tts", "pocket_tts", tiny_pocket(tmp_path))
    await engine.start()
    taken: list[bytes] = []
    engine.make("One two three four five six seven eight.", tmp_path / "me.wav", lambda s: bool(taken.append(s.pcm)))
    assert len(taken) == 1
    await engine.stop()


@NEED_POCKET
async def test_pocket_says_what_to_do_where_its_model_cannot_be_had(tmp_path: Path) -> None:
    engine: TTS = load("tts", "pocket_tts", {"config": str(tmp_path / "nothing.yaml")})
    with pytest.raises(EngineUnavailable, match=r"nothing\.yaml.*\[tts\] config") as told:
        await engine.start()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(("name", "package"), [("kokoro", "kokoro_onnx"), ("pocket_tts", "pocket_tts")])
def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a))
    with pytest.raises(EngineUnavailable, match=r"pip install -e '\.\["):
        load("tts", name, {})


@NEED_KOKORO
async def test_kokoro_s_own_errors_are_told_as_speech_errors(tmp_path: Path) -> None:
    engine: TTS = load("tts", "kokoro", tiny_kokoro(tmp_path, durations=True))
    await engine.start()
    with pytest.raises(TTSError, match="klingon"):
        await spoken(engine.open(Voice(options={"language": "klingon"})), "nuqneH")
    assert (await spoken(engine.open(Voice()), "Hello."))[0]
    await engine.stop()


@NEED_POCKET
async def test_pocket_s_own_errors_are_told_as_speech_errors(tmp_path: Path) -> None:
    engine: TTS = load("tts", "pocket_tts", tiny_pocket(tmp_path))
    await engine.start()
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound")
    with pytest.raises(TTSError, match="pocket-tts failed"):
        await spoken(engine.open(Voice(method="clone", reference=broken)), "Hello.")
    assert (await spoken(engine.open(Voice()), "Hello."))[0]
    await engine.stop()
