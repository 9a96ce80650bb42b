# ruff: noqa: E402
"""Higgs voices: recordings, presets and descriptions, through the real engine on the tiny model."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

import pytest_asyncio

from server.audio import wav
from server.errors import ConfigError, TTSError
from server.pipelines.engines import Voice
from tests.higgs.speaking import RATE, recording, said, started


@pytest_asyncio.fixture(loop_scope="function")
async def engine() -> AsyncIterator[Any]:
    made = await started()
    yield made
    await made.stop()


async def test_a_clone_is_encoded_once_and_its_prompt_read_once(engine: Any, tmp_path: Path) -> None:
    voice = Voice(method="clone", reference=recording(tmp_path / "a.wav"), transcript="What is said.", seed=1)
    encoded: list[int] = []
    encode = engine._machine.codec.encode
    engine._machine.codec.encode = lambda wave: (encoded.append(len(wave)), encode(wave))[1]
    speakers = [engine.open(voice) for _ in range(3)]
    assert all([await said(speaker) for speaker in speakers])
    assert encoded == [2 * RATE]
    head = speakers[0]._rolling._head
    assert speakers[2]._rolling._head is head
    assert int((head[:, 0] == engine._machine.prompts.audio_id).sum()) == 50 + 9
    recording(tmp_path / "a.wav", 3.0)
    await said(engine.open(voice))
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
    recording(tmp_path / "silent.wav", level=0.0)
    recording(tmp_path / "short.wav", 0.5)
    recording(tmp_path / "long.wav", 31)
    recording(tmp_path / "good.wav")
    library = tmp_path / "presets"
    library.mkdir()
    for name in ("carol", "dave"):
        recording(library / f"{name}.wav")
    if "reference" in voice:
        voice = {"transcript": "Words."} | voice | {"reference": tmp_path / voice["reference"]}
    with pytest.raises(ConfigError) as refused:
        timbre(Voice(**voice), Taste(), presets(library))
    assert told in str(refused.value)


async def test_a_recording_longer_than_a_slot_fails_that_voice_only(tmp_path: Path) -> None:
    engine = await started(length=512)
    try:
        other = asyncio.create_task(said(engine.open(Voice(seed=1))))
        clone = engine.open(Voice(method="clone", reference=recording(tmp_path / "a.wav", 20), transcript="Words."))
        with pytest.raises(TTSError, match="cut its recording or raise length"):
            await said(clone)
        assert await other
    finally:
        await engine.stop()


async def test_presets_are_recordings_of_a_folder_or_words(tmp_path: Path) -> None:
    recording(tmp_path / "carol.wav")
    (tmp_path / "carol.txt").write_text("Carol says this.")
    engine = await started(presets=str(tmp_path))
    try:
        assert list(engine.voices())[:2] == ["carol", "amber"]
        first = engine.open(Voice(options={"variant": "f3"}))  # another engine's knobs are none of ours
        assert first._timbre.transcript == "Carol says this."
        assert engine.open(Voice(name="spark"))._timbre.recording is None
        assert await said(first)
    finally:
        await engine.stop()


async def test_a_recording_that_cannot_be_encoded_fails_that_utterance_and_is_tried_again(
    engine: Any, tmp_path: Path
) -> None:
    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    handle = engine._machine.codec._model.acoustic_encoder.register_forward_pre_hook(fails)
    voice = Voice(method="clone", reference=recording(tmp_path / "a.wav"), transcript="Words.", seed=1)
    speaker = engine.open(voice)
    with pytest.raises(TTSError, match="could not be encoded"):
        await said(speaker)
    handle.remove()
    assert await said(speaker)
