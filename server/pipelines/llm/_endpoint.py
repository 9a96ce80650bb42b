"""An OpenAI-compatible endpoint: its connection, its models, what it is, one request and its one retry."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import openai

from server.errors import LLMError
from server.pipelines.llm._errors import retry_after, translated

OPENAI = "https://api.openai.com/v1"
OPENAI_MODEL = "gpt-4o-mini"  # where OpenAI itself is asked and nothing is chosen
RETRY_S = 0.2  # the one retry comes after so long, or after what the server asks for up to a second
KEEP_S = 240  # an idle connection is kept so long
NOT_FOR_CHAT = ("embed", "whisper", "tts", "rerank", "moderation", "dall-e", "transcribe", "image", "sora", "realtime")
PREFILL: dict[str, dict[str, Any]] = {  # by `owned_by` in /models: what continues the assistant's last message
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "sglang": {"continue_final_message": True},
    # Older ones continue by themselves and know none of this; newer ones repeat the message unless told so.
    "llamacpp": {"continue_final_message": True, "add_generation_prompt": False, "cache_prompt": True},
}
log = logging.getLogger(__name__)


class Endpoint:
    """One server. `timeout_s` is how long it may take to begin an answer; `extra_body` goes with every request."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        model: str,
        timeout_s: float,
        headers: Mapping[str, str],
        extra_body: Mapping[str, Any],
        prefill: str,
    ) -> None:
        self.base_url = base_url.rstrip("/") or OPENAI
        self._key, self._model, self.timeout_s = api_key, model, timeout_s
        self._headers, self._extra, self._prefill = dict(headers), dict(extra_body), prefill
        self._opened: openai.AsyncOpenAI | None = None
        self._listed: Sequence[Any] | None = None
        self._asking = asyncio.Lock()
        self._refused: dict[str, str] = {}  # parameters this model does not take, and what it takes instead

    def client(self) -> openai.AsyncOpenAI:
        if self._opened is None:
            address = urlsplit(self.base_url)
            near = address.hostname in ("localhost", "127.0.0.1", "::1")  # no proxy leads there
            secure = address.scheme != "http"  # certificates take 100 ms to load
            self._opened = openai.AsyncOpenAI(
                base_url=self.base_url,
                api_key=self._key or "none",  # local servers ask for none, the client does
                timeout=2 * self.timeout_s + 60,  # a last resort: the caller's limits come first
                max_retries=0,
                default_headers=self._headers,
                http_client=openai.DefaultAsyncHttpxClient(trust_env=not near, verify=secure, limits=_kept_open()),
            )
        return self._opened

    async def close(self) -> None:
        client, self._opened = self._opened, None
        if client is not None:
            await client.close()

    async def model(self) -> str:
        """The model that answers when a caller names none: the one set, or the first listed. Raises `LLMError`."""
        if not self._model and self.base_url == OPENAI:
            self._model = OPENAI_MODEL
        if not self._model:
            names = [str(model.id) for model in await self._models()]
            fit = [name for name in names if not any(word in name.lower() for word in NOT_FOR_CHAT)] or names
            if not fit:
                raise LLMError(f"{self.base_url} lists no model: load one, or set PARLEY_LLM_MODEL")
            self._model = fit[0]
        return self._model

    async def dialect(self) -> str:
        """Which of `PREFILL` it speaks; empty where a reply cannot be continued. Asked once, by its list of models."""
        if self._prefill == "auto":
            try:
                owners = {str(getattr(model, "owned_by", "")) for model in await self._models()}
            except LLMError:
                return ""  # not to be remembered: it may be about to start
            self._prefill = next((name for name in PREFILL if name in owners), "off")
        return "" if self._prefill == "off" else self._prefill

    async def _models(self) -> Sequence[Any]:
        async with self._asking:
            if self._listed is None:
                try:
                    async with asyncio.timeout(self.timeout_s):
                        self._listed = (await self.client().models.list()).data or []
                except Exception as error:
                    raise translated(error, self.base_url) from error
            return self._listed

    async def answers(self, within_s: float) -> bool:
        """Whether somebody is there, whatever they say. Asks over the connection that answers come by: a client of its
        own would read all certificates first, and keep everybody waiting meanwhile."""
        try:
            async with asyncio.timeout(within_s):
                await self.client().models.with_raw_response.list()
        except openai.APIStatusError as error:
            return error.status_code < 500
        except (openai.OpenAIError, OSError):  # a timeout is one, too
            return False
        return True

    async def open(self, messages: list[dict[str, str]], **wanted: Any) -> openai.AsyncStream[Any]:
        """The stream of an answer, sent for once more when that is likely to help and quick.

        `wanted`: parameters (None: left out) and `extra_body`. Raises what the client raises."""
        request = {self._refused.get(key, key): value for key, value in wanted.items() if value is not None}
        request.pop("", None)
        extra = self._extra | request.pop("extra_body", {})
        request = {"model": await self.model()} | request | {"messages": messages, "extra_body": extra}
        try:
            return await self._send(request)
        except openai.BadRequestError as error:
            if not self._learn(error, request):
                raise
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as error:
            pause = _pause(error)
            if pause is None:
                raise
            log.info("once more in %.1f s: %s", pause, translated(error, self.base_url))
            await asyncio.sleep(pause)
        return await self._send(request)

    async def _send(self, request: dict[str, Any]) -> openai.AsyncStream[Any]:
        async with asyncio.timeout(self.timeout_s):
            return await self.client().chat.completions.create(stream=True, **request)  # type: ignore[no-any-return]

    def _learn(self, error: openai.BadRequestError, request: dict[str, Any]) -> bool:
        """OpenAI's newer models refuse `max_tokens` and `temperature`: remember it, and mend the request."""
        name = error.param or ""
        if name not in ("temperature", "top_p", "max_tokens", "stop") or name not in request:
            return False
        value = request.pop(name)
        self._refused[name] = "max_completion_tokens" if name == "max_tokens" else ""
        if self._refused[name]:
            request[self._refused[name]] = value
        return True


def _kept_open() -> Any:
    """Limits under which a connection outlives the user's silence: a new one costs a cloud's first token 100 ms."""
    usual = openai.DEFAULT_CONNECTION_LIMITS
    return type(usual)(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=KEEP_S)


def _pause(error: openai.APIError) -> float | None:
    """How long before the one retry; None: it would not help, or take too long."""
    match error:
        case openai.APITimeoutError():
            return None
        case openai.APIStatusError():
            asked = retry_after(error)
            if asked is None:
                return None if isinstance(error, openai.RateLimitError) else RETRY_S
            return asked if asked <= 1 else None
        case _:
            return RETRY_S
