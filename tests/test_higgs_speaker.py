"""Higgs speakers as a conversation uses them: the real engine on the tiny model, its thread, the event loop."""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

import pytest_asyncio  # noqa: E402

from server.audio import milliseconds, wav  # noqa: E402
from server.errors import ConfigError, EngineBusy, EngineUnavailable, TTSError  # noqa: E402
from server.pipelines.engines import TTS, Speaker, Speech, Voice  # noqa: E402
from server.pipelines.loading import load  # noqa: E402
from tests.higgs import tiny  # noqa: E402

RATE = 24_000
TEXT = "A sentence of some length, spoken by one of many."
PATIENCE = 60.0
LONG = Voice(seed=35, temperature=1.0)  # speaks TEXT for twelve seconds: these weights end where chance has it


def _options(**changes: Any) -> dict[str, Any]:
    return {
        "model": str(tiny.folder()),
        "local_files_only": True,
        "device": tiny.DEVICE,
        "streams": 4,
        "max_seconds": 4.0,
    } | changes


async def _engine(**changes: Any) -> Any:
    engine = load("tts", "higgs", _options(**changes))
    await engine.start()
    return engine


@pytest_asyncio.fixture(loop_scope="function")
async def engine() -> AsyncIterator[Any]:
    made = await _engine()
    yield made
    await made.stop()


async def _said(speaker: Speaker, text: str = TEXT) -> list[Speech]:
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(text)) as speech:  # type: ignore[type-var]
        return [piece async for piece in speech]


async def _until(reached: Any) -> None:
    """What the engine's thread does cannot be awaited, only looked at."""
    async with asyncio.timeout(PATIENCE):
        while not reached():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def _recording(path: Path, seconds: float = 2.0, level: float = 0.1) -> Path:
    noise = np.random.default_rng(0).normal(0, level, int(seconds * RATE))
    path.write_bytes(wav((np.clip(noise, -1, 1) * 32767).astype("<i2").tobytes(), RATE))
    return path


async def test_it_is_an_engine_that_speaks(engine: Any) -> None:
    assert isinstance(engine, TTS)
    assert (engine.rate, engine.streams, engine.active, engine.waiting) == (RATE, 4, 0, 0)
    assert engine.row_ms > 0
    assert "streams in real time" in engine.about
    speaker = engine.open(Voice(name="slate", seed=1))
    pieces = await _said(speaker)
    total = milliseconds(b"".join(piece.pcm for piece in pieces), RATE)
    assert total > 0
    assert total % 40 == 0
    words = pieces[-1].words
    assert [TEXT[w.start : w.end] for w in words] == TEXT.split()
    assert 0 <= words[0].start_ms <= words[-1].end_ms <= total + 10
    assert await _said(speaker, "  ") == []
    await speaker.close()
    with pytest.raises(TTSError, match="closed"):
        await _said(speaker)


async def test_a_seeded_voice_says_the_same_again_and_in_company(engine: Any) -> None:
    async def pcm(seed: int) -> bytes:
        return b"".join([piece.pcm for piece in await _said(engine.open(Voice(seed=seed)))])

    def alike(a: bytes, b: bytes) -> bool:
        """The same sound but for the seams, which lie where the time of day put them."""
        x, y = np.frombuffer(a, "<i2").astype(float), np.frombuffer(b, "<i2").astype(float)
        return len(x) == len(y) and float(np.corrcoef(x, y)[0, 1]) > 0.8

    alone = [await pcm(seed) for seed in (1, 2, 3, 4)]
    together = await asyncio.gather(*(pcm(seed) for seed in (1, 2, 3, 4)))
    assert all(alike(a, b) for a, b in zip(alone, together, strict=True))
    assert not alike(alone[0], alone[1])


async def test_closing_the_generator_frees_the_slot(engine: Any) -> None:
    speaker = engine.open(LONG)
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
        await anext(speech)
        assert engine.active == 1
    await _until(lambda: engine.active == 0)
    assert await _said(speaker, "And it goes on.")


async def test_cancelling_a_task_that_speaks_frees_the_slot(engine: Any) -> None:
    task = asyncio.create_task(_said(engine.open(LONG)))
    await _until(lambda: engine.active == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await _until(lambda: engine.active == 0)


async def test_a_slow_listener_holds_its_stream_and_nobody_elses() -> None:
    engine = await _engine(ahead_s=0.2, max_seconds=20.0)
    try:
        slow = engine.open(LONG)
        async with asyncio.timeout(PATIENCE), aclosing(slow.speak(TEXT)) as speech:
            await anext(speech)
            stream = engine._machine.scheduler.voiced[0]
            await _until(lambda: stream.outlet.full)
            rows = len(stream.said)
            await _said(engine.open(Voice(seed=2)))
            assert len(stream.said) <= rows + 1, "rows were made that nobody takes"
            assert stream.outlet._put_ms <= 200 + 1_000
            rest = [piece async for piece in speech]
        assert len(stream.said) > rows
        assert rest[-1].words
    finally:
        await engine.stop()


async def test_one_utterance_at_a_time_and_its_context_grows(engine: Any) -> None:
    speaker = engine.open(Voice(seed=5))
    first, second = await asyncio.gather(_said(speaker, "The first."), _said(speaker, "The second."))
    assert first
    assert second
    assert len(speaker._rolling.ask("x").tokens) > len(speaker._rolling._head) + 100


async def test_an_interrupted_first_utterance_anchors_the_voice_as_far_as_it_was_taken() -> None:
    engine = await _engine(max_seconds=20.0)
    try:
        speaker = engine.open(LONG)
        taken = 0.0
        async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
            async for piece in speech:
                taken += milliseconds(piece.pcm, RATE)
                if taken > 1_500:
                    break
        asked = speaker._rolling.ask("x")
        sound = int((asked.tokens[: asked.context, 0] == speaker._machine.prompts.audio_id).sum())
        assert sound == int(taken / 40) + 9
        assert await _said(speaker, "And it goes on.")
    finally:
        await engine.stop()


async def test_who_is_too_many_waits_and_then_is_told() -> None:
    engine = await _engine(streams=1, wait_s=0.1, ahead_s=60.0, max_seconds=20.0)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
            await anext(speech)
            with pytest.raises(EngineBusy):
                await _said(engine.open(Voice(seed=1)))
            assert engine.waiting == 0
        assert await _said(engine.open(Voice(seed=1)))
    finally:
        await engine.stop()


async def test_a_listener_who_takes_nothing_keeps_nobody_waiting() -> None:
    engine = await _engine(streams=1, ahead_s=0.1, max_seconds=20.0)
    try:
        async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
            first = await anext(speech)
            assert await _said(engine.open(Voice(seed=1)))
            rest = [piece async for piece in speech]
        total = milliseconds(first.pcm + b"".join(piece.pcm for piece in rest), RATE)
        assert total > 10_000
        assert [TEXT[w.start : w.end] for w in rest[-1].words] == TEXT.split()
    finally:
        await engine.stop()


async def test_stopping_the_engine_tells_who_speaks() -> None:
    engine = await _engine(ahead_s=0.1, max_seconds=20.0)
    speaker = engine.open(LONG)
    async with asyncio.timeout(PATIENCE), aclosing(speaker.speak(TEXT)) as speech:
        await anext(speech)
        await engine.stop()
        with pytest.raises(TTSError, match="stopped"):
            async for _ in speech:
                pass
    with pytest.raises(TTSError, match="stopped"):
        await _said(speaker)
    with pytest.raises(EngineUnavailable, match="not been started"):
        engine.open(Voice())
    await engine.stop()


async def test_what_nobody_foresaw_costs_those_who_speak_and_not_the_engine() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("CUDA error: something")

    engine = await _engine(step="eager")
    try:
        handle = engine._machine.step.model.audio_lm_head.register_forward_pre_hook(broken)
        with pytest.raises(TTSError, match="something"):
            await _said(engine.open(Voice(seed=1)))
        handle.remove()
        assert await _said(engine.open(Voice(seed=1)))
    finally:
        await engine.stop()


# --- voices


async def test_a_clone_is_encoded_once_and_its_prompt_read_once(engine: Any, tmp_path: Path) -> None:
    voice = Voice(method="clone", reference=_recording(tmp_path / "a.wav"), transcript="What is said.", seed=1)
    encoded: list[int] = []
    encode = engine._machine.codec.encode
    engine._machine.codec.encode = lambda wave: (encoded.append(len(wave)), encode(wave))[1]
    speakers = [engine.open(voice) for _ in range(3)]
    assert all([await _said(speaker) for speaker in speakers])
    assert encoded == [2 * RATE]
    head = speakers[0]._rolling._head
    assert speakers[2]._rolling._head is head
    assert int((head[:, 0] == engine._machine.prompts.audio_id).sum()) == 50 + 9
    _recording(tmp_path / "a.wav", 3.0)
    await _said(engine.open(voice))
    assert encoded == [2 * RATE, 3 * RATE], "the recording changed and was not read again"


@pytest.mark.parametrize(
    ("voice", "told"),
    [
        ({"method": "clone"}, "voice.reference is missing"),
        ({"method": "clone", "reference": "none.wav"}, "No such file"),
        ({"method": "clone", "reference": "text.wav"}, "no recording"),
        ({"method": "clone", "reference": "empty.wav"}, "no recording"),
        ({"method": "clone", "reference": "deep.wav"}, "24-bit"),
        ({"method": "clone", "reference": "folder"}, "directory"),
        ({"method": "clone", "reference": "silent.wav"}, "silent"),
        ({"method": "clone", "reference": "short.wav"}, "at least 1 s"),
        ({"method": "clone", "reference": "long.wav"}, "reference_s"),
        ({"method": "clone", "reference": "good.wav", "transcript": " "}, "voice.transcript"),
        ({"method": "description"}, "voice.speaker"),
        ({"method": "preset", "name": "nobody"}, "there are: carol, dave, amber"),
        ({"method": "preset", "name": "dave"}, "dave.txt is missing"),
        ({"temperature": -1.0, "name": "amber"}, "voice.temperature"),
        ({"top_p": 0.0, "name": "amber"}, "voice.top_p"),
        ({"options": {"window": 99}, "name": "amber"}, "voice.options.window"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_voice_that_cannot_be_made_is_refused_with_the_reason(
    voice: dict[str, Any], told: str, tmp_path: Path
) -> None:
    from server.pipelines.tts._higgs.timbre import Taste, presets, timbre

    (tmp_path / "text.wav").write_text("This is no sound.")
    (tmp_path / "empty.wav").touch()
    deep = bytearray(wav(bytes(6 * RATE), RATE))
    deep[34] = 24
    (tmp_path / "deep.wav").write_bytes(bytes(deep))
    (tmp_path / "folder").mkdir()
    _recording(tmp_path / "silent.wav", level=0.0)
    _recording(tmp_path / "short.wav", 0.5)
    _recording(tmp_path / "long.wav", 31)
    _recording(tmp_path / "good.wav")
    library = tmp_path / "presets"
    library.mkdir()
    for name in ("carol", "dave"):
        _recording(library / f"{name}.wav")
    if "reference" in voice:
        voice = {"transcript": "Words."} | voice | {"reference": tmp_path / voice["reference"]}
    with pytest.raises(ConfigError) as refused:
        timbre(Voice(**voice), Taste(), presets(library))
    assert told in str(refused.value)


async def test_a_recording_longer_than_a_slot_fails_that_voice_only(tmp_path: Path) -> None:
    engine = await _engine(length=512)
    try:
        other = asyncio.create_task(_said(engine.open(Voice(seed=1))))
        clone = engine.open(Voice(method="clone", reference=_recording(tmp_path / "a.wav", 20), transcript="Words."))
        with pytest.raises(TTSError, match="cut its recording or raise length"):
            await _said(clone)
        assert await other
    finally:
        await engine.stop()


async def test_presets_are_recordings_of_a_folder_or_words(tmp_path: Path) -> None:
    _recording(tmp_path / "carol.wav")
    (tmp_path / "carol.txt").write_text("Carol says this.")
    engine = await _engine(presets=str(tmp_path))
    try:
        assert list(engine.voices())[:2] == ["carol", "amber"]
        first = engine.open(Voice(options={"variant": "f3"}))  # another engine's knobs are none of ours
        assert first._timbre.transcript == "Carol says this."
        assert engine.open(Voice(name="spark"))._timbre.recording is None
        assert await _said(first)
    finally:
        await engine.stop()


async def test_a_recording_that_cannot_be_encoded_fails_that_utterance_and_is_tried_again(
    engine: Any, tmp_path: Path
) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    handle = engine._machine.codec._model.acoustic_encoder.register_forward_pre_hook(fails)
    voice = Voice(method="clone", reference=_recording(tmp_path / "a.wav"), transcript="Words.", seed=1)
    speaker = engine.open(voice)
    with pytest.raises(TTSError, match="could not be encoded"):
        await _said(speaker)
    handle.remove()
    assert await _said(speaker)


# --- what is missing


def test_a_missing_package_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(EngineUnavailable, match=r"transformers: pip install -e '\.\[higgs\]'"):
        load("tts", "higgs", {})


async def test_missing_weights_are_told_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="hf download"):
        await _engine(model=str(tmp_path))
    with pytest.raises(EngineUnavailable, match="hf download"):
        await _engine(model="nobody/has-this")


async def test_a_card_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    from transformers import HiggsAudioV2ForConditionalGeneration

    with monkeypatch.context() as small:
        small.setattr(HiggsAudioV2ForConditionalGeneration, "to", full)
        with pytest.raises(EngineUnavailable, match="12 GB must be free"):
            await _engine()
    monkeypatch.setattr("server.pipelines.tts._higgs.machine.Slots", full)
    with pytest.raises(EngineUnavailable, match="slots, length"):
        await _engine()


async def test_a_card_that_fails_at_the_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, *_: Any, **__: Any) -> None:
        raise torch.AcceleratorError(
            "CUDA error: no kernel image is available for execution on the device\nCompile ..."
        )

    monkeypatch.setattr("server.pipelines.tts._higgs.codec.Codec.warm_up", broken)
    with pytest.raises(EngineUnavailable, match=r"no kernel image is available for execution on the device$"):
        await _engine()


async def test_what_makes_every_row_slower_is_noticed(engine: Any) -> None:
    assert engine.notice == ""
    engine._machine.graphs.failure = "CUDA graphs could not be captured"
    assert engine.notice == "CUDA graphs could not be captured"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
async def test_a_missing_card_is_told() -> None:
    with pytest.raises(EngineUnavailable, match="sees no card"):
        await _engine(device="cuda")


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
        load("tts", "higgs", _options(**option))


@pytest.mark.parametrize(
    "option", [{"device": "tpu"}, {"device": "cpu:one"}, {"device": "meta"}, {"dtype": "int8"}], ids=str
)
async def test_a_device_or_dtype_that_is_none_is_named(option: dict[str, Any]) -> None:
    (name, value), *_ = option.items()
    with pytest.raises(EngineUnavailable, match=rf"\[tts\] {name} = '{value}' is none"):
        await _engine(**option)


async def test_a_card_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EngineUnavailable, match="the last card here is 'cuda:0'"):
        await _engine(device="cuda:1")


def test_options_may_come_from_the_environment() -> None:
    engine = load("tts", "higgs", _options(slots="8", headroom="0.5", local_files_only="true", context="3"))
    options = engine._options
    assert (options.slots, options.headroom, options.local_files_only, options.taste.context) == (8, 0.5, True, 3)


async def test_metrics_show_who_speaks_and_who_waits(engine: Any) -> None:
    from prometheus_client import generate_latest

    async with asyncio.timeout(PATIENCE), aclosing(engine.open(LONG).speak(TEXT)) as speech:
        await anext(speech)
        text = generate_latest().decode()
    assert "parley_higgs_active 1.0" in text
    assert "parley_higgs_waiting 0.0" in text
    assert "parley_higgs_streams 4.0" in text
