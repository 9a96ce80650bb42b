# ruff: noqa: E402
"""Who pays when memory runs out, simulated at every place: one utterance at most."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.errors import TTSError
from tests.higgs.stage import Stage, drawn

TEXT = "A sentence of some length, spoken by many."


def _fails(times: int, when: Callable[[], bool] = lambda: True) -> Callable[..., None]:
    """A hook on a module that runs out of memory, so often, as a card does."""
    left = [times]

    def hook(*_: Any) -> None:
        if left[0] and when():
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    return hook


def _all_well(stage: Stage) -> None:
    """The machine goes on as if nothing had been."""
    later = stage.say("Later.", drawn(9), limit=20)
    stage.run()
    assert stage.as_alone(later)
    assert stage.scheduler.active == 0


def test_nothing_is_let_in_that_a_slot_cannot_hold() -> None:
    """On a card a write behind the end would be the end of the process."""
    stage = Stage(slots=1, length=512)
    fits, too_long = (stage.stream("Hello.", limit=40) for _ in range(2))
    fits.limit = 512 - len(fits.prompt)
    too_long.limit = fits.limit + 1
    for stream in (fits, too_long):
        stage.scheduler.submit(stream)
    assert "raise length" in str(too_long.outlet.error)  # type: ignore[attr-defined]
    stage.run()
    assert fits.complete
    assert not too_long.said


@pytest.mark.parametrize("times", [1, 2])
def test_no_memory_for_a_prompt_costs_that_utterance_at_most(times: int) -> None:
    stage = Stage(slots=2, captured=False)
    running = stage.say(TEXT, drawn(0), limit=30)
    stage.until(lambda: len(running.said) >= 10)
    assert stage.keeping.prefixes.used >= 0
    hook = _fails(times, when=lambda: any(s and s.reading for s in stage.scheduler.slots))
    handle = stage.step.model.model.layers[1].mlp.register_forward_pre_hook(hook)
    new = stage.say("Too much.", drawn(1), limit=30)
    stage.run()
    handle.remove()
    if times == 1:  # freeing what was kept was enough
        assert stage.as_alone(new)
    else:
        assert isinstance(new.outlet.error, TTSError)  # type: ignore[attr-defined]
        assert new.outlet.error.code == "tts_out_of_memory"  # type: ignore[attr-defined]
        assert "slots" in str(new.outlet.error)  # type: ignore[attr-defined]
    assert stage.as_alone(running)
    _all_well(stage)


@pytest.mark.parametrize("times", [1, 2])
def test_no_memory_for_a_row_costs_the_youngest_at_most(times: int) -> None:
    stage = Stage(slots=3, captured=False)
    streams = [stage.say(TEXT, drawn(i), limit=30) for i in range(3)]
    stage.until(lambda: len(streams[2].said) >= 8)
    handle = stage.step.model.audio_lm_head.register_forward_pre_hook(_fails(times))
    stage.run()
    handle.remove()
    lost = streams[2:] if times == 2 else []
    for i, stream in enumerate(streams):
        if stream in lost:
            assert stream.outlet.error.code == "tts_out_of_memory"  # type: ignore[attr-defined]
        else:
            assert stage.as_alone(stream), i
    _all_well(stage)


@pytest.mark.parametrize("times", [1, 2])
def test_no_memory_for_sound_costs_that_utterance_at_most(times: int) -> None:
    stage = Stage(slots=3)
    streams = [stage.say(TEXT, drawn(i), limit=30) for i in (0, 2, 4)]
    stage.until(lambda: len(streams[2].said) >= 9)
    handle = stage.codec._model.acoustic_decoder.register_forward_pre_hook(_fails(times))
    stage.run()
    handle.remove()
    failed = [s for s in streams if s.outlet.error is not None]  # type: ignore[attr-defined]
    assert len(failed) == times - 1
    assert all(s.outlet.ended == 1 for s in streams)  # type: ignore[attr-defined]
    assert all(s.outlet.error.code == "tts_out_of_memory" for s in failed)  # type: ignore[attr-defined]
    _all_well(stage)


def test_no_memory_to_keep_a_copy_costs_only_time() -> None:
    stage = Stage(slots=2)

    def full(slot: int, length: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory (simulated)")

    stage.step.slots.saved = full  # type: ignore[method-assign, assignment]
    stream = stage.say(TEXT, drawn(0), limit=20)
    stage.run()
    assert stream.complete
    _all_well(stage)
