"""The OpenAI-compatible engine against a real HTTP server: what it sends, what it makes of every way to fail."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest

from server.errors import ConfigError, LLMError
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm.openai import OpenAI
from server.pipelines.loading import load
from tests.llm_server import TEXT, Fault, LLMServer, tokens

HELLO = [Message("system", "Be brief."), Message("user", "Hello")]
NONE = LLMSettings()


@contextlib.asynccontextmanager
async def engine(server: LLMServer, **options: object):
    llm: OpenAI = load("llm", "openai", {"base_url": server.url} | options)
    await llm.start()
    try:
        yield llm
    finally:
        await llm.stop()


async def read(llm: OpenAI, settings: LLMSettings = NONE) -> list[str]:
    async with contextlib.aclosing(llm.stream(HELLO, settings)) as answer:
        return [delta async for delta in answer]


async def failure(llm: OpenAI) -> tuple[LLMError, list[str]]:
    got: list[str] = []
    try:
        async for delta in llm.stream(HELLO, NONE):
            got.append(delta)
    except LLMError as error:
        return error, got
    raise AssertionError("it did not fail")


async def test_the_answer_comes_in_deltas_as_they_are_made() -> None:
    async with LLMServer() as server, engine(server, headers={"X-Title": "Parley"}, extra_body='{"seed": 7}') as llm:
        answer = llm.stream(HELLO, LLMSettings(temperature=0.1, top_p=0.5, stop=("END",)))
        assert answer.finish is None
        assert [delta async for delta in answer] == tokens(TEXT)
        assert answer.finish == "stop"
        seen = server.requests[0]
        assert seen.messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        asked = {key: seen.body[key] for key in ("model", "stream", "temperature", "top_p", "stop", "seed")}
        assert asked == {
            "model": "scripted-1", "stream": True, "temperature": 0.1, "top_p": 0.5, "stop": ["END"], "seed": 7
        }  # fmt: skip
        assert "max_tokens" not in seen.body
        assert seen.headers["x-title"] == "Parley"


async def test_half_a_character_is_passed_on_as_one_that_can_be() -> None:
    async with LLMServer("So \ud83d it goes.") as server, engine(server) as llm:
        assert "".join(await read(llm)) == "So \ufffd it goes."


async def test_a_callers_settings_win_over_the_engines() -> None:
    async with LLMServer() as server, engine(server, temperature="0.9", max_tokens="5", model="mine") as llm:
        answer = llm.stream(HELLO, NONE)
        assert "".join([delta async for delta in answer]) == "Good evening. Dr."
        assert answer.finish == "length"
        await read(llm, LLMSettings(model="other", temperature=0.0, max_tokens=1))
        asked = [(seen.body["model"], seen.body["temperature"], seen.body["max_tokens"]) for seen in server.requests]
        assert asked == [("mine", 0.9, 5), ("other", 0.0, 1)]


async def test_closing_it_cancels_the_request_at_once() -> None:
    async with LLMServer("word " * 1000, delay=0.005) as server, engine(server) as llm:
        async with contextlib.aclosing(llm.stream(HELLO, NONE)) as answer:
            for _ in range(3):
                await anext(answer)
        async with asyncio.timeout(5):
            await server.idle()
        assert server.requests[0].aborted
        assert server.requests[0].sent < 100


async def test_cancelling_the_reader_cancels_the_request() -> None:
    async with LLMServer(first=60) as server, engine(server, model="m") as llm:
        task = asyncio.create_task(read(llm))
        async with asyncio.timeout(5):
            await server.arrived(1)
            task.cancel()
            await asyncio.wait([task])
            await server.idle()
        assert task.cancelled()
        assert server.requests[0].aborted


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Fault(401, message="bad key"), "llm_auth", ("PARLEY_LLM_API_KEY", "OPENAI_API_KEY", "bad key")),
        (Fault(403), "llm_auth", ("PARLEY_LLM_API_KEY",)),
        (Fault(429, {"retry-after": "7"}, "slow down"), "llm_rate_limit", ("7 s", "slow down")),
        (
            Fault(404, message="no model x"),
            "llm_bad_request",
            ("PARLEY_LLM_MODEL", "PARLEY_LLM_BASE_URL", "no model x"),
        ),
        (Fault(400, message="too long"), "llm_bad_request", ("PARLEY_LLM_MODEL", "too long")),
        (Fault(500, message="out of memory"), "llm_failed", ("out of memory",)),
        (Fault(503), "llm_failed", ("scripted failure",)),
        (Fault(hang=True), "llm_timeout", ("PARLEY_LLM_TIMEOUT_S",)),
        (Fault(stall_after=0), "llm_timeout", ("PARLEY_LLM_TIMEOUT_S",)),
        (Fault(die_after=0), "llm_unreachable", ("PARLEY_LLM_BASE_URL",)),
    ],
    ids=lambda value: f"{value.status or value}" if isinstance(value, Fault) else None,
)
async def test_a_failure_before_the_first_word(fault: Fault, code: str, told: tuple[str, ...]) -> None:
    async with LLMServer(always=fault) as server, engine(server, timeout_s=0.3) as llm:
        error, got = await failure(llm)
        assert (error.code, got) == (code, [])
        assert all(word in str(error) for word in (*told, server.host))


@pytest.mark.parametrize(
    ("fault", "code", "told"),
    [
        (Fault(stall_after=3), "llm_timeout", "PARLEY_LLM_STALL_S"),
        (Fault(die_after=3), "llm_unreachable", "middle of the answer"),
        (Fault(error_after=3, message="out of memory"), "llm_failed", "out of memory"),
        (Fault(garbage_after=3), "llm_failed", "cannot be understood"),
    ],
    ids=["stall", "die", "error", "garbage"],
)
async def test_a_failure_in_the_middle_comes_after_what_was_said(fault: Fault, code: str, told: str) -> None:
    async with LLMServer(plan=[fault]) as server, engine(server, stall_s=0.2) as llm:
        error, got = await failure(llm)
        assert (error.code, got) == (code, ["Good", " evening", "."])
        assert told in str(error)
        assert await read(llm) == tokens(TEXT)  # and the next one is well


@pytest.mark.parametrize(
    ("fault", "requests"),
    [
        (Fault(500), 2),
        (Fault(503, {"retry-after": "0.1"}), 2),
        (Fault(429, {"retry-after-ms": "50"}), 2),
        (Fault(429, {"retry-after": "2"}), 1),
        (Fault(429), 1),
        (Fault(401), 1),
        (Fault(503, {"retry-after": "30"}), 1),
    ],
)
async def test_it_tries_once_more_only_when_that_is_quick_and_likely_to_help(fault: Fault, requests: int) -> None:
    async with LLMServer(plan=[fault, fault]) as server, engine(server, model="m") as llm:
        await failure(llm)
        assert len(server.requests) == requests
        server.plan = [fault] if requests == 2 else []
        assert await read(llm) == tokens(TEXT)


async def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        llm = load("llm", "openai", {"base_url": url, "model": "m"})
        await llm.start()  # needs nobody
        error, _ = await failure(llm)
        await llm.stop()
    assert error.code == "llm_unreachable"
    assert "PARLEY_LLM_BASE_URL" in str(error)
    assert url in str(error)


async def test_a_wrong_key_is_told_by_the_list_of_models_too() -> None:
    async with LLMServer(api_key="right") as server:
        async with engine(server, api_key="wrong") as llm:
            assert (await failure(llm))[0].code == "llm_auth"
        async with engine(server, api_key="right") as llm:
            assert await read(llm) == tokens(TEXT)


async def test_without_a_model_it_takes_the_first_that_chats_and_asks_once() -> None:
    async with LLMServer(models=["nomic-embed-text", "llama3", "other"]) as server, engine(server) as llm:
        await asyncio.gather(read(llm), read(llm), read(llm))
        assert {seen.body["model"] for seen in server.requests} == {"llama3"}
        assert server.hits["/v1/models"] == 1


async def test_a_server_without_models_says_so() -> None:
    async with LLMServer(models=[]) as server, engine(server) as llm:
        error, _ = await failure(llm)
        assert "PARLEY_LLM_MODEL" in str(error)


async def test_a_parameter_that_a_model_refuses_is_learnt() -> None:
    class Newest(LLMServer):
        def _refusal(self, body: dict[str, object]) -> str:
            return next((f"Unsupported parameter: '{p}'" for p in ("max_tokens", "temperature") if p in body), "")

        def _param(self, message: str) -> str | None:
            return message.split("'")[1] if "'" in message else None

    async with Newest() as server, engine(server, max_tokens=3) as llm:
        assert await read(llm) == ["Good", " evening", "."]
        assert await read(llm) == ["Good", " evening", "."]
        assert [("max_tokens" in s.body, s.body.get("max_completion_tokens")) for s in server.requests] == [
            (True, None),
            (False, 3),
            (False, 3),
        ]
        await read(llm, LLMSettings(temperature=0.5))
        await read(llm, LLMSettings(temperature=0.5))
        assert ["temperature" in seen.body for seen in server.requests[3:]] == [True, False, False]


@pytest.mark.parametrize("flavour", ["vllm", "llama.cpp", "openai", "ollama"])
async def test_which_servers_can_continue_a_reply(flavour: str) -> None:
    async with LLMServer(flavour=flavour) as server, engine(server) as llm:
        assert await llm.can_prefill() == (flavour in ("vllm", "llama.cpp"))
    async with LLMServer(flavour=flavour) as server, engine(server, prefill="off") as llm:
        assert not await llm.can_prefill()


@pytest.mark.parametrize("flavour", ["vllm", "llama.cpp", "llama.cpp that echoes"])
async def test_a_reply_is_continued_and_its_prefix_is_the_same(flavour: str) -> None:
    echoes, flavour = "echoes" in flavour, flavour.split(" ")[0]
    async with LLMServer(flavour=flavour, echoes=echoes) as server, engine(server) as llm:
        first = "".join([delta async for delta in llm.stream(HELLO, LLMSettings(max_tokens=7))])
        rest = llm.continue_stream(HELLO, first, NONE, slot=3 if flavour == "llama.cpp" else None)
        assert first + "".join([delta async for delta in rest]) == TEXT
        before, after = server.requests
        assert after.prompt == before.prompt + first
        assert after.cached == len(after.prompt)
        assert after.body.get("id_slot") == (3 if flavour == "llama.cpp" else None)
        assert (after.body["continue_final_message"], after.body["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize(
    "thinking", [{"thinking": "Let me see."}, {"text": "<think>\nLet me see. </think>\n\nYes."}], ids=["field", "tag"]
)
async def test_thoughts_are_no_part_of_the_answer(thinking: dict[str, str]) -> None:
    async with LLMServer(**({"text": "Yes."} | thinking)) as server, engine(server) as llm:
        assert await read(llm) == ["Yes", "."]


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"prefill": "maybe"},
            {"temperature": "warm"},
            {"max_tokens": "x"},
            {"headers": "X: y"},
            {"extra_body": "[1]"},
        ),
        *({"timeout_s": value} for value in (0, -1, "0", "-3", "soon", float("nan"))),
        *({"stall_s": 0}, {"temperature": -0.1}, {"max_tokens": 0}, {"max_tokens": "inf"}),
    ],
)
@pytest.mark.parametrize("engine", ["openai", "auto"])
def test_what_cannot_be_set(engine: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"\[llm\] {next(iter(options))}"):
        load("llm", engine, options)


def test_what_is_left_empty_is_as_if_it_were_not_set() -> None:
    engine = load("llm", "openai", {"timeout_s": "", "stall_s": "", "max_tokens": "", "temperature": ""})
    assert (engine.endpoint.timeout_s, engine._stall_s, engine._settings.max_tokens) == (30, 10, None)
