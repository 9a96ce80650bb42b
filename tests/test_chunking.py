"""Chunks of a model's answer: where they end, that pausing changes nothing, cancelling is immediate, what it cost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import LLMError
from server.pipelines.chunking import Generation, Reason, Stop, detect
from server.pipelines.chunks import Cutter
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.loading import load
from server.pipelines.sentences import sentences
from tests import virtual_time
from tests.llm_server import TEXT, Fault, LLMServer, tokens

HELLO = [Message("system", "Be brief."), Message("user", "Hello")]
SENTENCE = Stop(sentence=True)
PARTS = [
    "Good evening.",
    " Dr. Smith paid 3.14 dollars for it.",
    " “Is that so? I never knew,” she said.",
    " Then they walked home, talking about the weather, the moon and the price of tea.",
    " It was late.",
    " Nobody else was about!",
]


class Scripted:
    """A model that says its tokens, one after the other; a number is a silence in seconds. Counts what it gave."""

    notice = ""

    def __init__(self, script: str | Sequence[str | float | Exception], *, finish: str | None = None) -> None:
        self.script = tokens(script) if isinstance(script, str) else list(script)
        self.finish, self.given, self.closed = finish, 0, 0

    def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncIterator[str]:
        return self._say()

    async def _say(self) -> AsyncIterator[str]:
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    self.given += 1
                    yield step
        finally:
            self.closed += 1


async def chunk(generation: Generation, stop: Stop = SENTENCE) -> str:
    async with contextlib.aclosing(generation.chunk(stop)) as deltas:
        return "".join([delta async for delta in deltas])


def cut(text: str, stop: Stop = SENTENCE, before: str = "") -> tuple[list[str], Reason | None, list[str]]:
    cutter = Cutter(stop, before)
    taken: list[str] = []
    waiting = tokens(text)
    while waiting and cutter.reason is None:
        cutter.push(waiting.pop(0))
        taken += iter(cutter.take, None)
    return taken, cutter.reason, [*cutter.left, *waiting]


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        ("Good evening.", " Dr. Smith"),
        ("Dr. Smith paid 3.14 dollars.", " It was much."),
        ("He said “Stop! Now.”", " Then he ran."),
        ('He said "Are you sure? I am not." and left.', " Then"),
        ("It (was it? Yes.) was late.", " Then"),
        ("Really?!", " Yes"),
        ("你好。", "我很好"),
        ("See https://a.b/c?d=e.f now.", " Yes"),
        ("We live in the U.S. Army base.", " Yes"),
        ("1. Open the door.", " 2. Walk in."),
        ("One\n\n", "Two"),
        ("5'10\" is tall.", " Yes"),
    ],
)
def test_a_chunk_ends_at_a_real_boundary_and_before_the_next_token(first: str, rest: str) -> None:
    taken, reason, left = cut(first + rest)
    assert ("".join(taken), "".join(left)) == (first, rest)
    assert reason is Reason.SENTENCE_BOUNDARY


def test_a_quote_that_is_never_closed_does_not_hold_for_ever() -> None:
    text = '"Well. ' + "They went on and on. " * 40
    taken, reason, _ = cut(text)
    assert reason is Reason.SENTENCE_BOUNDARY
    assert 200 < len("".join(taken)) < 300


def test_a_delta_with_the_boundary_in_it_is_cut() -> None:
    cutter = Cutter(SENTENCE)
    cutter.push("It is. And")
    assert list(iter(cutter.take, None)) == ["It is."]
    assert list(cutter.left) == [" And"]


def test_tokens_come_as_soon_as_they_are_certain() -> None:
    cutter = Cutter(SENTENCE)
    given = []
    for delta in ["Dr", ".", " Sm", "ith", " no", ".", " ”", " Next"]:
        cutter.push(delta)
        given.append("".join(iter(cutter.take, None)))
    assert given == ["Dr", ".", " Sm", "ith", " no", ".", "", ""]
    assert list(cutter.left) == [" ”", " Next"]


def test_max_tokens_or_the_boundary_whichever_comes_first() -> None:
    assert cut(TEXT, Stop(max_tokens=2))[:2] == (["Good", " evening"], Reason.MAX_TOKENS)
    assert cut(TEXT, Stop(max_tokens=2, sentence=True))[:2] == (["Good", " evening"], Reason.MAX_TOKENS)
    assert cut(TEXT, Stop(max_tokens=30, sentence=True))[:2] == (["Good", " evening", "."], Reason.SENTENCE_BOUNDARY)


def test_a_sentence_begun_before_is_known() -> None:
    assert "".join(cut("? I never,” she said. Then", before=" “Is that so")[0]) == "? I never,” she said."
    assert "".join(cut(". Open it. Then", before="Steps: 1")[0]) == ". Open it."


@pytest.fixture(params=["hold", "vllm", "llama.cpp", "vllm that trims"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[LLMServer, object]]:
    flavour = request.param.split(" ")[0].replace("hold", "openai")
    async with LLMServer(flavour=flavour, trims="trims" in request.param) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        yield server, llm
        await llm.stop()


async def test_sentence_by_sentence(served: tuple[LLMServer, object]) -> None:
    server, llm = served
    async with Generation(llm, HELLO) as generation:
        got = [await chunk(generation) for _ in PARTS]
        assert got == PARTS
        assert generation.last.reason is Reason.SENTENCE_BOUNDARY_EOS
        assert generation.text == TEXT
        assert generation.done
        assert generation.mode == ("hold" if server.flavour == "openai" else "prefill")
        assert await chunk(generation) == ""
        assert generation.last.reason is Reason.ALREADY_DONE
        assert generation.counts.requests == len(server.requests) == (1 if generation.mode == "hold" else len(PARTS))


MARKED = "“One? Two.”\n\nDr. No, e.g. him: 3.14.\n1. A b.\n2. C d…  Then…  so it went!  Yes?! 你好。我很好！ The end"
stops = st.builds(Stop, st.one_of(st.none(), st.integers(1, 12)), st.booleans())


@pytest.mark.parametrize("text", [TEXT, MARKED], ids=["prose", "marked"])
async def test_paused_or_not_the_answer_is_the_same_token_for_token(
    served: tuple[LLMServer, object], text: str
) -> None:
    server, llm = served
    server.text = text
    whole = [delta async for delta in llm.stream(HELLO, LLMSettings())]

    async def paused(plan: Sequence[Stop]) -> list[str]:
        got: list[str] = []
        async with Generation(llm, HELLO) as generation:
            stops = iter([*plan, *[SENTENCE] * 100])
            while not generation.done:
                async with contextlib.aclosing(generation.chunk(next(stops))) as deltas:
                    got += [delta async for delta in deltas]
                assert generation.text == "".join(got)
                assert text.startswith(generation.text)
        return got

    size = 1 if text == MARKED else 5
    assert await paused([Stop(max_tokens=size)] * 100) == whole
    assert await paused([Stop(max_tokens=size), SENTENCE, Stop(max_tokens=size, sentence=True), SENTENCE]) == whole
    assert "".join(await paused([Stop(max_tokens=10), *[SENTENCE] * 50])) == text


async def test_both_ways_keep_the_prefix_of_the_prompt(served: tuple[LLMServer, object]) -> None:
    server, llm = served
    async with Generation(llm, HELLO, slot=1) as generation:
        while not generation.done:
            await chunk(generation)
    first, *later = server.requests
    assert all(seen.prompt.startswith(first.prompt) for seen in later)
    assert all(seen.cached == len(seen.prompt) for seen in later)
    if server.flavour == "llama.cpp":
        assert all(seen.body["id_slot"] == 1 for seen in server.requests)


async def test_with_prefill_the_server_rests_between_chunks() -> None:
    async with LLMServer(flavour="vllm", delay=0.002) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        async with Generation(llm, HELLO) as generation:
            await chunk(generation)
            await asyncio.wait_for(server.idle(), 5)
            assert server.requests[0].sent < 20  # of 55
            await chunk(generation, Stop(max_tokens=4))
            assert server.requests[1].body["max_tokens"] == 3  # the fourth was read with the first sentence
        await llm.stop()


async def test_the_mode_is_the_callers_or_found_out() -> None:
    async with LLMServer(flavour="vllm") as server:
        llm = load("llm", "openai", {"base_url": server.url})
        assert await detect(llm) == "prefill"
        assert await detect(Scripted("x")) == "hold"
        async with Generation(llm, HELLO, mode="hold") as generation:
            await chunk(generation)
            await chunk(generation)
        assert len(server.requests) == 1
        await llm.stop()


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


@pytest.mark.parametrize("flavour", ["openai", "vllm"])
async def test_cancelling_stops_the_server_within_a_token(flavour: str) -> None:
    async with LLMServer("word " * 500, delay=0.01, flavour=flavour) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        async with Generation(llm, HELLO) as generation, contextlib.aclosing(generation.chunk(Stop())) as deltas:
            for _ in range(3):
                await anext(deltas)
        await asyncio.wait_for(server.idle(), 5)
        assert server.requests[0].aborted
        assert server.requests[0].sent < 50
        await llm.stop()


async def test_left_early_it_pauses_there(served: tuple[LLMServer, object]) -> None:
    _, llm = served
    async with Generation(llm, HELLO) as generation:
        async with contextlib.aclosing(generation.chunk(Stop())) as deltas:
            assert [await anext(deltas), await anext(deltas)] == ["Good", " evening"]
        rest = [await chunk(generation) for _ in PARTS]
        assert "".join(["Good", " evening", *rest]) == generation.text == TEXT
        assert rest[1] == PARTS[1]


async def test_a_budget_for_the_whole_answer_holds_over_all_chunks(served: tuple[LLMServer, object]) -> None:
    _, llm = served
    async with Generation(llm, HELLO, LLMSettings(max_tokens=9)) as generation:
        got = [await chunk(generation, Stop(max_tokens=4)) for _ in range(3)]
        assert "".join(got) == "".join(tokens(TEXT)[:9])
        assert generation.last.reason is Reason.MAX_TOKENS
        assert generation.done


async def test_an_error_leaves_what_was_said_and_prefill_can_go_on_after_it() -> None:
    async with LLMServer(flavour="vllm", plan=[Fault(die_after=3)]) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        async with Generation(llm, HELLO) as generation:
            with pytest.raises(LLMError, match="middle"):
                await chunk(generation, Stop())
            assert generation.text == "Good evening."
            assert await chunk(generation, Stop()) == TEXT[len("Good evening.") :]
        await llm.stop()


def test_an_error_while_holding_ends_the_answer() -> None:
    async def main() -> None:
        async with Generation(Scripted(["One", LLMError("gone")]), HELLO) as generation:
            with pytest.raises(LLMError, match="gone"):
                await chunk(generation)
            assert (generation.text, generation.done) == ("One", True)
            assert await chunk(generation) == ""

    virtual_time.run(main())


async def test_thoughts_longer_than_the_first_chunk_are_waited_for() -> None:
    async with LLMServer(flavour="vllm", thinking="Let me think about that for long. " * 5) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        async with Generation(llm, HELLO) as generation:
            assert await chunk(generation, Stop(max_tokens=2)) == "Good evening"
            assert generation.mode == "hold"
            await chunk(generation, Stop())
            assert generation.text == TEXT
        await llm.stop()


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
        llm = Scripted(["One", ".", 1.0, " Two", ".", " Three", "."])
        async with Generation(llm, HELLO, clock=loop.time) as generation:
            await chunk(generation)
            assert (generation.last.ttft_ms, generation.last.elapsed_ms) == (0.0, 1000.0)
            assert generation.counts.unread == 1
            await asyncio.sleep(5)
            await chunk(generation)
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
