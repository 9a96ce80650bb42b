# ruff: noqa: E402
"""How a Higgs engine starts, and what is told where it cannot."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

import pytest_asyncio

from server.errors import ConfigError, EngineUnavailable
from server.pipelines.loading import load
from tests.higgs.speaking import LONG, PATIENCE, TEXT, options, started


@pytest_asyncio.fixture(loop_scope="function")
async def engine() -> AsyncIterator[Any]:
    made = await started()
    yield made
    await made.stop()


def test_a_missing_package_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(EngineUnavailable, match=r"transformers: pip install -e '\.\[higgs\]'"):
        load("tts", "higgs", {})


async def test_missing_weights_are_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="hf download"):
        await started(model=str(tmp_path))
    with pytest.raises(EngineUnavailable, match="hf download"):
        await started(model="nobody/has-this")


async def test_a_card_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    from transformers import HiggsAudioV2ForConditionalGeneration

    with monkeypatch.context() as small:
        small.setattr(HiggsAudioV2ForConditionalGeneration, "to", full)
        with pytest.raises(EngineUnavailable, match="12 GB must be free"):
            await started()
    monkeypatch.setattr("server.pipelines.tts._higgs.machine.Slots", full)
    with pytest.raises(EngineUnavailable, match="slots, length"):
        await started()


async def test_a_card_that_fails_at_the_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any, **__: Any) -> None:
        raise torch.AcceleratorError(
            "CUDA error: no kernel image is available for execution on the device\nCompile ..."
        )

    monkeypatch.setattr("server.pipelines.tts._higgs.codec.Codec.warm_up", broken)
    with pytest.raises(EngineUnavailable, match=r"no kernel image is available for execution on the device$"):
        await started()


async def test_what_makes_every_row_slower_is_noticed(engine: Any) -> None:
    assert engine.notice == ""
    engine._machine.graphs.failure = "CUDA graphs could not be captured"
    assert engine.notice == "CUDA graphs could not be captured"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
async def test_a_missing_card_is_told() -> None:
    with pytest.raises(EngineUnavailable, match="sees no card"):
        await started(device="cuda")


@pytest.mark.parametrize(
    "option",
    [
        {"step": "fast"},
        {"slots": -1},
        {"length": 10},
        {"headroom": 0.0},
        {"presets": "/no/such"},
        {"slots": "many"},
        {"local_files_only": "perhaps"},
        {"top_p": "high"},
        {"top_p": 0.0},
        {"top_k": -1},
        {"temperature": float("nan")},
        {"context": -1},
        {"reference_s": 0.5},
        {"keep_gb": float("nan")},
    ],
    ids=str,
)
def test_a_wrong_option_is_named(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        load("tts", "higgs", options(**option))


@pytest.mark.parametrize(
    "option", [{"device": "tpu"}, {"device": "cpu:one"}, {"device": "meta"}, {"dtype": "int8"}], ids=str
)
async def test_a_device_or_dtype_that_is_none_is_named(option: dict[str, Any]) -> None:
    (name, value), *_ = option.items()
    with pytest.raises(EngineUnavailable, match=rf"\[tts\] {name} = '{value}' is none"):
        await started(**option)


async def test_a_card_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EngineUnavailable, match="the last card here is 'cuda:0'"):
        await started(device="cuda:1")


def test_options_may_come_from_the_environment() -> None:
    engine = load("tts", "higgs", options(slots="8", headroom="0.5", local_files_only="true", context="3"))
    made = engine._options
    assert (made.slots, made.headroom, made.local_files_only, made.taste.context) == (8, 0.5, True, 3)


async def test_metrics_show_who_speaks_and_who_waits(engine: Any) -> None:
    from prometheus_client import generate_latest

    async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
        await anext(speech)
        text = generate_latest().decode()
    assert "parley_higgs_active 1.0" in text
    assert "parley_higgs_waiting 0.0" in text
    assert "parley_higgs_streams 4.0" in text
