"""Pausable generation before real servers: the same answer token for token, however it is cut, and none in vain."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from server.errors import LLMError
from server.pipelines.chunking import Generation, Reason, Stop, detect
from server.pipelines.engines import LLMSettings
from server.pipelines.loading import load
from tests.llm_server import TEXT, Fault, LLMServer, tokens
from tests.scripted_llm import HELLO, MARKED, PARTS, SENTENCE, Scripted, chunk


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


async def test_thoughts_longer_than_the_first_chunk_are_waited_for() -> None:
    async with LLMServer(flavour="vllm", thinking="Let me think about that for long. " * 5) as server:
        llm = load("llm", "openai", {"base_url": server.url})
        async with Generation(llm, HELLO) as generation:
            assert await chunk(generation, Stop(max_tokens=2)) == "Good evening"
            assert generation.mode == "hold"
            await chunk(generation, Stop())
            assert generation.text == TEXT
        await llm.stop()
