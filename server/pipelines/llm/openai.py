"""Any OpenAI-compatible chat endpoint: OpenAI, vLLM, SGLang, llama.cpp, Ollama, LM Studio, OpenRouter.

Source: the `openai` package; `POST /chat/completions` with `stream`, `GET /models`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal

import openai

from server.errors import ConfigError, LLMError
from server.pipelines.engines import LLMSettings, Message
from server.pipelines.halves import whole
from server.pipelines.llm._endpoint import PREFILL, Endpoint
from server.pipelines.llm._errors import translated
from server.pipelines.llm._options import number, seconds, table, whole_number
from server.pipelines.llm._thoughts import Thoughts

Finish = Literal["stop", "length", "stop_word"]
SHORTEST_ECHO = 12  # characters: one token is rarely so long, and repeats what was said even more rarely
log = logging.getLogger(__name__)


def create(
    *,
    base_url: str = "",
    api_key: str = "",
    model: str = "",
    temperature: float | str | None = None,
    max_tokens: int | str | None = None,
    timeout_s: float | str = 30.0,
    stall_s: float | str = 10.0,
    extra_body: Mapping[str, Any] | str = "",
    headers: Mapping[str, str] | str = "",
    prefill: str = "auto",
) -> "OpenAI":
    """The endpoint at `base_url` (empty: OpenAI's own). `model` empty: the first it lists.

    `timeout_s` to the first word of an answer, `stall_s` between any two. `extra_body` and `headers` go with every
    request (tables, or JSON in a string). `prefill`: whether a reply can be continued by a new request: auto (by what
    the server says it is), off, vllm, sglang or llamacpp. Raises `ConfigError`."""
    if prefill not in ("auto", "off", *PREFILL):
        raise ConfigError(f"[llm] prefill = {prefill!r}: it is auto, off, {', '.join(PREFILL)}")
    settings = LLMSettings(
        temperature=number("temperature", temperature),
        max_tokens=whole_number("max_tokens", max_tokens, 1),
    )
    endpoint = Endpoint(
        base_url,
        api_key,
        model=model,
        timeout_s=seconds("timeout_s", timeout_s, 30.0),
        headers=table("headers", headers),
        extra_body=table("extra_body", extra_body),
        prefill=prefill,
    )
    return OpenAI(endpoint, settings, stall_s=seconds("stall_s", stall_s, 10.0))


class Answer:
    """One streaming answer: deltas of text, and `finish`, why the server ended it (None: it has not).

    Closing it closes the HTTP stream, which cancels the request."""

    def __init__(self, deltas: AsyncGenerator[str, None], finish: list[Finish]) -> None:
        self._deltas, self._finish = deltas, finish

    @property
    def finish(self) -> Finish | None:
        return self._finish[-1] if self._finish else None

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> str:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        await self._deltas.aclose()


class OpenAI:
    """The engine. Thoughts of reasoning models, in fields of their own or in tags, are no part of its answers."""

    name = "openai"
    notice = ""

    def __init__(self, endpoint: Endpoint, settings: LLMSettings, *, stall_s: float) -> None:
        self.endpoint = endpoint
        self._settings, self._stall_s = settings, stall_s
        self._warming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Needs no network: the connection is opened beside."""
        self._warming = asyncio.create_task(self._warm())

    async def stop(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        await self.endpoint.close()

    async def _warm(self) -> None:
        try:
            log.info("language model %s at %s", await self.endpoint.model(), self.endpoint.base_url)
        except LLMError as error:
            log.warning("%s", error)

    async def can_prefill(self) -> bool:
        """Whether `continue_stream` works here."""
        return bool(await self.endpoint.dialect())

    def stream(self, messages: Sequence[Message], settings: LLMSettings) -> Answer:
        """The reply in deltas of text. Raises `LLMError`."""
        return self._answer(messages, settings)

    def continue_stream(
        self, messages: Sequence[Message], said: str, settings: LLMSettings, *, slot: int | None = None
    ) -> Answer:
        """What follows `said` (empty: nothing yet) in the reply to `messages`, from a server that keeps the prefix (see
        `can_prefill`). `slot`: which of llama.cpp's holds it. Raises `LLMError`."""
        if not said:
            return self._answer(messages, settings, slot=slot)
        return self._answer([*messages, Message("assistant", said)], settings, continues=True, slot=slot)

    def _answer(
        self, messages: Sequence[Message], settings: LLMSettings, *, continues: bool = False, slot: int | None = None
    ) -> Answer:
        finish: list[Finish] = []
        extra = {} if slot is None else {"id_slot": slot}
        return Answer(self._deltas(messages, settings, continues, extra, finish), finish)

    async def _deltas(
        self,
        messages: Sequence[Message],
        settings: LLMSettings,
        continues: bool,
        extra: dict[str, Any],
        finish: list[Finish],
    ) -> AsyncGenerator[str, None]:
        thoughts = Thoughts(begun=continues)
        stream: openai.AsyncStream[Any] | None = None
        spoke = False
        try:
            if continues:
                extra = PREFILL.get(await self.endpoint.dialect(), {}) | extra
            wire = [{"role": message.role, "content": message.content} for message in messages]
            stream = await self.endpoint.open(wire, extra_body=extra, **self._parameters(settings))
            while (chunk := await _next(stream, self._stall_s if spoke else self.endpoint.timeout_s)) is not None:
                text = thoughts.push(_text(chunk, finish))
                if continues and not spoke:
                    text = _without_echo(text, messages[-1].content)
                if text:
                    spoke = True
                    yield text
            if text := thoughts.close():
                yield text
        except Exception as error:
            raise translated(error, self.endpoint.base_url, begun=spoke) from error
        finally:
            if stream is not None:
                await stream.close()

    def _parameters(self, asked: LLMSettings) -> dict[str, Any]:
        own = self._settings
        return {
            "model": asked.model,
            "temperature": own.temperature if asked.temperature is None else asked.temperature,
            "max_tokens": own.max_tokens if asked.max_tokens is None else asked.max_tokens,
            "top_p": asked.top_p,
            "stop": list(asked.stop) or None,
        }


async def _next(stream: openai.AsyncStream[Any], limit_s: float) -> Any:
    async with asyncio.timeout(limit_s):
        return await anext(stream, None)


def _text(chunk: Any, finish: list[Finish]) -> str:
    """The text of one event; notes why the answer ends, where it says so."""
    if not chunk.choices:
        return ""
    choice = chunk.choices[0]
    if choice.finish_reason:
        matched = isinstance(getattr(choice, "stop_reason", None), str)  # vLLM's own: the stop string it met
        finish.append("length" if choice.finish_reason == "length" else "stop_word" if matched else "stop")
    return whole(str(choice.delta.content or "")) if choice.delta else ""


def _without_echo(text: str, said: str) -> str:
    """The first delta of a continuation without the message that it continues, which some servers repeat in it."""
    return text.removeprefix(said) if len(said) >= SHORTEST_ECHO else text
