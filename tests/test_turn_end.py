"""The end-of-turn model: its features, and the real loading and running of a small model with the same shapes."""

import asyncio
import sys

import numpy as np
import pytest

from server.errors import EngineError, EngineUnavailable
from server.pipelines.engines import HEARING_RATE
from server.pipelines.loading import load
from server.pipelines.turn_end import smart_turn
from server.pipelines.turn_end._features import log_mel

onnx = pytest.importorskip("onnx", reason="pip install onnx")


def tiny(path, name="input_features", size=80) -> str:
    """A model of Smart Turn's shapes that says how loud the last second is, as a probability."""
    h = onnx.helper
    floats = onnx.TensorProto.FLOAT
    nodes = [
        h.make_node("Slice", [name, "start", "end", "axis"], ["recent"]),
        h.make_node("ReduceMean", ["recent"], ["level"], axes=[1, 2], keepdims=0),
        h.make_node("Unsqueeze", ["level", "one"], ["column"]),
        h.make_node("Sigmoid", ["column"], ["logits"]),
    ]
    numbers = {"start": [700], "end": [800], "axis": [2], "one": [1]}
    graph = h.make_graph(
        nodes,
        "tiny",
        [h.make_tensor_value_info(name, floats, ["n", size, 800])],
        [h.make_tensor_value_info("logits", floats, ["n", 1])],
        [h.make_tensor(key, onnx.TensorProto.INT64, [1], value) for key, value in numbers.items()],
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


@pytest.fixture
async def engine(tmp_path):
    engine = load("turn_end", "smart_turn", {"model": tiny(tmp_path / "tiny.onnx")})
    await engine.start()
    yield engine
    await engine.stop()


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * HEARING_RATE)) / HEARING_RATE
    rng = np.random.default_rng(5)
    return (level * np.sin(2 * np.pi * 440 * t) + rng.normal(0, level / 10, len(t))).astype(np.float32)


async def test_it_judges_the_end_of_what_was_said(engine):
    quiet = np.random.default_rng(6).normal(0, 1e-4, 2 * HEARING_RATE).astype(np.float32)
    sounding = await engine.complete(tone(3))
    silent = await engine.complete(np.concatenate([tone(3), quiet]))
    assert 0 <= silent < sounding <= 1


async def test_only_the_last_eight_seconds_count(engine):
    speech = tone(8)
    assert await engine.complete(np.concatenate([tone(5, 0.9), speech])) == await engine.complete(speech)
    assert await engine.complete(speech[: 4 * HEARING_RATE]) != await engine.complete(speech)


async def test_nothing_at_all_is_judged_too(engine):
    assert 0 <= await engine.complete(np.zeros(0, np.float32)) <= 1


async def test_several_sessions_ask_at_once(engine):
    asked = [tone(1 + i / 2, 0.1 * (i + 1)) for i in range(5)]
    together = await asyncio.gather(*map(engine.complete, asked))
    assert together == [await engine.complete(samples) for samples in asked]
    assert len(set(together)) == 5


async def test_samples_that_are_none_are_an_engine_error(engine):
    with pytest.raises(EngineError, match="failed"):
        await engine.complete(np.zeros((3, 3), np.float32))
    assert 0 <= await engine.complete(tone(1)) <= 1


async def test_a_stopped_engine_says_so(engine):
    await engine.stop()
    with pytest.raises(EngineError, match="not started"):
        await engine.complete(tone(1))


async def test_a_missing_file_says_how_to_get_it(tmp_path):
    engine = load("turn_end", "smart_turn", {"model": str(tmp_path / "none.onnx")})
    with pytest.raises(EngineUnavailable, match=r"none\.onnx.*pipecat-ai") as caught:
        await engine.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"name": "input"}, {"size": 64}])
async def test_another_model_is_refused_at_start(tmp_path, wrong):
    engine = load("turn_end", "smart_turn", {"model": tiny(tmp_path / "other.onnx", **wrong)})
    with pytest.raises(EngineError):
        await engine.start()


def test_the_model_is_found_in_an_installed_package(tmp_path, monkeypatch):
    data = tmp_path / "pipecat" / "audio" / "turn" / "smart_turn" / "data"
    data.mkdir(parents=True)
    (tmp_path / "pipecat" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pipecat", raising=False)
    with pytest.raises(EngineUnavailable, match="pip install"):
        smart_turn.create()
    (data / "smart-turn-v3.2-cpu.onnx").touch()
    assert smart_turn.bundled() == data / "smart-turn-v3.2-cpu.onnx"


@pytest.mark.parametrize("seconds", [8, 3])
def test_features_are_those_of_whisper(seconds):
    extractor = pytest.importorskip("faster_whisper.feature_extractor", reason="pip install -e '.[whisper]'")
    samples = tone(seconds)
    level = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    theirs = extractor.FeatureExtractor(feature_size=80)(level)
    ours = log_mel(samples)
    assert ours.shape == (80, seconds * 100)
    # The last two windows reach over the end, which they continue with zeros and Whisper's own encoder by reflection.
    np.testing.assert_allclose(ours[:, :-2], theirs[:, : seconds * 100 - 2], atol=2e-4)
