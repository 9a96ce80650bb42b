"""The answers of `/ws/llm`: what a client may ask for, one stream of it, and the slots that limit them."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from server.errors import LimitError, LLMError
from server.pipelines.chunking import Chunk, Generation, Reason, Stop
from server.pipelines.engines import LLM, LLMSettings, Message

LONGEST, LONGEST_SENTENCE = 500, 200  # tokens of a chunk, where the client names no number

Send = Callable[[dict[str, Any]], Awaitable[None]]


def _role(role: Any) -> Any:
    return "system" if role == "developer" else role


class Said(BaseModel):
    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    content: str

    @property
    def message(self) -> Message:
        return Message(self.role, self.content)


class Pause(BaseModel):
    """When a chunk ends: at what comes first. 0 tokens mean no limit of the client's."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    sentence_boundary: bool | None = None

    @property
    def stop(self) -> Stop:
        longest = LONGEST_SENTENCE if self.sentence_boundary else LONGEST
        return Stop(self.max_tokens or longest, bool(self.sentence_boundary))


class Start(BaseModel):
    """A new answer. `tagged`: every frame of it names its stream, so that several may be made at the same time."""

    model_config = ConfigDict(allow_inf_nan=False)

    messages: list[Said] = []
    pause: Pause | None = None
    stream_tokens: bool = False
    tagged: bool = False
    temperature: float | None = 0.7
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    top_p: float | None = None
    stop: list[str] = []
    mode: Literal["auto", "hold", "prefill"] = "auto"

    @property
    def settings(self) -> LLMSettings:
        return LLMSettings(self.model, self.temperature, self.max_tokens, self.top_p, tuple(self.stop))


class Continue(BaseModel):
    pause: Pause | None = None


class Slots:
    """How many answers may be open at once, over all connections."""

    def __init__(self, count: int) -> None:
        self.count, self.used = count, 0

    def take(self) -> None:
        """Raises `LimitError` when there is none."""
        if self.used >= self.count:
            raise LimitError(f"No slots available (max {self.count})", code="no_slots", retry_after=1)
        self.used += 1

    def give_back(self) -> None:
        self.used -= 1


class Answer:
    """One stream of an answer. `order` is held while a chunk of it is made and told."""

    def __init__(self, id: str | int, llm: LLM, start: Start, order: asyncio.Lock) -> None:
        self.id, self.order = id, order
        self.generation = Generation(llm, [said.message for said in start.messages], start.settings, mode=start.mode)
        self._tokens, self._tag = start.stream_tokens, {"stream_id": id} if start.tagged else {}
        self._begun = False
        self._making: asyncio.Task[Any] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()

    async def chunk(self, pause: Pause | None, send: Send) -> bool:
        """The next chunk, told as the client asked for it. False: there never was an answer, nor will be."""
        async with self.order:
            self._making = asyncio.current_task()
            failed = await self._made((pause or Pause()).stop, send)
            chunk, begun = self.generation.last, self._begun
            self._begun = True
            if failed and not chunk.tokens:
                await send({"stream_id": self.id, "error": str(failed), "code": failed.code})
            elif self._tokens:
                await send(self._tag | self._ended(chunk, failed))
            else:
                await send(self._whole(chunk, failed, begun))
            return begun or not failed or bool(chunk.tokens)

    async def _made(self, stop: Stop, send: Send) -> LLMError | None:
        try:
            async with aclosing(self.generation.chunk(stop)) as deltas:
                async for delta in deltas:
                    if self._tokens:
                        await send(self._tag | {"type": "token", "content": delta})
        except LLMError as error:
            return error
        return None

    def _ended(self, chunk: Chunk, failed: LLMError | None) -> dict[str, Any]:
        done = self.generation.done
        told = {
            "type": "done" if done else "paused",
            "reason": "connection_error" if failed else chunk.reason.value,
            "text": chunk.text,
            "tokens": chunk.tokens,
            "ttft_ms": chunk.ttft_ms or 0.0,
        }
        if chunk.reason is not Reason.ALREADY_DONE:
            told["elapsed_ms"] = chunk.elapsed_ms
        return told | ({"error": str(failed), "code": failed.code} if failed else {})

    def _whole(self, chunk: Chunk, failed: LLMError | None, begun: bool) -> dict[str, Any]:
        reason = Reason.EOS if chunk.reason is Reason.EMPTY_RESPONSE else chunk.reason
        told: dict[str, Any] = {"stream_id": self.id}
        if not begun:
            told["status"] = "started"
        told |= {
            "text": chunk.text,
            "tokens": chunk.tokens,
            "paused": not self.generation.done,
            "reason": "connection_error" if failed else reason.value,
            "done": self.generation.done,
            "full_text": self.generation.text,
        }
        if reason is not Reason.ALREADY_DONE:
            told["ttft_ms"] = chunk.ttft_ms or 0.0
        return told | ({"error": str(failed), "code": failed.code} if failed else {})

    async def end(self) -> dict[str, Any]:
        """Stop within a token; a chunk that was being made is told first, as far as it came. What the answer took."""
        for task in self.tasks - {self._making}:
            task.cancel()  # its turn has not come
        await self.generation.close()
        if self.tasks:
            await asyncio.wait(self.tasks)
        counts = self.generation.counts
        return {
            "tokens": counts.delivered,
            "unread_tokens": counts.unread,
            "requests": counts.requests,
            "rested_ms": counts.rested_s * 1000,
        }
