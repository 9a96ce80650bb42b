"""Who goes next: utterances share the slots of one model, join and leave between rows, none waits for another's end.

`tick` does a little of everything, once: takes cancelled utterances out, lets waiting ones in (first come, first
served), reads a piece of a prompt, makes one row for all that run, decodes and gives out what is due. Nothing here
knows of threads or of asyncio; time is a function."""

import logging
import math
from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from server.errors import EngineBusy, EngineError, TTSError
from server.pipelines.tts._higgs.clock import Clock
from server.pipelines.tts._higgs.codec import Codec
from server.pipelines.tts._higgs.delay import BOOKS, BOS
from server.pipelines.tts._higgs.keeping import Keeping
from server.pipelines.tts._higgs.reading import SHORT, TOGETHER, Part, Reader
from server.pipelines.tts._higgs.step import Step
from server.pipelines.tts._higgs.stream import Stream
from server.pipelines.tts._higgs.voicing import Voicing, out_of_memory

log = logging.getLogger(__name__)

SPARE_MS = 200.0  # who has this much left to play, beyond what the next piece needs, lets a newcomer's prompt go first


class Scheduler:
    """`streams`: at most so many at once, 0 for what the clock says. `wait_ms`: longer nobody waits for a slot."""

    def __init__(
        self,
        step: Step,
        reader: Reader,
        codec: Codec,
        keeping: Keeping,
        clock: Clock,
        now: Callable[[], float],
        *,
        streams: int = 0,
        wait_ms: float = 10_000,
    ) -> None:
        self.step, self.reader, self.keeping, self.clock, self.now = step, reader, keeping, clock, now
        self.voicing = Voicing(codec, clock, now, keeping.spare)
        self.waiting: deque[Stream] = deque()
        self.slots: list[Stream | None] = [None] * step.slots.count
        self.voiced: list[Stream] = []  # all whose sound is not given out yet, in the order they came
        self._streams, self._wait_ms = streams, wait_ms
        self._last_row: float | None = None

    @property
    def active(self) -> int:
        return sum(stream is not None for stream in self.slots)

    @property
    def streams(self) -> int:
        """How many utterances at once are let in."""
        return min(self._streams or self.clock.carries(), len(self.slots))

    def submit(self, stream: Stream) -> None:
        if len(stream.prompt) + stream.limit > self.step.slots.length:  # a card does not survive a write out of bounds
            stream.outlet.end(TTSError("the utterance is longer than a slot: raise length in [tts]"))
            return
        stream.since = self.now()
        self.waiting.append(stream)

    def tick(self) -> bool:
        """One round. Whether anything was done or is under way."""
        self._leave()
        self._admit()
        read = self._read()
        made = self._row()
        self._leave()  # who said the last row frees the slot at once; the sound follows
        due = self.voicing.decode(self.voiced, max(1, self.active))
        given = self.voicing.deliver(wait=not (read or made or due))  # nothing else to do: no need to look in vain
        self._close()
        return read or made or due or given or self.voicing.busy

    def fail(self, error: EngineError) -> None:
        """Everybody is told `error`, and all slots are free again."""
        for stream in {*self.waiting, *self.voiced, *(s for s in self.slots if s)}:
            stream.cancelled = True
            stream.outlet.end(error)
        self.waiting.clear()
        self.voiced.clear()
        self.slots = [None] * len(self.slots)
        self._last_row = None

    def _admit(self) -> None:
        for stream in [s for s in self.waiting if s.cancelled]:
            self.waiting.remove(stream)
        for stream in [s for s in self.voiced if s.parked and not s.outlet.full]:
            if self._room():
                self._enter(stream)
        while self.waiting and self._room():
            self._enter(self.waiting.popleft())
        while self.waiting and self.now() - self.waiting[0].since > self._wait_ms:
            self.waiting.popleft().outlet.end(EngineBusy("all voices of this server are busy; try again in a moment"))

    def _room(self) -> bool:
        """Whether there is a slot; one whose listener has enough for now is given away."""
        if self.active < self.streams:
            return True
        for slot, stream in enumerate(self.slots):
            if stream is not None and stream.paused:
                self.keeping.park(stream, slot)
                self.slots[slot] = stream.slot = None
                return True
        return False

    def _enter(self, stream: Stream) -> None:
        """Take the lowest free slot and what is known of the prompt."""
        slot = self.slots.index(None)
        self.slots[slot], stream.slot = stream, slot
        if not stream.parked:
            self.voiced.append(stream)
        stream.parked = False
        stream.read = self.keeping.recall(stream, slot)
        if not stream.reading:
            self._begin(stream)

    def _leave(self) -> None:
        """Free the slots of those who made their last row and of those who were cut off."""
        for slot, stream in enumerate(self.slots):
            if stream is not None and (stream.cancelled or (stream.done and not stream.reading)):
                self.keeping.speaker(stream, slot)
                self.slots[slot] = stream.slot = None
        self.voiced = [stream for stream in self.voiced if not stream.cancelled]

    def _read(self) -> bool:
        """Read a piece of the oldest prompt that is not read yet; if it is short, with other short ones."""
        streams = self._to_read()
        if not streams:
            return False
        most, since = min(self.clock.piece(self._slack()), self.reader.longest), self.now()
        parts = [Part(s.slot or 0, s.read, s.prompt[s.read : s.read + most]) for s in streams]
        try:
            self.keeping.attempt(lambda: self.reader.read(parts))
        except torch.OutOfMemoryError as error:
            self._drop(streams[-1], out_of_memory(error))
            return True
        self.clock.prompt(sum(len(part.tokens) for part in parts), self.now() - since)
        for stream, part in zip(streams, parts, strict=True):
            stream.read += len(part.tokens)
            if not stream.reading:
                self._begin(stream)
        return True

    def _to_read(self) -> list[Stream]:
        reading = [s for s in self.voiced if s.reading]
        short = [s for s in reading if len(s.prompt) - s.read <= SHORT]
        return short[:TOGETHER] if reading and reading[0] in short else reading[:1]

    def _begin(self, stream: Stream) -> None:
        """The prompt is read: from now on it makes rows, of which the first says BOS in every codebook."""
        assert stream.slot is not None
        self.keeping.voice(stream, stream.slot)
        if not len(stream.said) and stream.limit:
            stream.said.push(np.full(BOOKS, BOS, np.int64))
        if stream.limit:
            self.step.begin(stream.slot, len(stream.prompt), stream.how, stream.said.array())

    def _slack(self) -> float:
        """The ms until the first of those that have begun to sound needs the next row."""
        sounding = [s for s in self.voiced if s.running and not s.heard_nothing]
        paces = [self.voicing.pace(s, len(sounding)) for s in sounding]
        return min((pace.ahead_ms - pace.lead_ms for pace in paces), default=math.inf)

    def _row(self) -> bool:
        running = [s for s in self.voiced if s.running]
        if not running:
            self._last_row = None
            return False
        if (
            any(s.reading for s in self.voiced)
            and self._slack() > SPARE_MS
            and not any(s.heard_nothing for s in running)
        ):
            return False  # somebody has nothing to hear yet, and everybody else enough
        self._close_ranks(running)
        running.sort(key=lambda stream: stream.slot or 0)
        since = self.now()
        try:
            rows = self.keeping.attempt(
                lambda: self.step.rows([s.slot or 0 for s in running], max(s.tokens for s in running))
            )
        except torch.OutOfMemoryError as error:
            self._drop(max(running, key=lambda s: s.since), out_of_memory(error))
            return True
        self._measure(max(s.slot or 0 for s in running) + 1, since)
        for stream, row in zip(running, rows, strict=True):
            stream.said.push(row)
        return True

    def _measure(self, width: int, since: float) -> None:
        now = self.now()
        self.clock.row(width, now - since)
        if self._last_row is not None:
            self.clock.between(now - self._last_row)
        self._last_row = now

    def _close_ranks(self, running: list[Stream]) -> None:
        """Move the stream in the highest slot down where that makes the batch smaller."""
        sizes = self.step.sizes
        top = max(running, key=lambda s: s.slot or 0)
        free = self.slots.index(None) if None in self.slots else len(self.slots)
        if top.slot is None or free > top.slot:
            return
        others = max((s.slot or 0 for s in running if s is not top), default=0)
        if next(n for n in sizes if n > max(others, free)) < next(n for n in sizes if n > top.slot):
            self.step.move(top.slot, free, top.tokens)
            self.slots[top.slot], self.slots[free] = None, top
            top.slot = free

    def _close(self) -> None:
        """Tell those whose sound has all been given out."""
        for stream in [s for s in self.voiced if s.done and s.slot is None and not s.decoding]:
            if stream.windows.given >= stream.said.frames:
                self.voiced.remove(stream)
                stream.complete = True
                stream.outlet.end()

    def _drop(self, stream: Stream, error: TTSError) -> None:
        """One stream pays; the others never notice."""
        log.error("an utterance of %d characters was given up: %s", len(stream.text), error)
        stream.outlet.end(error)
        stream.cancelled = True
