"""The OpenAI-compatible engine and chunks against real llama.cpp, with a model made on the spot."""

import asyncio
import contextlib
import importlib.util
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from server.pipelines.chunking import Generation, Reason, Stop
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm import auto, openai
from server.pipelines.loading import load
from server.pipelines.sentences import sentences
from tests import tiny_gguf

HELLO = [Message("system", "Be brief, and be kind to whoever asks."), Message("user", "Hello, who is there?")]
GREEDY = LLMSettings(temperature=0.0)
TEXT = "".join(tiny_gguf.SCRIPT)
SENTENCES = [
    "Hello there.",
    " I am a tiny model, running inside llama.cpp!",
    " My answer is fixed so that tests can check every word.",
    " The price was 3.14 dollars for Dr. Smith, wasn't it?",
]
SERVERS = {
    "llama-server": ("llama-server", "-c", "512", "-t", "1", "--metrics", "--jinja", "--no-webui", "-m"),
    "llama_cpp": (
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--n_ctx",
        "512",
        "--interrupt_requests",
        "false",
        "--model",
    ),
}
absent = {
    "llama-server": not shutil.which("llama-server"),
    "llama_cpp": importlib.util.find_spec("llama_cpp") is None,
}
needs = {
    "llama-server": "needs llama.cpp's llama-server in PATH, and pip install gguf",
    "llama_cpp": "needs pip install 'llama-cpp-python[server]' gguf",
}


def where(name: str) -> object:
    gone = absent[name] or importlib.util.find_spec("gguf") is None
    return pytest.param(name, marks=pytest.mark.skipif(gone, reason=needs[name]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    tiny_gguf.write(path)
    return path


@pytest.fixture
async def llm(request: pytest.FixtureRequest, model: Path) -> AsyncIterator[openai.OpenAI]:
    command = [*SERVERS[request.param], str(model), "--host", "127.0.0.1", "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    reading = None
    try:
        address = await asyncio.wait_for(_address(process), 60)
        reading = asyncio.create_task(process.stderr.read())  # so that it never waits for a reader
        engine = load("llm", "openai", {"base_url": address})
        await engine.start()
        yield engine
        await engine.stop()
    finally:
        process.kill()
        await process.wait()
        if reading:
            await reading


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        if found := re.search(rb"(?:running|listening) on (http://[\w.:]+)", line):
            return found[1].decode() + "/v1"
    raise AssertionError("the server did not start")


async def whole(llm: openai.OpenAI) -> str:
    return "".join([delta async for delta in llm.stream(HELLO, GREEDY)])


@pytest.mark.parametrize("llm", [where("llama-server"), where("llama_cpp")], indirect=True)
async def test_real_llama_cpp_is_found_heard_paused_and_cut_short(llm: openai.OpenAI) -> None:
    assert await auto.find([llm.endpoint.base_url]) == llm.endpoint.base_url
    assert await whole(llm) == TEXT

    async with Generation(llm, HELLO, GREEDY) as generation:
        chunks: list[str] = []
        while not generation.done:
            async with contextlib.aclosing(generation.chunk(Stop(sentence=True))) as deltas:
                assert [delta async for delta in deltas]
            chunks.append(generation.last.text)
    assert chunks == SENTENCES
    assert generation.last.reason is Reason.SENTENCE_BOUNDARY_EOS

    pieces = [piece async for piece in sentences(Generation(llm, HELLO, GREEDY).flow(first=Stop(max_tokens=7)))]
    assert pieces == [sentence.strip() for sentence in SENTENCES]

    answer = llm.stream(HELLO, LLMSettings(temperature=0.0, max_tokens=5))
    assert "".join([delta async for delta in answer]) == "Hello there. I am a"
    assert answer.finish == "length"

    async with contextlib.aclosing(llm.stream(HELLO, GREEDY)) as cut:
        await anext(cut)
    assert await whole(llm) == TEXT  # and it serves the next


@pytest.mark.parametrize("llm", [where("llama-server")], indirect=True)
async def test_real_llama_cpp_continues_from_its_cache(llm: openai.OpenAI) -> None:
    async def processed() -> int:
        async with httpx.AsyncClient(trust_env=False) as client:
            told = (await client.get(llm.endpoint.base_url.removesuffix("/v1") + "/metrics")).text
        return int(re.search(r"^llamacpp:prompt_tokens_total (\d+)", told, re.MULTILINE)[1])

    async def generated(stop: Stop) -> tuple[int, int]:
        before = await processed()
        async with Generation(llm, HELLO, GREEDY, slot=0) as generation:
            while not generation.done:
                async with contextlib.aclosing(generation.chunk(stop)) as deltas:
                    async for _ in deltas:
                        pass
        assert generation.text == TEXT
        return await processed() - before, generation.counts.requests

    assert await llm.can_prefill()
    first, requests = await generated(Stop(sentence=True))
    again, _ = await generated(Stop(sentence=True))
    tiny, many = await generated(Stop(max_tokens=3))
    print(f"prompt tokens looked at: {first} at first; anew {again} in {requests} requests, {tiny} in {many}")
    assert requests == len(SENTENCES)
    assert many > 2 * requests
    assert first > 60
    assert again <= 2 * requests  # a token or two a continuation, the rest is in the cache
    assert tiny <= 2 * many
