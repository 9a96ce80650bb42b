"""The outbox: everything on its way to one client. Two lanes and one writer: control never waits behind audio.

Control: unbounded waiting is impossible because nobody waits; a client that lets `CONTROL` messages pile up is not
reading and is cut off. Audio lane: what must stay in order with the audio; full, it blocks the reply behind it.
"""

import asyncio
from collections import deque

from server.errors import LimitError
from server.events import OF_A_REPLY, Event

CONTROL = 2_000  # messages


class Outbox:
    def __init__(self, audio_items: int = 64) -> None:
        self._control: deque[Event] = deque()
        self._audio: deque[Event] = deque()
        self._limit = audio_items
        self._filled, self._drained = asyncio.Event(), asyncio.Event()
        self._over: set[int] = set()  # replies that were cut off: nothing of them leaves any more
        self.frames_dropped = 0

    def __len__(self) -> int:
        return len(self._control) + len(self._audio)

    def tell(self, event: Event) -> None:
        """Send `event` as soon as possible. Raises `LimitError` when the client has stopped reading."""
        if len(self._control) >= CONTROL:
            raise LimitError(f"client does not read: {CONTROL} messages are waiting", code="not_reading")
        if self._late(event):
            return
        self._control.append(event)
        self._filled.set()

    async def put(self, event: Event) -> None:
        """Send `event` in its place in the audio, once there is room."""
        while len(self._audio) >= self._limit:
            self._drained.clear()
            await self._drained.wait()
        if self._late(event):
            return
        self._audio.append(event)
        self._filled.set()

    async def emptied(self) -> None:
        """Wait until all audio has left."""
        while self._audio:
            self._drained.clear()
            await self._drained.wait()

    def silence(self, reply: int) -> None:
        """No more audio of `reply` leaves: what waits is dropped, and whatever of it still comes is ignored."""
        self._over.add(reply)
        kept = [event for event in self._audio if not self._late(event)]
        self.frames_dropped += len(self._audio) - len(kept)
        self._audio = deque(kept)
        self._drained.set()

    def _late(self, event: Event) -> bool:
        return isinstance(event, OF_A_REPLY) and event.reply in self._over

    async def get(self) -> Event:
        """The next event to write."""
        while not (self._control or self._audio):
            self._filled.clear()
            await self._filled.wait()
        if self._control:
            return self._control.popleft()
        self._drained.set()
        return self._audio.popleft()
