"""A small offline conversationalist, for when no language model is there. It needs nothing and knows little."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from random import Random

from server.pipelines.engines import LLMSettings, Message
from server.pipelines.llm._options import number, whole_number
from server.pipelines.llm._parts import NOTICE, PLAIN, TONES, Tone
from server.pipelines.llm._talk import Turn, answer

_OTHERS_LINE = re.compile(r"[^\W\d_][\w .'-]{0,30}: ")
_ME = re.compile(r"\byou are ([A-Z][\w'-]*(?: [A-Z][\w'-]*)*)", re.IGNORECASE)
_USER = re.compile(r"\b(?:my name is|my name's|call me|i am called) ([^\W\d_][\w'-]{0,19})", re.IGNORECASE)
_NO_NAME = ("a", "an", "the", "not", "what", "no", "your", "so", "very", "just", "when", "if")


def create(*, seed: int | str = 0, delay_s: float | str = 0.0) -> "Eliza":
    """`seed`: another one answers otherwise. `delay_s`: seconds before each word, to seem like a model."""
    chance, delay = whole_number("seed", seed, -math.inf), number("delay_s", delay_s)
    return Eliza(seed=chance or 0, delay_s=delay or 0)


class Eliza:
    """The engine. It keeps nothing: whom it speaks for and to, and what was said, it reads from the messages."""

    name = "eliza"
    notice = NOTICE

    def __init__(self, *, seed: int = 0, delay_s: float = 0.0, now: Callable[[], datetime] = datetime.now) -> None:
        self._seed, self._delay_s, self._now = seed, delay_s, now

    async def start(self) -> None:
        return None

    async def stop(self) -> None:
        return None

    async def stream(self, messages: Sequence[Message], settings: LLMSettings) -> AsyncIterator[str]:
        """The reply, word by word. Raises nothing."""
        said = answer(self._turn(messages))
        for stop in settings.stop:
            said = said.split(stop)[0] if stop else said
        for word in re.findall(r"\s*\S+", said)[: settings.max_tokens]:
            await asyncio.sleep(self._delay_s)
            yield word

    def _turn(self, messages: Sequence[Message]) -> Turn:
        asked = [message.content for message in messages if message.role == "user"]
        told = [message.content for message in messages if message.role == "assistant"]
        system = "\n".join(message.content for message in messages if message.role == "system")
        heard = (_of_the_user(asked[-1]) or asked[-1].splitlines() or [""])[-1] if asked else ""
        chance = Random(f"{self._seed}/{len(messages)}/{heard}")
        return Turn(heard, told, _own_name(system), _users_name(asked), _tone(system), self._now(), chance)


def _of_the_user(content: str) -> list[str]:
    """The user's own lines of a message; other characters' come in it as well, each after a name."""
    return [line for line in content.strip().splitlines() if not _OTHERS_LINE.match(line)]


def _own_name(system: str) -> str:
    named = _ME.search(system)
    return named[1] if named and named[1][0].isupper() else ""


def _users_name(asked: Sequence[str]) -> str:
    lines = [line for content in asked for line in _of_the_user(content)]
    names = [name for line in lines for name in _USER.findall(line) if name.lower() not in _NO_NAME]
    return names[-1][:1].upper() + names[-1][1:] if names else ""


def _tone(system: str) -> Tone:
    lowered = system.lower()
    tone = next((t for t in TONES if any(re.search(rf"\b{word}\b", lowered) for word in t.words)), PLAIN)
    return tone if tone is PLAIN else Tone(tone.words, tone.openers, (*tone.asks, *PLAIN.asks), tone.story)
