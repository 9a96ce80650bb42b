"""One voice in one conversation: its rolling context, and its utterances, one at a time."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace

from server.errors import EngineError, TTSError
from server.pipelines.engines import Speech, Word
from server.pipelines.tts._higgs.delay import Codes
from server.pipelines.tts._higgs.machine import Machine
from server.pipelines.tts._higgs.outlet import LoopOutlet
from server.pipelines.tts._higgs.rolling import Asked, Rolling
from server.pipelines.tts._higgs.stream import Stream
from server.pipelines.tts._higgs.timbre import Timbre
from server.pipelines.tts._higgs.windows import FRAME_MS
from server.pipelines.tts._higgs.words import Habit


class HiggsSpeaker:
    """Fulfils `Speaker`. Made with the voice's beginning already under way, so that it is read when it is needed."""

    def __init__(self, machine: Machine, timbre: Timbre) -> None:
        self._machine, self._timbre = machine, timbre
        self._head = machine.head(timbre)
        self._rolling: Rolling | None = None
        self._one = asyncio.Lock()
        self._key = object()
        self._seed = timbre.how.seed if timbre.seeded else random.getrandbits(32)
        self._plays_until = 0.0
        self._habit = Habit()
        self._closed = False

    async def speak(self, text: str) -> AsyncIterator[Speech]:
        """See `Speaker.speak`. The last piece tells the times of all words once more, corrected."""
        if not text.strip():
            return
        async with self._one:
            outlet = LoopOutlet(self._machine.options.ahead_s * 1000, self._machine.worker.wake)
            stream = await self._stream(text, outlet)
            self._machine.worker.submit(stream)
            words: dict[int, Word] = {}
            try:
                while (speech := await outlet.get()) is not None:
                    words.update({word.start: word for word in speech.words})
                    yield speech
            finally:
                self._remember(stream, outlet, words)

    async def close(self) -> None:
        """What was kept of it is dropped."""
        self._closed = True
        self._machine.worker.order(lambda: self._machine.keeping.prefixes.drop(self._key))

    async def _stream(self, text: str, outlet: LoopOutlet) -> Stream:
        if self._closed:
            raise TTSError("this speaker has been closed")
        if self._rolling is None:
            self._rolling = self._begin(await self._tokens())
        asked: Asked = await asyncio.to_thread(self._rolling.ask, text)
        self._seed = (self._seed * 1664525 + 1013904223) & 0xFFFFFFFF
        return Stream(
            text=text,
            prompt=asked.tokens,
            context=asked.context,
            head=asked.head,
            speaker=self._key,
            voice=self._timbre.key,
            how=replace(self._timbre.how, seed=self._seed),
            limit=min(self._machine.longest, self._machine.options.length - len(asked.tokens)),
            outlet=outlet,
            plays_until=self._plays_until,
            character_ms=self._habit.character_ms,
        )

    async def _tokens(self) -> Codes:
        try:
            return await asyncio.wrap_future(self._head)
        except EngineError:
            self._head = self._machine.head(self._timbre)  # the next utterance tries again
            raise

    def _begin(self, head: Codes) -> Rolling:
        machine, timbre = self._machine, self._timbre
        return Rolling(
            machine.prompts, head, timbre.context, machine.options.length, machine.longest, timbre.recording is not None
        )

    def _remember(self, stream: Stream, outlet: LoopOutlet, words: dict[int, Word]) -> None:
        """Let the context know what was spoken, and stop what is still being made."""
        assert self._rolling is not None
        if stream.complete and outlet.empty:
            self._plays_until = stream.plays_until
            if stream.said.frames:
                self._habit.learn(stream.timings)
                self._rolling.spoke(stream.text, stream.said.remembered())
            return
        self._machine.worker.cancel(stream)
        self._plays_until = 0.0
        heard = [word.end for word in words.values() if word.end_ms <= outlet.taken_ms]
        rows = stream.said.remembered(int(outlet.taken_ms / FRAME_MS))
        self._rolling.cut_off(stream.text[: max(heard, default=0)], rows)
