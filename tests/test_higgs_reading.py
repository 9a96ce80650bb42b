# ruff: noqa: E402
"""Reading prompts: our pass over the model's layers against the model's own, alone, together, in fixed buffers."""

from collections.abc import Hashable, Mapping

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.pipelines.tts._higgs.delay import Codes, delayed
from server.pipelines.tts._higgs.graphs import Graphs, Work
from server.pipelines.tts._higgs.prompt import Scene
from server.pipelines.tts._higgs.reading import LONG, SHORT, TOGETHER, Part, Reader
from tests.higgs.stage import Stage, loaded, prompts
from tests.higgs.theirs import kept


def _prompt(frames: int, text: str = "What is said now.", seed: int = 0) -> Codes:
    codes = np.random.default_rng(seed).integers(0, 1024, (frames, 8))
    said = prompts().turn("Recorded."), prompts().sound(delayed(codes)), prompts().turn(text)
    return np.concatenate([prompts().head(Scene()), *said])


def _differs(stage: Stage, slot: int, prompt: Codes) -> float:
    return float((stage.step.slots.saved(slot, len(prompt)) - kept(loaded(), prompt)).abs().max())


def _fixed(stage: Stage) -> Reader:
    """A reader with the buffers it has on a card; nothing is captured, so the work itself runs on them."""
    graphs = Graphs(torch.device("cpu"), False)
    graphs.enabled = True
    return Reader(loaded().model, stage.step.slots, graphs, prompts().audio_id)


def test_what_is_read_is_what_the_model_reads() -> None:
    stage, prompt = Stage(slots=3), _prompt(30)
    stage.reader.read([Part(1, 0, prompt)])
    assert _differs(stage, 1, prompt) < 1e-5
    assert not stage.step.slots.kv[:, :, [0, 2], :, : stage.step.slots.length].any(), "another slot was written to"


@pytest.mark.parametrize("fixed", [False, True], ids=["as it comes", "in fixed buffers"])
def test_pieces_of_several_are_read_together(fixed: bool) -> None:
    stage = Stage(slots=4)
    reader = _fixed(stage) if fixed else stage.reader
    prompted = [_prompt(5 + 9 * i, f"Text {i}", seed=i) for i in range(4)]
    order = (2, 0, 3, 1)
    done = [0] * 4
    while any(done[i] < len(prompted[i]) for i in order):
        parts = []
        for i in order:
            piece = prompted[i][done[i] : done[i] + 20 + 11 * i]
            if len(piece):
                parts.append(Part(i, done[i], piece))
                done[i] += len(piece)
        reader.read(parts)
    for i, prompt in enumerate(prompted):
        assert _differs(stage, i, prompt) < 1e-5, i


def test_a_long_prompt_is_read_in_the_largest_buffer_it_fills() -> None:
    stage, prompt = Stage(slots=2), _prompt(300)
    reader = _fixed(stage)
    assert reader.longest == LONG
    for begin in range(0, len(prompt), LONG):
        reader.read([Part(0, begin, prompt[begin : begin + LONG])])
    assert len(prompt) % LONG > SHORT
    assert _differs(stage, 0, prompt) < 1e-5


def test_everything_that_can_be_asked_for_is_captured() -> None:
    """Every size and reach that `read` and `rows` use is among what is captured, so that nothing runs slowly later."""
    stage = Stage(slots=3, length=1200)
    asked: set[Hashable] = set()

    class Listening(Graphs):
        def run(self, key: Hashable, work: Work) -> None:
            asked.add(key)
            work()

    graphs = Listening(torch.device("cpu"), False)
    graphs.enabled = True
    reader = Reader(loaded().model, stage.step.slots, graphs, prompts().audio_id)
    stage.step._graphs = graphs
    tokens = _prompt(300)
    for length in (1, SHORT, SHORT + 1, LONG):
        for begin in (0, 500, 1200 - LONG):
            reader.read([Part(0, begin, tokens[:length])])
    reader.read([Part(i % 3, 0, tokens[:SHORT]) for i in range(TOGETHER)])
    for running in ([0], [1], [0, 2]):
        for length in (1, 511, 512, 1199):
            stage.step.rows(running, length)
    captured = stage.step.works().keys() | reader.works().keys()
    assert asked <= captured
    assert len(asked) > 10


def test_what_is_captured_does_no_harm_when_it_runs() -> None:
    """Capturing runs all of it a few times, while the slots may hold what was restored: only scrap is written."""
    stage = Stage(slots=3)
    prompt = _prompt(30)
    stage.reader.read([Part(1, 0, prompt)])
    before = stage.step.slots.kv[..., : stage.step.slots.length, :].clone()
    for work in (stage.step.works() | _fixed(stage).works()).values():
        work()
    assert torch.equal(stage.step.slots.kv[..., : stage.step.slots.length, :], before)


def test_reading_is_one_graph() -> None:
    stage = Stage(slots=2)
    tokens, slots = stage.reader._buffer(2, 16)
    with torch.inference_mode():
        explained = torch._dynamo.explain(stage.reader._forward)(tokens, slots, 512)
    torch._dynamo.reset()
    assert explained.graph_count == 1, explained.break_reasons


def test_where_nothing_can_be_captured_the_work_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(Graphs):
        def _capture(self, works: Mapping[Hashable, Work]) -> None:
            raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")

    graphs, done = Refusing(torch.device("cuda"), True), []
    graphs.capture({"a": lambda: done.append("captured")})
    assert "could not be captured" in caplog.text
    assert not graphs.enabled
    assert graphs.failure.endswith("when stream is capturing")
    graphs.run("a", lambda: done.append("run"))
    assert done == ["run"]
