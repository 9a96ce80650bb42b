"""A language model that says what it is told to, and what is asked of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from server.pipelines.chunking import Generation, Stop
from server.pipelines.engines import LLMSettings, Message
from tests.llm_server import tokens

HELLO = [Message("system", "Be brief."), Message("user", "Hello")]
SENTENCE = Stop(sentence=True)
MARKED = "“One? Two.”\n\nDr. No, e.g. him: 3.14.\n1. A b.\n2. C d…  Then…  so it went!  Yes?! 你好。我很好！ The end"
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
