"""Hearing: the user's side of a session. Ear and transcriber listen, the floor decides, and it is done here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from server import events as e
from server.cast import Cast
from server.commands import InterruptUpdate, TurnUpdate
from server.ear import Ear, EarEvent
from server.errors import STTError
from server.floor import (
    Act,
    Announce,
    Discard,
    Draft,
    End,
    Floor,
    Forget,
    Interrupt,
    Pause,
    Peek,
    Resume,
    Settled,
    State,
)
from server.pipelines.barge_in import InterruptRules, Verdict
from server.podium import Podium
from server.rack import Rack
from server.settings import Settings
from server.telemetry import RESUMED
from server.timeline import Timeline
from server.transcriber import Transcriber
from server.turns import Ended

BREATH_S = 0.25  # a shorter pause belongs to the way one speaks: to talk into it is worse than to wait for its end


class Hearing:
    """`over` takes the turns that have ended, `interrupt` ends what sounds; `clock` in seconds."""

    def __init__(
        self,
        rack: Rack,
        cast: Cast,
        settings: Settings,
        podium: Podium,
        clock: Callable[[], float],
        over: Callable[[Ended], None],
        interrupt: Callable[[str], Awaitable[None]],
    ) -> None:
        self._cast, self._settings, self._podium, self._clock = cast, settings, podium, clock
        self._over, self._interrupt = over, interrupt
        self.floor = Floor(settings.interrupt, settings.language, speculative=settings.turn.speculative)
        self.transcriber = Transcriber(rack.stt.open(settings.language), self._partial)
        self.ear = Ear(
            rack.vad.open(),
            self.transcriber,
            settings.turn,
            self._on,
            input_rate=settings.audio.input_rate,
            turnend=rack.turnend,
            on_error=podium.fail,
        )
        self._lull: float | None = None  # the clock's time at which the silence began, until it is over
        self._group: asyncio.TaskGroup

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self.transcriber.run())
            self._group.create_task(self.ear.run())

    @property
    def dropped_ms(self) -> float:
        return self.ear.dropped_ms + self.transcriber.dropped_ms

    async def update(self, turn: TurnUpdate | None, interrupt: InterruptUpdate | None) -> None:
        """Take what the client set of the rules."""
        if turn:
            rules = self.ear.rules.model_copy(update=turn.model_dump(exclude_none=True))
            if rules.mode != self.ear.rules.mode:
                await self.clear()  # a turn that was begun in one mode cannot end in the other
            self.ear.rules = rules
            self.floor.speculative = rules.speculative
        if interrupt:
            told = self.floor.rules.model_dump() | interrupt.model_dump(exclude_none=True)
            self.floor.rules = InterruptRules.model_validate(told)

    def rules(self) -> dict[str, Any]:
        """What it takes to interrupt, as a client is told."""
        told = self.floor.rules.model_dump()
        return told | {"backchannels": list(self.floor.rules.listed(self._settings.language))}

    async def clear(self) -> None:
        """Forget what the user is saying; a reply that was paused for it goes on."""
        self.ear.clear()
        for act in self.floor.clear():
            await self._act(act)

    async def conclude(self, ended: Ended, timeline: Timeline) -> str:
        """The final text of a turn that is over; "" if nothing was understood, or it was no turn after all.

        Raises `STTError`; a paused reply goes on then."""
        timeline.mark("turn_end")
        try:
            text = (await self.transcriber.finish()).text.strip()
        except STTError:
            self._resume("noise")
            raise
        timeline.mark("transcript")
        if ended.contested and self.floor.verdict(text) is Verdict.RESUME:
            self._resume("backchannel" if text else "noise")
            return ""
        return text

    def overtaken(self) -> None:
        """An answer has begun. If the user already talks on, it is held until it is clear whose turn it is."""
        if self.ear.voiced and self.floor.contest(self._podium.answering):
            self._podium.pause("speech")

    def joined(self) -> None:
        """What was typed, or is only to be said, has begun. If the user talks, it waits until they have finished; of
        what they said then the final text decides, for voice that was there before is no interruption."""
        if self.ear.voiced and self.floor.hold():
            self._podium.pause("speech")

    def _partial(self, text: str) -> None:
        self.floor.text = text
        if text and self.floor.state is not State.DEAF:
            self._podium.stage.outbox.tell(e.TranscriptPartial(text))

    async def _on(self, event: EarEvent | Settled) -> None:
        for act in self.floor.step(event, self._podium.answering):
            await self._act(act)

    async def _act(self, act: Act) -> None:
        match act:
            case Announce(started, at_ms):
                at_ms = round(at_ms if at_ms >= 0 else self.ear.now_ms, 1)
                self._podium.stage.outbox.tell(e.UserStarted(at_ms) if started else e.UserStopped(at_ms))
            case Pause():
                self._podium.pause("speech")
            case Resume(reason):
                self._resume(reason)
            case Interrupt():
                await self._interrupt("speech")
            case Peek(at_ms):
                self._lull = self._when(at_ms)
                self._group.create_task(self._peek(self._lull))
            case Draft(text) if self._lull is not None:  # the user may have gone on while what sounded was ended
                cast = self._cast.addressed(text, self._settings.characters.answer)
                self._podium.prepare(text, cast, Timeline(self._clock, self._lull))
            case Discard():
                self._lull = None
                await self._podium.discard()
            case Forget(told):
                self._lull = None
                self.ear.forget()
                if told:
                    self._podium.stage.outbox.tell(e.TranscriptFinal("", self._podium.turn))
            case End(at_ms, contested):
                self._lull = None
                self._over(Ended(self._when(at_ms), contested))

    def _when(self, at_ms: float) -> float:
        """The clock's time at `at_ms` of the audio."""
        return self._clock() - (self.ear.now_ms - at_ms) / 1000

    async def _peek(self, lull: float) -> None:
        try:
            text = "" if self.floor.hummed else (await self.transcriber.peek()).text
        except STTError:  # told when the turn ends
            return
        if self.floor.passes(text):
            await asyncio.sleep(lull + BREATH_S - self._clock())
        if self._lull == lull:
            await self._on(Settled(text))

    def _resume(self, reason: str) -> None:
        if self.floor.holding:  # the voice is back, and holds it anew
            return
        if (reply := self._podium.reply) and reply.paused:
            RESUMED.labels(reason).inc()
        self._podium.resume("speech", reason)
