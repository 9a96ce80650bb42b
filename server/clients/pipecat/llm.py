"""A language model in chunks, for pipecat: it rests while what it wrote is spoken, and stops within a token."""

import asyncio
from contextlib import aclosing
from typing import Any

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    CancelFrame,
    EndFrame,
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings
from pipecat.utils.types import is_given

from server.clients.answers import FIRST, SENTENCE, Answer, Answers, Bill, Pause
from server.clients.pipecat.words import WORD_S
from server.errors import ParleyError

ROLES = ("system", "developer", "user", "assistant")


class ParleyLLMService(LLMService):
    """`url` is like `ws://localhost:8000/ws/llm`. The first chunk ends as `first` says, for a quick start, the others
    as `then` says. `ahead_s`: how much speech may wait to be heard before the model rests; None: it never rests.

    `bill` is what the last answer took: tokens made for nobody, and how long the model rested."""

    Settings = LLMSettings

    def __init__(
        self,
        *,
        url: str = "ws://localhost:8000/ws/llm",
        token: str = "",
        first: Pause = FIRST,
        then: Pause = SENTENCE,
        ahead_s: float | None = 6.0,
        settings: LLMSettings | None = None,
        **options: Any,
    ) -> None:
        nothing: dict[str, Any] = dict.fromkeys(
            ("model", "system_instruction", "temperature", "max_tokens", "top_p", "top_k", "frequency_penalty",
             "presence_penalty", "seed", "user_turn_completion_config")
        )  # fmt: skip
        chosen = LLMSettings(**nothing, filter_incomplete_user_turns=False)
        if settings is not None:
            chosen.apply_update(settings)
        super().__init__(settings=chosen, **options)
        self.bill = Bill()
        self._answers = Answers(url, token=token)
        self._first, self._then, self._ahead_s = first, then, ahead_s
        self._speaking_since: float | None = None

    def can_generate_metrics(self) -> bool:
        return True

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._answers.__aexit__()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._answers.__aexit__()

    async def run_inference(
        self,
        context: LLMContext,
        max_tokens: int | None = None,
        system_instruction: str | None = None,
        response_schema: dict[str, Any] | None = None,
    ) -> str | None:
        answer = await self._asked_of(context, Pause(), system_instruction, max_tokens)
        try:
            return "".join([delta async for delta in answer.flow(Pause())])
        finally:
            await self._finish(answer)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, BotStartedSpeakingFrame):
            self._speaking_since = asyncio.get_running_loop().time()
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await self.start_processing_metrics()
        try:
            await self._answer(frame.context)
        except ParleyError as error:
            await self.push_error(error_msg=f"Parley: {error}", exception=error)
        finally:
            await self.stop_processing_metrics()
            await self.push_frame(LLMFullResponseEndFrame())

    async def _answer(self, context: LLMContext) -> None:
        await self.start_ttfb_metrics()
        self._speaking_since = None
        answer = await self._asked_of(context, self._first)
        try:
            while not answer.done:
                async with aclosing(answer.chunk(self._then)) as deltas:
                    async for delta in deltas:
                        await self.stop_ttfb_metrics()
                        await self._push_llm_text(delta)
                if not answer.done:
                    await self._rest(answer)
        finally:  # an interruption ends us here: the model is to stop too
            await self._finish(answer)

    async def _asked_of(
        self, context: LLMContext, pause: Pause, instruction: str | None = None, max_tokens: int | None = None
    ) -> Answer:
        own = self._settings
        asked = await self.get_llm_adapter().get_llm_invocation_params(
            context, system_instruction=instruction or own.system_instruction, convert_developer_to_user=False
        )
        wanted = {name: getattr(own, name) for name in ("model", "temperature", "max_tokens", "top_p")}
        wanted |= {"max_tokens": max_tokens} if max_tokens else {}
        given = {name: value for name, value in wanted.items() if is_given(value) and value is not None}
        return await self._answers.start([_plain(m) for m in asked["messages"] if m["role"] in ROLES], pause, **given)

    async def _rest(self, answer: Answer) -> None:
        """Wait until what was written is nearly heard, as far as that can be known."""
        if self._ahead_s is None or self._speaking_since is None:
            return
        heard_at = self._speaking_since + len(answer.text.split()) * WORD_S
        await asyncio.sleep(max(0.0, heard_at - self._ahead_s - asyncio.get_running_loop().time()))

    async def _finish(self, answer: Answer) -> None:
        try:
            async with asyncio.timeout(2):
                self.bill = await answer.end()
        except (ParleyError, TimeoutError):
            return


def _plain(message: Any) -> dict[str, str]:
    """A message of pipecat's, its parts of text joined."""
    content = message["content"]
    if not isinstance(content, str):
        content = " ".join(part.get("text", "") for part in content or ())
    return {"role": message["role"], "content": content}
