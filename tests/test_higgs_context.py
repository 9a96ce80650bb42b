"""Higgs contexts: what is kept, shared, continued and dropped gives what reading everything afresh would."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.errors import TTSError
from server.pipelines.tts._higgs.delay import Codes, delayed
from server.pipelines.tts._higgs.prefixes import Kept, Prefixes
from server.pipelines.tts._higgs.prompt import Scene, common
from server.pipelines.tts._higgs.rolling import Rolling
from server.pipelines.tts._higgs.stream import Stream
from tests.higgs.stage import Stage, drawn, prompts

LIMIT = 60


def _frames(count: int, seed: int = 0) -> Codes:
    return np.random.default_rng(seed).integers(0, 1024, (count, 8))


def _head(recorded: bool = True) -> Codes:
    head = prompts().head(Scene(speaker="feminine; warm"))
    if not recorded:
        return head
    return np.concatenate([head, prompts().turn("The recording."), prompts().sound(delayed(_frames(25)))])


def _rolling(keep: int = 5, length: int = 1024, recorded: bool = True) -> Rolling:
    return Rolling(prompts(), _head(recorded), keep, length, 100, recorded)


class Talk:
    """One speaker on a stage: each utterance follows the ones before it."""

    def __init__(self, stage: Stage, voice: object, rolling: Rolling) -> None:
        self.stage, self.voice, self.rolling, self.key = stage, voice, rolling, object()
        self.reads: list[int] = []
        read = stage.reader.read
        stage.reader.read = lambda parts: (  # type: ignore[method-assign]
            self.reads.extend(len(part.tokens) for part in parts), read(parts)
        )[1]  # fmt: skip

    def begin(self, text: str, seed: int = 0) -> Stream:
        asked = self.rolling.ask(text)
        self.reads.clear()
        return self.stage.say(
            text, drawn(seed), limit=LIMIT, before=asked.tokens[: asked.context], head=asked.head,
            speaker=self.key, voice=self.voice,
        )  # fmt: skip

    def say(self, text: str, seed: int = 0) -> Stream:
        stream = self.begin(text, seed)
        self.stage.run()
        self.rolling.spoke(text, stream.said.remembered())
        return stream


def test_continuing_reads_only_what_is_new() -> None:
    talk = Talk(Stage(slots=2), object(), _rolling())
    last, ended = talk.say("It begins here."), 0
    assert sum(talk.reads) == len(last.prompt)
    for turn in range(1, 6):
        stream = talk.say(f"And goes on, number {turn}.", seed=turn)
        held = np.concatenate([last.prompt, prompts().sound(last.said.array())[: len(last.said) - 1]])
        assert sum(talk.reads) == len(stream.prompt) - common(held, stream.prompt)
        if last.said.ended:  # the last row, two tokens that end its turn, and the new turn
            ended += 1
            assert sum(talk.reads) == 3 + len(prompts().turn(stream.text))
        assert talk.stage.as_alone(stream), turn
        last = stream
    assert ended, "no utterance came to its end: choose other seeds"


def test_a_voice_is_read_once_for_all_conversations() -> None:
    stage, voice = Stage(slots=2), object()
    one = Talk(stage, voice, _rolling())
    one.say("The first conversation.")
    other = Talk(stage, voice, _rolling())
    stream = other.say("A second one, with the same voice.")
    assert sum(other.reads) == len(stream.prompt) - len(_head())
    assert stage.as_alone(stream)


def test_dropping_the_oldest_goes_back_to_the_voice() -> None:
    """Two are kept at least and three at most, so every second utterance reads the last two again."""
    talk = Talk(Stage(slots=2), object(), _rolling(keep=2))
    said, back = [], []
    for i in range(7):
        said.append(talk.say(f"{i} is the number.", seed=i))
        assert talk.stage.as_alone(said[-1]), i
        known = len(said[-1].prompt) - sum(talk.reads)
        back.append(known < len(_head()) + 10)
    assert back == [True, False, False, False, True, False, True]
    kept = sum(len(prompts().turn(s.text)) + len(prompts().sound(s.said.remembered())) for s in said[4:6])
    assert len(said[6].prompt) == len(_head()) + kept + len(prompts().turn(said[6].text))


def test_an_interruption_leaves_the_context_as_it_was() -> None:
    talk = Talk(Stage(slots=2), object(), _rolling())
    talk.say("This was heard to its end.")
    cut = talk.begin("This one is interrupted.", seed=0)
    talk.stage.until(lambda: len(cut.said) >= 15)
    cut.cancelled = True
    talk.stage.run()
    after = talk.say("And this one follows.", seed=2)
    assert talk.stage.as_alone(after)
    assert sum(talk.reads) == len(prompts().turn(after.text)), "the context had to be read again"


def test_the_first_utterance_anchors_a_voice_without_recording() -> None:
    rolling = _rolling(keep=2, recorded=False)
    rolling.cut_off("Too short", delayed(_frames(24)))
    assert rolling.ask("x").context == len(_head(False))
    rolling.cut_off("Long enough", delayed(_frames(25)))
    anchored = rolling.ask("x")
    assert anchored.context > anchored.head
    for i in range(5):
        rolling.spoke(f"Later {i}", delayed(_frames(10, i)))
    rolling.cut_off("Forgotten, since there is an anchor", delayed(_frames(50)))
    asked = rolling.ask("x").tokens
    assert common(asked, anchored.tokens) >= anchored.context, "the anchor was dropped"
    one = len(prompts().turn("Later 3")) + len(prompts().sound(delayed(_frames(10))))
    assert len(asked) == anchored.context + 3 * one + len(prompts().turn("x"))


def test_a_context_that_does_not_fit_is_shortened_and_a_text_that_does_not_is_refused() -> None:
    rolling = _rolling(length=620)
    for i in range(5):
        rolling.spoke(f"Utterance {i}", delayed(_frames(40, i)))
    asked = rolling.ask("Short.")
    assert asked.head < asked.context < 620 - 100
    with pytest.raises(TTSError, match="length"):
        rolling.ask("x" * 700)


def test_copies_are_bounded_and_the_longest_unused_goes_first() -> None:
    import torch

    def kept(mark: int) -> Kept:
        return Kept(np.full((10, 9), mark), torch.zeros(100))

    prefixes = Prefixes(limit=3 * 400)
    for key in "abc":
        prefixes.put(key, kept(ord(key)))
    assert prefixes.best("a", np.full((12, 9), ord("a")))[1] == 10  # used, so no longer the oldest
    prefixes.put("d", kept(ord("d")))
    assert [key for key in "abcd" if key in prefixes] == ["a", "c", "d"]
    assert prefixes.used == 1200
    prefixes.put("c", kept(0))
    prefixes.drop("d")
    assert prefixes.used == 800
    prefixes.put("e", Kept(np.zeros((1, 9)), torch.zeros(1000)))
    assert "e" not in prefixes
    assert prefixes.used == 800
    prefixes.clear()
    assert prefixes.used == 0


def test_nothing_kept_is_nothing_lost() -> None:
    talk = Talk(Stage(slots=2, keep=0), object(), _rolling())
    for turn in range(3):
        stream = talk.say(f"Number {turn}.", seed=turn)
        assert sum(talk.reads) == len(stream.prompt)
        assert talk.stage.as_alone(stream)
