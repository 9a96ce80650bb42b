"""The ear: one user's microphone in, the events of their turns out."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from server.audio import SAMPLE, Resampler, frames, milliseconds, to_float
from server.errors import EngineError
from server.pipelines.engines import FRAME, HEARING_RATE, Detector, TurnEnd
from server.pipelines.hum import hummed
from server.pipelines.turn import FalseStart, Lulled, Phase, Started, Stopped, TurnEvent, TurnMachine, TurnRules
from server.transcriber import Transcriber

FRAME_MS = FRAME / HEARING_RATE * 1000
BUFFER_MS = 12_000  # microphone audio not yet looked at, more than the meter lets in at once; the oldest is dropped
PREROLL = 10  # frames before an onset that the recogniser gets: the VAD notices a word after it has begun
STALL_S = 0.6  # a microphone whose next frame is so late in mid-speech is taken for silence
JUDGED_FRAMES = int(8_000 / FRAME_MS)  # what a semantic end-of-turn model looks at


@dataclass(frozen=True)
class Talking:
    """One more frame of a turn that is under way."""

    voiced_ms: float


@dataclass(frozen=True)
class Hummed:
    """Silence since `at_ms`, and all that was heard of the turn is a hum."""

    at_ms: float


EarEvent = TurnEvent | Talking | Hummed


class Ear:
    """Hears one user. `on` is awaited with every event, in order, and should be quick: the microphone waits."""

    def __init__(
        self,
        detector: Detector,
        transcriber: Transcriber,
        rules: TurnRules,
        on: Callable[[EarEvent], Awaitable[None]],
        *,
        input_rate: int = HEARING_RATE,
        turnend: TurnEnd | None = None,
        on_error: Callable[[EngineError], None] = lambda error: None,
    ) -> None:
        self._detector, self._transcriber, self._turnend, self._on = detector, transcriber, turnend, on
        self._on_error = on_error
        self._trouble: EngineError | None = None  # why no voice can be told from silence
        self._machine = TurnMachine(rules, FRAME_MS)
        self._mic: deque[bytes | None] = deque()  # at 16 kHz; None: the turn is to end here
        self._mic_ms = 0.0
        self._period_s = 0.0  # how long the last frame was, and so how far from the next
        self._wake = asyncio.Event()
        self._rest = b""
        self._preroll: deque[bytes] = deque(maxlen=PREROLL)
        self._turn: deque[bytes] = deque(maxlen=JUDGED_FRAMES)
        self._now = self._heard = (
            0.0  # ms looked at; and up to where that was audio, not made up for a stalled microphone
        )
        self._padded = 0.0  # ms that were made up before that
        self._open = False  # manual mode: a turn is being recorded
        self.dropped_ms = 0.0
        self.set_rate(input_rate)

    def set_rate(self, rate: int) -> None:
        """From now on `hear` is given PCM at `rate` Hz."""
        self._rate = rate
        self._resampler = Resampler(rate, HEARING_RATE, "MQ")

    @property
    def rules(self) -> TurnRules:
        return self._machine.rules

    @rules.setter
    def rules(self, rules: TurnRules) -> None:
        """Between two modes the turn under way must be forgotten."""
        self._machine.rules = rules

    @property
    def talking(self) -> bool:
        """Whether the user is in the middle of a turn."""
        return self._open or self.voiced

    @property
    def voiced(self) -> bool:
        """Whether a voice is heard. In manual mode nobody listens for one, and the microphone may stay open."""
        return self._machine.phase is not Phase.QUIET

    @property
    def now_ms(self) -> float:
        """The audio looked at so far."""
        return self.at(self._now)

    def hear(self, pcm: bytes) -> None:
        """Take PCM of any length; the oldest is dropped if it is not looked at in time."""
        self._period_s = milliseconds(pcm, self._rate) / 1000
        heard = self._resampler.push(pcm)
        self._mic.append(heard)
        self._mic_ms += milliseconds(heard, HEARING_RATE)
        while self._mic_ms > BUFFER_MS:
            self._drop_oldest()
        self._wake.set()

    def _drop_oldest(self) -> None:
        at = next(at for at, piece in enumerate(self._mic) if piece)  # the end of a turn stays
        lost = milliseconds(self._mic[at] or b"", HEARING_RATE)
        del self._mic[at]
        self._mic_ms -= lost
        self.dropped_ms += lost

    def commit(self) -> None:
        """The user's turn ends after the audio heard so far, whatever the silence. No turn, no event."""
        self._mic.append(None)
        self._wake.set()

    async def _end(self) -> None:
        if self.talking:
            self._machine.reset()
            self._open = False
            await self._on(Stopped(self.at(self._now)))

    def forget(self) -> None:
        """Drop the turn under way."""
        self._machine.reset()
        self._open = False
        self._transcriber.forget()

    def clear(self) -> None:
        """Drop the turn under way, one that waits for its text, and what was received and not yet looked at."""
        self._received(self._mic_ms)
        self._mic.clear()
        self._mic_ms = 0.0
        self.forget()
        self._transcriber.clear()

    def at(self, now: float) -> float:
        """A time of the turn machine's as ms of audio received."""
        return max(0.0, min(now, self._heard) - self._padded)

    def _received(self, ms: float) -> None:
        self._padded += self._now - self._heard
        self._now += ms
        self._heard = self._now

    async def run(self) -> None:
        """Listen until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            while True:
                await self._look()
                await self._more()

    async def _more(self) -> None:
        """Wait for audio; in mid-speech, make up silence for a microphone that stalls."""
        self._wake.clear()
        try:
            async with asyncio.timeout(self._period_s + STALL_S if self.voiced else None):
                await self._wake.wait()
        except TimeoutError:
            await self._pad()

    async def _pad(self) -> None:
        while self.voiced and not self._mic:
            self._now += FRAME_MS
            await self._step(bytes(FRAME * SAMPLE), 0.0)

    async def _look(self) -> None:
        while self._mic:
            if (pcm := self._mic.popleft()) is None:
                await self._end()
                continue
            self._mic_ms -= milliseconds(pcm, HEARING_RATE)
            whole, self._rest = frames(self._rest + pcm, FRAME * SAMPLE)
            for frame in whole:
                self._received(FRAME_MS)
                if self.rules.mode == "manual":
                    await self._record(frame)
                else:
                    await self._step(frame, await self._voice(frame))

    async def _voice(self, frame: bytes) -> float:
        """The probability of voice in `frame`. While the detector fails, which is told once, all is silence."""
        try:
            probability = await self._detector.push(to_float(frame))
        except EngineError as error:
            if self._trouble is None:
                self._on_error(error)
            self._trouble = error
            return 0.0
        self._trouble = None
        return probability

    async def _record(self, frame: bytes) -> None:
        self._transcriber.feed(frame)
        if not self._open:
            self._open = True
            await self._on(Started(self.at(self._now - FRAME_MS)))

    async def _step(self, frame: bytes, probability: float) -> None:
        before = self._machine.phase
        events = self._machine.step(probability, self._now)
        self._pass_on(frame, fresh=before is Phase.QUIET, over=any(isinstance(e, FalseStart) for e in events))
        for event in events:
            if isinstance(event, Lulled) and hummed(b"".join(self._turn)):
                await self._on(Hummed(self.at(event.at_ms)))
            await self._on(type(event)(self.at(event.at_ms)))
            if isinstance(event, Lulled) and self._turnend:
                self._group.create_task(self._judge(self._turnend))
        if self.voiced:
            await self._on(Talking(self._machine.voiced_ms))

    def _pass_on(self, frame: bytes, *, fresh: bool, over: bool) -> None:
        """The recogniser gets the turn and what just preceded it, and nothing of a false start."""
        if over:
            self._transcriber.forget()
        if self._machine.phase is Phase.QUIET:
            self._preroll.append(frame)
            return
        if fresh:
            self._turn.clear()
            self._transcriber.feed(b"".join(self._preroll))
            self._preroll.clear()
        self._transcriber.feed(frame)
        self._turn.append(frame)

    async def _judge(self, turnend: TurnEnd) -> None:
        with suppress(EngineError):  # without its opinion the silence decides
            self._machine.judge(await turnend.complete(to_float(b"".join(self._turn))))
