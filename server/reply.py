"""A reply: one character thinks and speaks at once, can be held back, paused and resumed, and knows what was heard.

    tokens -> prose -> sentences -> [queue] -> speaker -> frames -> [queue] -> pacer -> outbox

Each queue is bounded, so a listener who has enough ahead of him pauses synthesis, and that the model.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum, auto

from server.audio import Resampler, milliseconds
from server.errors import EngineError
from server.events import (
    Error,
    Event,
    OfReply,
    ReplyAudio,
    ReplyDone,
    ReplyPaused,
    ReplyResumed,
    ReplySentence,
    ReplyStarted,
    ReplyText,
)
from server.outbox import Outbox
from server.packing import Packing, Plain
from server.pipelines.engines import Speaker
from server.pipelines.pacer import Pacer
from server.pipelines.prose import Prose, speakable
from server.pipelines.sentences import sentences
from server.spoken import Spoken, split_at
from server.timeline import Timeline

SENTENCES_AHEAD = 1  # thought beyond the one that is being made


class Phase(Enum):
    THINKING = auto()  # nothing has left for the listener yet
    SPEAKING = auto()
    DONE = auto()


@dataclass(frozen=True)
class Stage:
    """Where replies sound: the way to the client, the clock, and the audio it is given. Times in ms, rate in Hz.
    `clause_ms`: the model's first sentence, once it takes longer, is begun at its first clause; 0: never."""

    outbox: Outbox
    clock: Callable[[], float]
    output_rate: int
    lead_ms: float = 300
    ahead_ms: float = 4_000
    clause_ms: float = 0
    language: str = "en"
    on_error: Callable[[EngineError], None] = lambda error: None
    packing: Callable[[], Packing] = Plain  # for one reply
    least_lead_ms: float = 0  # what the packing cannot do without


class Reply:
    """One turn of one character's. `tokens` is what it thinks, `speaker` (at `rate` Hz) how it sounds.

    Nothing is told to the client before `release`, which takes its `id` from `ids` (0 until then: a draft that is
    thrown away leaves no gap in the numbers); `run` ends when all of it has been heard."""

    def __init__(
        self,
        ids: Iterator[int],
        turn: int,
        character: str,
        tokens: AsyncGenerator[str, None],
        speaker: Speaker,
        rate: int,
        stage: Stage,
        timeline: Timeline,
        *,
        names: Sequence[str] = (),
    ) -> None:
        self.id, self.turn, self.character = 0, turn, character
        self.timeline = timeline
        self.phase = Phase.THINKING
        self.thought = asyncio.Event()  # the text is complete
        self.text = ""
        self._ids, self._tokens, self._speaker, self._stage = ids, tokens, speaker, stage
        self._prose = Prose(names)
        self.pacer = Pacer(stage.lead_ms, stage.clock)
        self._resampler = Resampler(rate, stage.output_rate)
        self._sentences: asyncio.Queue[str | None] = asyncio.Queue(SENTENCES_AHEAD)
        self._packing = stage.packing()
        ahead = int(stage.ahead_ms / self._packing.least_ms)
        self._frames: asyncio.Queue[bytes | None] = asyncio.Queue(max(1, ahead))
        self._rest = b""
        self._made_ms = 0.0
        self._spoken: list[Spoken] = []
        self._told = 0  # sentences
        self._held: list[Event] | None = [ReplyStarted(0, turn, character)]
        self._released = asyncio.Event()
        self._pauses: set[str] = set()
        self._mute = False  # the voice has failed

    def _tell(self, event: Event) -> None:
        if self._held is not None:
            self._held.append(event)
        else:
            self._stage.outbox.tell(event)

    def release(self) -> None:
        """From now on it is told and heard."""
        self.id = next(self._ids)
        held, self._held = self._held or [], None
        for event in held:
            self._stage.outbox.tell(replace(event, reply=self.id) if isinstance(event, OfReply) else event)
        self._released.set()

    async def run(self) -> None:
        """Think and speak until all of it has been heard. Engines' failures are told, and end it early."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._think())
            group.create_task(self._voice())
            await self._speak()
        await self.pacer.heard_out()
        await self._stage.outbox.emptied()  # where the clock alone counts, a slow client is behind it
        self.phase = Phase.DONE
        await self._stage.outbox.put(ReplyDone(self.id, self.heard()[0], round(self._made_ms, 1)))

    async def _think(self) -> None:
        patience_s = self._stage.clause_ms / 1000 or None
        split = sentences(self._shown(), patience_s=patience_s, language=self._stage.language)
        try:
            async with aclosing(split) as pieces:
                async for sentence in pieces:
                    self.timeline.mark("first_sentence")
                    await self._sentences.put(sentence)
        except EngineError as error:
            self._fail(error)
        self.thought.set()
        await self._sentences.put(None)

    async def _shown(self) -> AsyncGenerator[str, None]:
        """The tokens as the user may see them."""
        async with aclosing(self._tokens) as tokens:
            async for token in tokens:
                self.timeline.mark("first_token")
                if (text := self._show(self._prose.push(token))) or not token:  # empty: the sentence is whole
                    yield text
        if text := self._show(self._prose.close()):
            yield text

    def _show(self, text: str) -> str:
        if text:
            self.text += text
            self._tell(ReplyText(self.id, text))
        return text

    async def _voice(self) -> None:
        while (sentence := await self._sentences.get()) is not None:
            if self._mute:
                continue
            spoken = Spoken(sentence, self._made_ms)
            self._spoken.append(spoken)
            try:
                await self._synthesise(spoken)
            except EngineError as error:
                self._fail(error)
                self._mute = True
                self._spoken.pop()  # of a sentence that broke off nobody knows what was heard
            spoken.end_ms = self._made_ms
        await self._cut(self._resampler.push(b"", last=True), last=True)
        await self._frames.put(None)

    async def _synthesise(self, spoken: Spoken) -> None:
        async with aclosing(self._speaker.speak(speakable(spoken.text))) as speech:
            async for piece in speech:
                self.timeline.mark("first_audio")
                spoken.words.extend(piece.words)
                await self._cut(self._resampler.push(piece.pcm))

    async def _cut(self, pcm: bytes, *, last: bool = False) -> None:
        """Queue `pcm` in what travels together; the last may be short."""
        self._made_ms += milliseconds(pcm, self._stage.output_rate)
        whole, self._rest = self._packing.cut(self._rest + pcm, self._stage.output_rate, last=last)
        for frame in whole:
            await self._frames.put(frame)

    async def _speak(self) -> None:
        await self._released.wait()
        while (frame := await self._frames.get()) is not None:
            rate = self._stage.output_rate
            event = await self._packing.pack(self.id, round(self.pacer.sent_ms, 2), frame, rate)
            await self.pacer.wait(milliseconds(frame, rate))
            self._tell_sentences(self.pacer.sent_ms)
            if self.phase is Phase.THINKING:
                self.phase = Phase.SPEAKING
                await self._stage.outbox.put(ReplyAudio(self.id, self._packing.rate(rate), self._packing.format))
                self.timeline.mark("first_sent")
            await self._stage.outbox.put(event)
        self._tell_sentences(float("inf"))

    def _tell_sentences(self, upto_ms: float) -> None:
        while self._told < len(self._spoken) and self._spoken[self._told].start_ms < upto_ms:
            spoken = self._spoken[self._told]
            self._tell(ReplySentence(self.id, self._told, spoken.text, round(spoken.start_ms, 1)))
            self._told += 1

    def _fail(self, error: EngineError) -> None:
        self._stage.on_error(error)
        self._tell(Error.of(error))

    def pause(self, reason: str) -> None:
        """Hold the audio. Each reason must be resumed by itself."""
        if not self._pauses:
            self.pacer.pause()
            self._tell(ReplyPaused(self.id, round(self.heard_ms, 1), reason))
        self._pauses.add(reason)

    def resume(self, reason: str, told: str | None = None) -> None:
        """Lift the pause made for `reason`; the client is told `told`. The audio goes on from where it stopped."""
        if reason not in self._pauses:
            return
        self._pauses.discard(reason)
        if not self._pauses:
            self.pacer.resume()
            self._tell(ReplyResumed(self.id, round(self.heard_ms, 1), told or reason))

    def played(self, ms: float) -> None:
        """The client's word: so much of it has sounded."""
        if ms > 0:
            self.timeline.mark("first_heard")
        self.pacer.played(ms)

    @property
    def heard_ms(self) -> float:
        return self.pacer.heard_ms()

    @property
    def paused(self) -> bool:
        return bool(self._pauses)

    def sounding(self) -> Spoken | None:
        """The sentence that sounds."""
        if self.phase is not Phase.SPEAKING or self.paused:
            return None
        return next((s for s in reversed(self._spoken) if s.start_ms <= self.heard_ms), None)

    def heard(self) -> tuple[str, str]:
        """What was heard of its text, to the word, and what was not."""
        return split_at(self._spoken, self.text, self.heard_ms, complete=self.phase is Phase.DONE)
