"""The default: the endpoint that is set; else a local server that is running; else the offline conversationalist."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm import eliza, openai

CANDIDATES = (  # where Ollama, llama.cpp, LM Studio and vLLM listen when nobody tells them otherwise
    "http://127.0.0.1:11434/v1",
    "http://127.0.0.1:8080/v1",
    "http://127.0.0.1:1234/v1",
    "http://127.0.0.1:8000/v1",
)
PROBE_S = 0.3
log = logging.getLogger(__name__)


def create(
    *,
    base_url: str = "",
    api_key: str = "",
    candidates: Sequence[str] = CANDIDATES,
    skip_ports: Sequence[int] = (),
    seed: int | str = 0,
    model: str = "",
    temperature: float | str | None = None,
    max_tokens: int | str | None = None,
    timeout_s: float | str = 30.0,
    stall_s: float | str = 10.0,
    extra_body: Mapping[str, Any] | str = "",
    headers: Mapping[str, str] | str = "",
    prefill: str = "auto",
) -> "Auto":
    """`candidates`: addresses to look at once, at the start, when neither `base_url` nor `api_key` is given; those on
    `skip_ports` (our own) are left out. `seed` is for the conversationalist; the rest is for the endpoint, as in
    `openai`. Raises `ConfigError`."""
    options: dict[str, Any] = {
        "api_key": api_key, "model": model, "temperature": temperature, "max_tokens": max_tokens,
        "timeout_s": timeout_s, "stall_s": stall_s, "extra_body": extra_body, "headers": headers, "prefill": prefill,
    }  # fmt: skip
    openai.create(**options)  # what is wrong with them is told now, not when a server is found
    near = [url for url in candidates if urlsplit(url).port not in skip_ports]
    return Auto(options | {"base_url": base_url}, near, seed)


class Auto:
    """The engine. What it chose is in `name`, `notice` and `chosen`."""

    def __init__(self, options: dict[str, Any], candidates: Sequence[str], seed: int | str) -> None:
        self._options, self._candidates = options, candidates
        self.chosen: openai.OpenAI | eliza.Eliza = eliza.create(seed=seed)

    @property
    def name(self) -> str:
        return self.chosen.name

    @property
    def notice(self) -> str:
        return self.chosen.notice

    async def start(self) -> None:
        options = self._options
        if not (options["base_url"] or options["api_key"]):
            options = options | {"base_url": await find(self._candidates)}
        if options["base_url"] or options["api_key"]:
            self.chosen = openai.create(**options)
        if self.notice:
            log.warning("%s", self.notice)
        await self.chosen.start()

    async def stop(self) -> None:
        await self.chosen.stop()

    def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncIterator[str]:
        """The reply in deltas of text. Raises `LLMError`."""
        return self.chosen.stream(messages, settings)

    async def can_prefill(self) -> bool:
        """Whether `continue_stream` works with what was chosen."""
        return isinstance(self.chosen, openai.OpenAI) and await self.chosen.can_prefill()

    def continue_stream(
        self, messages: Sequence[Message], said: str, settings: LLMSettings, *, slot: int | None = None
    ) -> AsyncIterator[str]:
        """What follows `said`, where `can_prefill`. Raises `LLMError`."""
        assert isinstance(self.chosen, openai.OpenAI), "ask can_prefill first"
        return self.chosen.continue_stream(messages, said, settings, slot=slot)


async def find(candidates: Sequence[str]) -> str:
    """The first of `candidates` where a language model is served; empty where there is none. Asks all at once."""
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PROBE_S) as client:
        served = await asyncio.gather(*(_serves(client, url) for url in candidates))
    found = next((url for url, serves in zip(candidates, served, strict=True) if serves), "")
    if found:
        log.info("found a local language model at %s", found)
    return found


async def _serves(client: httpx.AsyncClient, url: str) -> bool:
    try:
        async with asyncio.timeout(2 * PROBE_S):
            response = await client.get(f"{url}/models")
        listed = response.json()["data"] if response.status_code == 200 else []
        return bool(listed) and all(isinstance(m["id"], str) and m.get("owned_by") != "parley" for m in listed)
    except (httpx.HTTPError, OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        return False
