"""Sentences out of a model that writes: a pause lets them go, a slow one is hurried, and closing closes the model."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from server.errors import LLMError
from server.pipelines.sentences import sentences
from server.pipelines.waiting import Source
from tests import virtual_time


class Model:
    """Tokens with pauses between them: a string is said, a number is a silence in seconds. Notes how it ended."""

    def __init__(self, *script: str | float | Exception) -> None:
        self.script, self.said, self.closed = script, 0, False

    async def tokens(self) -> AsyncIterator[str]:
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, str):
                    self.said += 1
                    yield step
                else:
                    await asyncio.sleep(step)
        finally:
            self.closed = True


def timed(model: Model, **options: float) -> list[tuple[float, str]]:
    async def collect() -> list[tuple[float, str]]:
        clock = asyncio.get_running_loop().time
        return [(round(clock(), 3), piece) async for piece in sentences(model.tokens(), **options)]

    return virtual_time.run(collect())


def test_a_finished_sentence_is_let_go_when_the_model_pauses() -> None:
    model = Model("One is", " done.", 2.0, " Two", " is", 3.0, " not.", 1.0, " Dr.", 5.0, " No.")
    assert timed(model) == [(0.35, "One is done."), (5.35, "Two is not."), (11.0, "Dr. No.")]
    assert model.said == 7


def test_an_ambiguous_end_is_judged_again_when_more_is_known() -> None:
    assert timed(Model("It costs 3.", 1.0, "50 today.", 1.0, " I have 2.", 1.0, " You go")) == [
        (1.35, "It costs 3.50 today."),
        (3.0, "I have 2."),
        (3.0, "You go"),
    ]


def test_an_empty_delta_lets_a_finished_sentence_go_at_once() -> None:
    assert timed(Model("Done.", "", 0.2, " And", "", 0.2, " on.")) == [(0.0, "Done."), (0.4, "And on.")]
    assert timed(Model("It costs 3.", "", 0.2, " Now", "\n", "", 0.2, "so (what?)", "", 0.2)) == [
        (0.0, "It costs 3."),
        (0.2, "Now"),
        (0.4, "so (what?)"),
    ]


SLOW = ["Well", " now", " my", " dear", " friend,", " that", " is", " a", " long", " story,", " you", " know.", " Sit."]


def paced(tokens: list[str], every: float) -> list[str | float]:
    return [step for token in tokens for step in (token, every)]


def test_a_slow_models_first_sentence_is_begun_at_its_first_clause() -> None:
    assert timed(Model(*paced(SLOW, 0.1)), patience_s=0.4) == [
        (0.5, "Well now my dear friend,"),
        (1.2, "that is a long story, you know."),
        (1.3, "Sit."),
    ]
    assert timed(Model(*paced(SLOW, 0.1))) == [
        (1.2, "Well now my dear friend, that is a long story, you know."),
        (1.3, "Sit."),
    ]


def test_a_quick_models_first_sentence_is_left_whole() -> None:
    [(_, first), _] = timed(Model(*paced(SLOW, 0.03)), patience_s=0.4)
    assert first == "Well now my dear friend, that is a long story, you know."


def test_after_a_long_silence_the_first_clause_goes_ahead() -> None:
    assert timed(Model("Well now", 5.0, " my dear friend, that is so."), patience_s=0.4) == [
        (5.0, "Well now my dear friend,"),
        (5.0, "that is so."),
    ]


def test_only_the_first_sentence_is_hurried() -> None:
    second = Model("Yes. ", *paced(SLOW, 0.2))
    assert [piece for _, piece in timed(second, patience_s=0.4)] == [
        "Yes.",
        "Well now my dear friend, that is a long story, you know.",
        "Sit.",
    ]


def test_a_huge_delta_leaves_the_event_loop_its_turns() -> None:
    async def main() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        pieces = [piece async for piece in sentences(Model("Hi there. " * 1600).tokens())]
        task.cancel()
        assert pieces == ["Hi there."] * 1600
        assert turns >= 40

    virtual_time.run(main())


def test_what_the_model_raises_comes_after_the_whole_sentences() -> None:
    model = Model("One. Two is whole.", " Half", LLMError("gone", code="llm_unreachable"))

    async def collect() -> list[str]:
        got = []
        try:
            async for piece in sentences(model.tokens()):
                got.append(piece)
        except LLMError as error:
            got.append(str(error))
        return got

    assert virtual_time.run(collect()) == ["One.", "Two is whole.", "gone"]
    assert model.closed


@pytest.mark.parametrize("after", [0, 1], ids=["before the first token", "while idle"])
def test_cancelled_while_it_waits_it_closes_the_model(after: int) -> None:
    model = Model(*["Whole.", " Next is"][:after], 100.0, "never")

    async def main() -> int:
        async def read() -> None:
            async with contextlib.aclosing(sentences(model.tokens())) as pieces:
                async for _ in pieces:
                    pass

        task = asyncio.create_task(read())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert asyncio.get_running_loop().time() == 1
        return len(asyncio.all_tasks())

    assert virtual_time.run(main()) == 1
    assert model.closed


def test_closed_after_a_sentence_it_closes_the_model() -> None:
    model = Model("One. ", "Two. ", "Three. ", 50.0, "Four.")

    async def main() -> None:
        async with contextlib.aclosing(sentences(model.tokens())) as pieces:
            assert await anext(pieces) == "One."
        assert model.closed
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())
    assert model.said <= 3


def test_who_leaves_a_silent_model_leaves_in_peace() -> None:
    model = Model("Done.", 100.0, "never")

    async def main() -> float:
        async with contextlib.aclosing(sentences(model.tokens())) as pieces:
            assert await anext(pieces) == "Done."
        assert model.closed
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) < 1


def test_a_model_that_fails_at_being_left_is_nobodys_news() -> None:
    told: list[object] = []

    async def tokens() -> AsyncIterator[str]:
        yield "Done."
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise LLMError("gone") from None

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with contextlib.aclosing(sentences(tokens())) as pieces:
            assert await anext(pieces) == "Done."
        del pieces
        gc.collect()

    virtual_time.run(main())
    assert told == []


def test_a_silence_is_told_once() -> None:
    async def read() -> list[tuple[str | None, float]]:
        source, clock = Source(Model(5.0, "late").tokens()), asyncio.get_running_loop().time
        return [(await source.next(0.1), round(clock(), 1)) for _ in range(3)]

    assert virtual_time.run(read()) == [("", 0.1), ("late", 5.0), (None, 5.0)]
