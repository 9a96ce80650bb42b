"""A session: one conversation. One reader, one writer, one who hears, and the turns one at a time.

All are tasks of one block and gone when it ends. What sounds is on the `Podium`; `Hearing` is the user's side.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial

from server import commands as c
from server import events as e
from server.cast import Cast
from server.errors import ConfigError, LimitError, ParleyError, ProtocolError, STTError, leaves
from server.hearing import Hearing
from server.history import History
from server.outbox import Outbox
from server.packing import FRAME_MS, LEAD_MS, Tokens
from server.pipelines.engines import Codec
from server.podium import Podium
from server.rack import Rack
from server.reply import Stage
from server.settings import Settings
from server.telemetry import DROPPED
from server.timeline import Timeline
from server.turns import Ended, Steered, Steering, Told, Turn, Turns, Typed

Write = Callable[[e.Event], Awaitable[None]]
Received = c.Command | bytes | ProtocolError


class Disconnected(Exception):
    """The client has left."""


class Session:
    """`clock` in seconds. A `history` is given to take a lost conversation up again. `tokens`: the codec of a client
    that decodes for itself."""

    def __init__(
        self,
        id: str,
        rack: Rack,
        cast: Cast,
        settings: Settings,
        clock: Callable[[], float],
        *,
        history: History | None = None,
        greet: bool = False,
        tokens: Codec | None = None,
    ) -> None:
        self.id, self.cast = id, cast
        self.resumed, self._greet = history is not None, greet
        self.history = history or History()
        self._rack, self._settings, self._clock = rack, settings, clock
        audio = settings.audio
        self.outbox = Outbox(audio_items=int(audio.lead_ms / FRAME_MS))
        rate = audio.output_rate or rack.tts().rate
        stage = Stage(self.outbox, clock, rate, audio.lead_ms, audio.ahead_ms, audio.clause_ms, settings.language)
        if tokens:
            stage = replace(stage, packing=partial(Tokens, tokens), least_lead_ms=LEAD_MS)
        self.podium = Podium(rack, cast, self.history, stage, settings.characters.instructions)
        self._turns = Turns()
        self.hearing = Hearing(rack, cast, settings, self.podium, clock, self._queue, self.interrupt)
        self._over: asyncio.Future[LimitError] = asyncio.get_running_loop().create_future()
        self.input_rate, self._active_at = audio.input_rate, clock()

    async def run(self, received: AsyncIterator[Received], write: Write) -> None:
        """Converse until the client leaves. Raises `LimitError` when it must end."""
        try:
            async with asyncio.TaskGroup() as group:
                self.podium.group = group
                self.outbox.tell(self._described(e.SessionCreated))
                jobs = (self._read(received), self.hearing.run(), self._take_turns(), self._write(write), self._watch())
                for job in jobs:
                    group.create_task(job)
        except* Disconnected:
            pass
        except* LimitError as fatal:
            raise next(leaf for leaf in leaves(fatal) if isinstance(leaf, LimitError)) from None
        finally:
            await self.cast.close()
            DROPPED.labels("microphone_ms").inc(self.hearing.dropped_ms)
            DROPPED.labels("frames").inc(self.outbox.frames_dropped)

    def end(self, error: LimitError) -> None:
        """End the conversation for `error`'s reason."""
        if not self._over.done():
            self._over.set_result(error)

    async def drain(self, patience_s: float) -> None:
        """Let the sentence that sounds come to its end, then stop."""
        await self.podium.end_sentence(patience_s)
        try:
            await self.interrupt("shutdown")
        except LimitError as error:  # it cannot be told
            self.end(error)

    async def interrupt(self, reason: str) -> None:
        """The one interrupt path: whatever is said or prepared ends here."""
        await self.podium.discard()
        await self.podium.interrupt(reason)

    async def _watch(self) -> None:
        """End it when that was asked for, or when nothing has happened for too long."""
        while not self._over.done():
            await asyncio.wait([self._over], timeout=1.0)
            if self.podium.performing or self.hearing.ear.voiced:
                self._active_at = self._clock()
            if self._clock() - self._active_at > self._settings.server.idle_s:
                self.end(LimitError("nothing was said for too long (server.idle_s)", code="idle"))
        await self.interrupt("end")
        raise self._over.result()

    async def _write(self, write: Write) -> None:
        while True:
            await write(await self.outbox.get())

    async def _read(self, received: AsyncIterator[Received]) -> None:
        if self._greet and not self.history.entries and (greeting := self.cast.named(None).greeting):
            self._queue(Told(greeting, None, self._clock()))
        async for message in received:
            try:
                await self._take(message)
            except LimitError:
                raise
            except ParleyError as error:
                self.podium.fail(error)
        await self.interrupt("disconnect")  # what was heard until now is part of the history
        raise Disconnected

    async def _take(self, message: Received) -> None:
        if not isinstance(message, bytes | c.Ping | c.Playback):
            self._active_at = self._clock()
        match message:
            case bytes():
                self.hearing.ear.hear(message)
            case ProtocolError():
                raise message
            case c.Playback(reply=id, ms=ms):
                self.podium.played(id, ms)
            case c.UserText(text=text):
                await self.interrupt("text")
                self._queue(Typed(text, self._clock()))
            case c.Say(text=text, character=character):
                self.cast.named(character)
                self._queue(Told(text, character, self._clock()))
            case c.UserCommit():
                self.hearing.ear.commit()
            case c.UserClear():
                await self.hearing.clear()
            case c.ReplyInterrupt() | c.ReplyPause() | c.ReplyResume():
                await self._steer(message)
                if self._turns:
                    self._queue(Steered(message))
            case c.SessionUpdate():
                await self._update(message)
            case c.HistoryGet():
                self.outbox.tell(e.History([entry.body() for entry in self.history.entries]))
            case c.HistoryClear():
                self.history.clear()
                await self.podium.discard()
                self.outbox.tell(e.History([]))
            case c.Ping():
                self.outbox.tell(e.Pong())

    def _queue(self, turn: Turn) -> None:
        try:
            self._turns.put(turn)
        except LimitError as error:
            self.podium.fail(error)

    async def _steer(self, command: Steering) -> None:
        match command:
            case c.ReplyInterrupt():
                await self.interrupt("client")
            case c.ReplyPause():
                self.podium.pause("client")
            case c.ReplyResume():
                self.podium.resume("client")

    async def _take_turns(self) -> None:
        """Each turn in its order: its text, then its answer."""
        async for turn in self._turns:
            try:
                await self._begin(turn)
            except (STTError, ConfigError) as error:
                await self.podium.discard()
                self.podium.fail(error)

    async def _begin(self, turn: Turn) -> None:
        match turn:
            case Ended(origin):
                await self._take_spoken(turn, Timeline(self._clock, origin))
            case Typed(text, at):
                await self._answer(text, Timeline(self._clock, at), "text")
                self.hearing.joined()
            case Told(text, character, at):
                await self.podium.say(text, self.cast.named(character), Timeline(self._clock, at))
                self.hearing.joined()
            case Steered(command):
                await asyncio.sleep(0)  # so that the client is told of the reply that it steers
                await self._steer(command)

    async def _take_spoken(self, ended: Ended, timeline: Timeline) -> None:
        text = await self.hearing.conclude(ended, timeline)
        if text:
            await self._answer(text, timeline, "speech")
            self.hearing.overtaken()
        else:
            await self.podium.discard()
            self.outbox.tell(e.TranscriptFinal("", self.podium.turn))

    async def _answer(self, text: str, timeline: Timeline, kind: str) -> None:
        self.outbox.tell(e.TranscriptFinal(text, self.podium.turn + 1))
        await self.podium.answer(text, self.cast.addressed(text, self._settings.characters.answer), timeline, kind)

    async def _update(self, update: c.SessionUpdate) -> None:
        """Take all of `update`, or, where it names a character that does not exist, nothing of it."""
        await self.podium.discard()  # what is drafted goes by what held until now
        if ids := update.characters or ([update.character] if update.character is not None else []):
            self.cast.choose(ids)
        if update.input_rate:
            self.input_rate = update.input_rate
            self.hearing.ear.set_rate(update.input_rate)
        if update.output_rate:
            self.podium.stage = replace(self.podium.stage, output_rate=update.output_rate)
        if update.lead_ms:
            self.podium.lead(update.lead_ms)
        if update.instructions is not None:
            self.podium.instructions = update.instructions
        if update.llm:
            self.podium.llm = replace(self.podium.llm, **update.llm.model_dump(exclude_unset=True))
        await self.hearing.update(update.turn, update.interrupt)
        self.outbox.tell(self._described(e.SessionUpdated))

    def _described(self, event: type[e.SessionCreated]) -> e.SessionCreated:
        return event(
            session=self.id,
            input_rate=self.input_rate,
            output_rate=self.podium.stage.output_rate,
            characters=self.cast.cards(),
            available=self.cast.available(),
            engines=self._rack.names(),
            turn=self.hearing.ear.rules.model_dump(include={"mode", "silence_ms", "speculative"}),
            interrupt=self.hearing.rules(),
            lead_ms=self.podium.stage.lead_ms,
            resumed=self.resumed,
            notice=self._rack.llm.notice or None,
        )
