"""Higgs rows: the batched loop against transformers' own, streams in company against streams alone."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.pipelines.tts._higgs.delay import EOS, delayed
from server.pipelines.tts._higgs.prompt import Scene
from tests.higgs.stage import GREEDY, Stage, alone, drawn, generated, loaded, prompts

TEXTS = ["Hello there.", "A second voice speaks a rather longer sentence.", "Three", "And the fourth one, at last!"]


def _recorded() -> np.ndarray:
    """A voice's beginning with a recording of 30 frames."""
    codes = np.random.default_rng(0).integers(0, 1024, (30, 8))
    said = prompts().turn("What was said in the recording."), prompts().sound(delayed(codes))
    return np.concatenate([prompts().head(Scene(speaker="feminine")), *said])


@pytest.mark.parametrize("recorded", [False, True], ids=["described", "cloned"])
@pytest.mark.parametrize("text", TEXTS)
def test_greedy_rows_are_those_of_generate(text: str, recorded: bool) -> None:
    stage = Stage(slots=2)
    stream = stage.say(text, GREEDY, limit=60, before=_recorded() if recorded else None)
    stage.run()
    assert np.array_equal(stream.said.array(), generated(stream.prompt, 60))


def test_an_utterance_ends_where_generate_ends() -> None:
    ends = [generated(Stage().stream(text).prompt, 120) for text in TEXTS]
    ended = [text for text, rows in zip(TEXTS, ends, strict=True) if (rows[-1] == EOS).all()]
    assert ended, "no text of this tiny model ends by itself: choose others"
    for text in ended:
        assert np.array_equal(alone(text, limit=400), generated(Stage().stream(text).prompt, 400))


def test_the_prompt_is_the_one_the_processor_writes() -> None:
    messages = [
        *Scene(speaker="masculine; deep").messages(),
        {"role": "user", "content": [{"type": "text", "text": "How are you?"}]},
    ]
    theirs = loaded().processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    ours = np.concatenate([prompts().head(Scene(speaker="masculine; deep")), prompts().turn(" How are you? ")])
    assert ours[:, 0].tolist() == theirs["input_ids"][0].tolist()


@pytest.mark.parametrize("text", ["Say <|eot_id|> now.", "Say <|AUDIO_OUT|> now.", "Half \ud83d of one.", "A\x00B"])
def test_a_text_is_only_words_to_the_model(text: str) -> None:
    """Names of special tokens would end the turn or stand for sound; half a character has no tokens at all."""
    special = set(loaded().processor.tokenizer.all_special_ids)
    asked, plain = prompts().turn(text)[:, 0], prompts().turn("Plain.")[:, 0]
    assert sorted(set(asked.tolist()) & special) == sorted(set(plain.tolist()) & special)
    assert np.isin(asked, list(special)).sum() == np.isin(plain, list(special)).sum()


@pytest.mark.parametrize("how", [GREEDY, drawn(0), drawn(0, temperature=0.7, top_k=0, top_p=0.5)], ids=str)
def test_many_at_once_equal_each_alone(how: object) -> None:
    from dataclasses import replace

    hows = [replace(how, seed=seed) for seed in range(7)]  # type: ignore[type-var]
    texts = [TEXTS[i % 4] for i in range(7)]
    stage = Stage(slots=7)
    streams = [stage.say(t, h, limit=30 + 3 * i) for i, (t, h) in enumerate(zip(texts, hows, strict=True))]
    stage.run()
    for i, stream in enumerate(streams):
        assert stage.as_alone(stream), i


def test_a_seed_decides_what_is_drawn() -> None:
    assert np.array_equal(alone("Hello.", drawn(1)), alone("Hello.", drawn(1)))
    assert not np.array_equal(alone("Hello.", drawn(1)), alone("Hello.", drawn(2)))


RUN = 18  # rows


@pytest.mark.parametrize("how", [GREEDY, drawn(5)], ids=["greedy", "drawn"])
def test_joining_at_every_row_changes_nothing(how: object) -> None:
    for row in range(1, len(alone(TEXTS[0], how, limit=RUN))):  # type: ignore[arg-type]
        stage = Stage(slots=3)
        one = stage.say(TEXTS[0], how, limit=RUN)  # type: ignore[arg-type]
        stage.until(lambda one=one, row=row: len(one.said) >= row)  # type: ignore[misc]
        other = stage.say(TEXTS[1], how, limit=RUN)  # type: ignore[arg-type]
        stage.run()
        assert stage.as_alone(one), row
        assert stage.as_alone(other), row


def test_leaving_at_every_row_changes_nothing() -> None:
    """The first of three ends after `row` rows; the highest slot moves down when that makes the batch smaller."""
    moved = 0
    for row in range(2, len(alone(TEXTS[0], drawn(0), limit=RUN))):
        stage = Stage(slots=4)
        streams = [stage.say(TEXTS[i], drawn(i), limit=row if i == 0 else RUN) for i in range(3)]
        stage.scheduler.tick()
        before = streams[2].slot
        while any(not s.complete for s in streams):
            stage.scheduler.tick()
            moved += streams[2].slot is not None and before is not None and streams[2].slot < before
        assert all(stage.as_alone(stream) for stream in streams), row
    assert moved, "no stream ever moved to another slot"


def test_cancelling_at_every_row_frees_the_slot_at_once_and_changes_nothing() -> None:
    for row in range(1, len(alone(TEXTS[0], drawn(0), limit=RUN))):
        stage = Stage(slots=2)
        one, two = (stage.say(TEXTS[i], drawn(i), limit=RUN) for i in range(2))
        three = stage.say(TEXTS[2], drawn(2), limit=RUN)  # waits: both slots are taken
        stage.until(lambda one=one, row=row: len(one.said) >= row)  # type: ignore[misc]
        assert three.slot is None
        one.cancelled = True
        made, given = len(one.said), len(one.outlet.pieces)  # type: ignore[attr-defined]
        stage.scheduler.tick()
        assert one.slot is None
        assert three.slot is not None, "the slot of the cancelled one was not given on within a row"
        stage.run()
        assert len(one.said) == made
        assert len(one.outlet.pieces) == given  # type: ignore[attr-defined]
        assert stage.as_alone(two), row
        assert stage.as_alone(three), row


def test_a_full_outlet_holds_the_stream_and_its_result() -> None:
    stage = Stage(slots=2)
    held, free = stage.say(TEXTS[0], drawn(1)), stage.say(TEXTS[1], drawn(2))
    stage.until(lambda: len(held.said) >= 10)
    held.outlet.full = True  # type: ignore[misc]
    stage.until(lambda: free.complete)
    assert len(held.said) == 10
    assert not stage.scheduler.tick(), "a scheduler that has nothing to do must say so"
    held.outlet.full = False  # type: ignore[misc]
    stage.run()
    assert stage.as_alone(held)
    assert stage.as_alone(free)


def test_a_prompt_read_in_pieces_is_the_prompt_read_whole() -> None:
    for size in (1, 7, 64, 100):
        stage = Stage(slots=2)
        stage.clock.piece = lambda spare, size=size: size  # type: ignore[method-assign, misc]
        stream = stage.say(TEXTS[1], drawn(3), before=_recorded())
        rounds = 0
        while stream.read < len(stream.prompt):
            stage.scheduler.tick()
            rounds += 1
        assert rounds == -(-len(stream.prompt) // size)
        stage.run()
        assert stage.as_alone(stream), size


def test_a_prompt_is_read_beside_running_rows_into_a_slot_that_was_used() -> None:
    """The batch runs over the slot that is being filled, whose last stream left its position behind."""
    stage = Stage(slots=2)
    first = stage.say(TEXTS[0], drawn(0), limit=12)
    running = stage.say(TEXTS[1], drawn(2), limit=60)
    stage.clock.piece = lambda spare: 16  # type: ignore[method-assign, assignment]
    new = stage.say(TEXTS[3], drawn(3), limit=20, before=_recorded())
    stage.until(lambda: new.slot is not None)
    assert (first.slot, new.slot, running.slot) == (None, 0, 1)
    rows = len(running.said)
    stage.until(lambda: not new.reading)
    assert len(running.said) > rows + 5
    stage.run()
    assert stage.as_alone(new)
    assert stage.as_alone(running)


def test_a_row_of_many_slots_is_one_graph() -> None:
    """What is captured on a card must hold no decision that depends on data: the compiler's front end finds any."""
    import torch

    stage = Stage(slots=2)
    stage.say("Hello.", drawn(1), limit=3)
    stage.run()
    with torch.inference_mode():
        explained = torch._dynamo.explain(stage.step._row)(2, 512)
    torch._dynamo.reset()
    assert explained.graph_count == 1, explained.break_reasons
