"""Who may use an engine now: as many streams as it carries in real time, the others in a bounded, fair queue.

A stream takes its turn for every piece it makes, so the engine's time goes where it is needed:
first to those whose listener is about to run dry, then to those with nothing to play yet, then to those that are ahead
of their listener. A first sound that was begun is finished before another is, of the least recently served client.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum

from server.errors import EngineBusy

DUE_MS = 200.0  # less audio than this ahead of the listener is urgent
EASY_MS = 800.0  # who has more waits while others get their first


class Need(IntEnum):
    """Why a stream wants the engine, most urgent first."""

    DUE = 0
    FIRST = 1
    AHEAD = 2
    EASY = 3


class Listener:
    """How much audio lies ahead of somebody who plays it as it comes. Pure; times in seconds, audio in ms."""

    def __init__(self) -> None:
        self.sent_ms = 0.0
        self.dry_at = 0.0  # when the last of it has sounded

    def sent(self, ms: float, now: float, most_ms: float = math.inf) -> None:
        """`most_ms`: more than that does not count as ahead."""
        self.sent_ms += ms
        self.dry_at = min(max(self.dry_at, now) + ms / 1000, now + most_ms / 1000)

    def ahead_ms(self, now: float) -> float:
        return max(0.0, (self.dry_at - now) * 1000)


class Stream:
    """One stream of speech and its claim on the engine."""

    def __init__(self, admission: "Admission", client: str) -> None:
        self.client = client
        self.listener = Listener()
        self.begun = False  # it has had a turn since it has had something new to say
        self.admitted = False
        self._admission = admission

    def need(self, now: float) -> Need:
        if not self.listener.sent_ms:
            return Need.FIRST
        ahead = self.listener.ahead_ms(now)
        return Need.DUE if ahead < DUE_MS else Need.AHEAD if ahead < EASY_MS else Need.EASY

    def begin(self) -> None:
        """Something new is to be said. To a listener who has heard everything it is like the first thing."""
        if not self.listener.ahead_ms(self._admission.clock()):
            self.listener = Listener()
            self.begun = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the engine for one piece. Raises `EngineBusy` for a stream that was never admitted and cannot be."""
        need = await self._admission._take(self)
        try:
            yield
        finally:
            self._admission._give_back(need)

    def sent(self, ms: float, most_ms: float = math.inf) -> None:
        """`ms` of audio have gone to the listener."""
        self.listener.sent(ms, self._admission.clock(), most_ms)


class Admission:
    """The claims on one engine. `streams`: how many it carries; `at_once`: how many turns it is given at the same time
    (0: as many); `waiting`: how many more may wait for their first turn, for at most `patience_s`. A stream once
    admitted is never refused."""

    def __init__(
        self,
        streams: int,
        *,
        at_once: int = 0,
        waiting: int = 32,
        patience_s: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.streams, self.waiting, self.patience_s = streams, waiting, patience_s
        self.at_once = min(at_once or streams, streams)
        self.refused = 0
        self._own_clock = clock
        self._turns: Counter[Need] = Counter()  # being taken
        self._admitted = 0
        self._queue: dict[Stream, asyncio.Future[Need]] = {}
        self._served: dict[str, int] = {}  # when each client with a stream here was last let in
        self._open: Counter[str] = Counter()
        self._count = 0  # turns that were let in
        self._wait_s = 0.0  # how long a newcomer waits for a place, smoothed
        self._alarm: asyncio.TimerHandle | None = None

    def clock(self) -> float:
        return self._own_clock() if self._own_clock else asyncio.get_running_loop().time()

    @property
    def running(self) -> int:
        """Turns being taken."""
        return self._turns.total()

    @property
    def queued(self) -> int:
        return len(self._queue)

    @asynccontextmanager
    async def stream(self, client: str = "") -> AsyncIterator[Stream]:
        """A stream for `client` (an address: streams of one client share its place in the queue)."""
        self._open[client] += 1
        stream = Stream(self, client)
        try:
            yield stream
        finally:
            self._admitted -= stream.admitted
            self._open[client] -= 1
            if not self._open[client]:
                del self._open[client]
                self._served.pop(client, None)

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """A turn for a conversation: it waits for nobody, and those who ask wait for it."""
        self._turns[Need.DUE] += 1
        try:
            yield
        finally:
            self._give_back(Need.DUE)

    def order(self, stream: Stream, now: float) -> tuple[float, ...]:
        """The smallest goes next; of two that are equal, the one that came first."""
        need = stream.need(now)
        if need is Need.FIRST:
            return need, not stream.begun, self._served.get(stream.client, 0)
        return need, stream.listener.ahead_ms(now)

    def retry_after(self) -> float:
        """Seconds after which a refused client may find a place."""
        return min(30.0, max(1.0, self._wait_s))

    def _newcomers(self) -> int:
        return sum(not stream.admitted for stream in self._queue)

    async def _take(self, stream: Stream) -> Need:
        if not self._pending() and self._room(need := stream.need(self.clock())):
            return self._let_in(stream, need)
        return await self._wait(stream)

    async def _wait(self, stream: Stream) -> Need:
        newcomer = not stream.admitted
        if newcomer and self._newcomers() >= self.waiting + max(0, self.streams - self._admitted):
            raise self._busy()
        came, place = self.clock(), asyncio.get_running_loop().create_future()
        self._queue[stream] = place
        self._watch()
        try:
            async with asyncio.timeout(self.patience_s if newcomer else None):
                return await self._stand(place)
        except TimeoutError:
            raise self._busy() from None
        finally:
            del self._queue[stream]
            if newcomer:
                self._wait_s += 0.2 * (self.clock() - came - self._wait_s)

    async def _stand(self, place: asyncio.Future[Need]) -> Need:
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._give_back(place.result())  # cancelled just as it was let in
            raise

    def _pending(self) -> list[Stream]:
        return [stream for stream, place in self._queue.items() if not place.done()]

    def _busy(self) -> EngineBusy:
        self.refused += 1
        return EngineBusy("all voices are in use; try again later", retry_after=self.retry_after())

    def _room(self, need: Need) -> bool:
        """Whether a turn may be taken now. Who has plenty keeps off while others make their first sound."""
        return self.running < self.at_once and not (need is Need.EASY and self._turns[Need.FIRST])

    def _let_in(self, stream: Stream, need: Need) -> Need:
        self._turns[need] += 1
        self._admitted += not stream.admitted
        stream.admitted = stream.begun = True
        self._count += 1
        self._served[stream.client] = self._count
        return need

    def _give_back(self, need: Need) -> None:
        self._turns[need] -= 1
        # Decided a step later, so that the stream that just made a piece can compete for the next one.
        asyncio.get_running_loop().call_soon(self._choose)

    def _choose(self) -> None:
        now = self.clock()
        while waiting := self._pending():
            chosen = min(waiting, key=lambda stream: self.order(stream, now))
            if not self._room(need := chosen.need(now)):
                self._watch()
                return
            self._queue[chosen].set_result(self._let_in(chosen, need))

    def _watch(self) -> None:
        """Who keeps off goes on as soon as he has no longer plenty, however long a first sound takes."""
        if self._alarm:
            self._alarm.cancel()
        self._alarm = None
        if self.running < self.at_once and (waiting := self._pending()):
            now = self.clock()
            least = min(stream.listener.ahead_ms(now) for stream in waiting)
            wait = max(0.0, least - EASY_MS) / 1000 + 0.001
            self._alarm = asyncio.get_running_loop().call_later(wait, self._choose)
