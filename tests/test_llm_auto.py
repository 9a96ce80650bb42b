"""The default language model: what is set, else what is found, else the conversationalist."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from server.errors import ConfigError
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm import auto
from server.pipelines.loading import load
from tests.llm_server import Fault, LLMServer

HELLO = [Message("user", "hello")]


@asynccontextmanager
async def started(**options: object):
    llm = load("llm", "auto", {"candidates": []} | options)
    await llm.start()
    try:
        yield llm
    finally:
        await llm.stop()


async def read(llm: auto.Auto) -> str:
    return "".join([delta async for delta in llm.stream(HELLO, LLMSettings())])


async def test_what_is_set_is_used_and_nothing_else_looked_for() -> None:
    async with LLMServer("Set.") as chosen, LLMServer("Found.") as other:
        async with started(base_url=chosen.url, candidates=[other.url], temperature=0.3) as llm:
            assert await read(llm) == "Set."
            assert (llm.name, llm.notice) == ("openai", "")
        assert chosen.requests[0].body["temperature"] == 0.3
        assert not other.hits


async def test_a_key_alone_means_openai_itself() -> None:
    llm = load("llm", "auto", {"api_key": "k", "candidates": []})
    assert llm.name == "eliza"  # until it has looked
    chosen = auto.openai.create(api_key="k")
    assert chosen.endpoint.base_url == "https://api.openai.com/v1"
    assert await chosen.endpoint.model()


async def test_a_local_server_is_found_in_order_of_preference() -> None:
    async with LLMServer("First.") as first, LLMServer("Second.", flavour="vllm") as second:
        async with started(candidates=[nowhere(), first.url, second.url]) as llm:
            assert await read(llm) == "First."
        async with started(candidates=[second.url, first.url], model="m") as llm:
            assert await read(llm) == "Second."
            assert second.requests[0].body["model"] == "m"
            assert await llm.can_prefill()
            rest = llm.continue_stream(HELLO, "Sec", LLMSettings())
            assert "".join([delta async for delta in rest]) == "ond."


async def test_with_nobody_there_the_conversationalist_answers_and_says_so() -> None:
    async with started(candidates=[nowhere(), nowhere()], seed=3) as llm:
        assert llm.name == "eliza"
        assert "PARLEY_LLM_BASE_URL" in llm.notice
        assert await read(llm)
        assert not await llm.can_prefill()


async def test_what_is_no_language_model_is_not_taken_for_one() -> None:
    class Page(LLMServer):
        async def _facts(self, request):
            return auto_response(request.url.path)

    def auto_response(path: str):
        from starlette.responses import HTMLResponse

        return HTMLResponse(f"<h1>{path}</h1>")

    async with Page() as page, LLMServer(models=[]) as empty, LLMServer(api_key="k") as locked, ourselves() as parley:
        assert await auto.find([page.url, empty.url, locked.url, parley.url]) == ""


@asynccontextmanager
async def ourselves():
    async with LLMServer() as server:
        server.owner = "parley"
        yield server


async def test_our_own_port_is_not_asked() -> None:
    async with LLMServer() as server:
        port = int(server.host.rsplit(":", 1)[1])
        async with started(candidates=[server.url], skip_ports=[port]) as llm:
            assert llm.name == "eliza"
        assert not server.hits


async def test_a_server_that_hangs_costs_less_than_a_second() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        async with asyncio.timeout(5), LLMServer() as server:
            assert await auto.find([url, server.url]) == server.url


async def test_a_found_server_that_fails_says_so_as_any_other() -> None:
    async with LLMServer(always=Fault(500)) as server, started(candidates=[server.url]) as llm:
        with pytest.raises(auto.openai.LLMError, match="scripted failure"):
            await read(llm)


def test_options_are_checked_before_anything_is_looked_for() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        load("llm", "auto", {"temperature": "hot"})


def test_the_usual_ports() -> None:
    assert [auto.urlsplit(url).port for url in auto.CANDIDATES] == [11434, 8080, 1234, 8000]


def nowhere() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
