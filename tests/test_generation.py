"""Pausable generation before a scripted model, on the virtual clock: reasons, cancelling, and what it costs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import LLMError
from server.pipelines.chunking import Generation, Reason, Stop
from server.pipelines.sentences import sentences
from tests import virtual_time
from tests.llm_server import TEXT, tokens
from tests.scripted_llm import HELLO, MARKED, SENTENCE, Scripted, chunk


def drive(script: Sequence[str | float | Exception] | str, *stops: Stop, finish: str | None = None) -> list[object]:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        llm = Scripted(script)
        if finish:
            llm.stream = lambda messages, settings: Finished(Scripted(script)._say(), finish)
        async with Generation(llm, HELLO, clock=loop.time) as generation:
            out: list[object] = []
            for stop in stops:
                out.append((await chunk(generation, stop), str(generation.last.reason), generation.last.tokens))
        return out

    return virtual_time.run(main())


class Finished:
    def __init__(self, deltas: AsyncIterator[str], finish: str) -> None:
        self.deltas, self.finish = deltas, finish

    async def __anext__(self) -> str:
        return await anext(self.deltas)

    async def aclose(self) -> None:
        await self.deltas.aclose()


@pytest.mark.parametrize(
    ("script", "stop", "finish", "expected"),
    [
        ("One. Two", SENTENCE, None, [("One.", "sentence_boundary", 2), (" Two", "eos", 1)]),
        ("One. Two.", SENTENCE, None, [("One.", "sentence_boundary", 2), (" Two.", "sentence_boundary_eos", 2)]),
        ("One. Dr.", SENTENCE, None, [("One.", "sentence_boundary", 2), (" Dr.", "eos", 2)]),
        ("One. Two.", Stop(), None, [("One. Two.", "eos", 4), ("", "already_done", 0)]),
        ("One. Two.", Stop(), "length", [("One. Two.", "max_tokens", 4), ("", "already_done", 0)]),
        ("One. Two.", Stop(), "stop_word", [("One. Two.", "stop_word", 4), ("", "already_done", 0)]),
        ("One. Two.", Stop(max_tokens=3), None, [("One. Two", "max_tokens", 3), (".", "eos", 1)]),
        ("", SENTENCE, None, [("", "empty_response", 0), ("", "already_done", 0)]),
    ],
)
def test_the_reasons(script: str, stop: Stop, finish: str | None, expected: list[object]) -> None:
    assert drive(script, stop, stop, finish=finish) == expected


def test_cancelled_in_the_middle_of_a_wait_it_ends_at_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        llm = Scripted(["One", " two", 100.0, " never"])
        generation = Generation(llm, HELLO, clock=loop.time)
        reader = asyncio.create_task(chunk(generation))
        await asyncio.sleep(3)
        await generation.close()
        assert await reader == "One two"
        assert loop.time() == 3
        assert generation.last.reason is Reason.CANCELLED
        assert (generation.text, generation.done, llm.closed) == ("One two", True, 1)
        assert await chunk(generation) == ""
        assert generation.last.reason is Reason.CANCELLED
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())


@pytest.mark.parametrize("closed", [False, True], ids=["", "and closed"])
def test_a_reader_that_is_cancelled_stays_cancelled(closed: bool) -> None:
    async def main() -> None:
        llm = Scripted(["One", 100.0])
        async with Generation(llm, HELLO) as generation:
            reader = asyncio.create_task(chunk(generation))
            await asyncio.sleep(1)
            reader.cancel()
            if closed:
                await generation.close()
            await asyncio.wait([reader])
            assert reader.cancelled()
            assert llm.closed == 1
            assert generation.last.reason is Reason.CANCELLED
            assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())


def test_an_error_while_holding_ends_the_answer() -> None:
    async def main() -> None:
        async with Generation(Scripted(["One", LLMError("gone")]), HELLO) as generation:
            with pytest.raises(LLMError, match="gone"):
                await chunk(generation)
            assert (generation.text, generation.done) == ("One", True)
            assert await chunk(generation) == ""

    virtual_time.run(main())


def test_a_server_that_has_no_more_room_ends_the_answer() -> None:
    class Full(Scripted):
        async def can_prefill(self) -> bool:
            return True

        def continue_stream(self, messages: object, said: str, settings: object, **options: object) -> "Finished":
            return Finished(Scripted("")._say() if said else self._say(), "length")

    async def main() -> None:
        async with Generation(Full("One two"), HELLO) as generation:
            assert [delta async for delta in generation.flow()] == ["One", " two"]
            assert generation.last.reason is Reason.MAX_TOKENS
            assert generation.counts.requests == 2

    virtual_time.run(main())


def test_what_it_cost_is_counted() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        llm = Scripted([0.5, "One", ".", 1.0, " Two", ".", " Three", "."])
        await asyncio.sleep(3)
        async with Generation(llm, HELLO, clock=loop.time) as generation:
            await chunk(generation)
            assert (generation.last.ttft_ms, generation.last.elapsed_ms) == (500.0, 1500.0)
            assert generation.counts.unread == 1
            await asyncio.sleep(5)
            await chunk(generation)
            assert (generation.last.ttft_ms, generation.last.elapsed_ms) == (0.0, 0.0)
            await asyncio.sleep(2)
        counts = generation.counts
        assert (counts.requests, counts.generated, counts.delivered, counts.unread) == (1, 5, 4, 1)
        assert counts.rested_s == 7
        assert llm.given == 5

    virtual_time.run(main())


def test_a_reader_who_stops_reading_lets_the_model_rest() -> None:
    async def main() -> None:
        parts = ["It was late.", " Dr. No was out, he paid 3.14.", " Nobody knew!"]
        llm = Scripted("".join(parts) + " Then he came. And went.")
        async with Generation(llm, HELLO) as generation:
            async with contextlib.aclosing(sentences(generation.flow(), idle_s=60)) as pieces:
                for part in parts:
                    assert await anext(pieces) == part.strip()
                    assert generation.text.endswith(part)  # not a token more was asked for
                    assert llm.given == len(tokens(generation.text)) + 1
            assert generation.done
            assert llm.closed == 1

    virtual_time.run(main())


def test_the_whole_flow_is_the_whole_answer() -> None:
    async def main() -> None:
        generation = Generation(Scripted(TEXT), HELLO)
        got = [delta async for delta in generation.flow(first=Stop(max_tokens=3))]
        assert "".join(got) == TEXT
        assert [i for i, delta in enumerate(got) if delta == ""]
        pieces = sentences(Generation(Scripted(MARKED), HELLO).flow())
        assert "".join("".join([piece async for piece in pieces]).split()) == "".join(MARKED.split())

    virtual_time.run(main())


stops = st.builds(Stop, st.one_of(st.none(), st.integers(1, 12)), st.booleans())


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(max_size=120), st.sampled_from([TEXT, MARKED])), plan=st.lists(stops, max_size=30))
def test_no_stop_loses_or_moves_anything(text: str, plan: list[Stop]) -> None:
    async def main() -> None:
        async with Generation(Scripted(text), HELLO) as generation:
            for stop in plan:
                before = generation.text
                got = await chunk(generation, stop)
                assert before + got == generation.text
                assert stop.max_tokens is None or generation.last.tokens <= stop.max_tokens
            await chunk(generation, Stop())
            assert generation.text == "".join(tokens(text))

    virtual_time.run(main())
