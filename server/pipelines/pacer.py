"""The pacer: lets audio leave no more than `lead_ms` ahead of the listener, and knows what the listener has heard.

Where the listener is comes from its acknowledgements, carried on by the clock between them, or from the clock alone for
a client that sends none. The lead is never passed, counted from the last acknowledgement; and since that is always a
little old, what is aimed at is less. Deadlines are absolute, so lateness never adds up. Times in ms, the clock in
seconds.
"""

import asyncio
from collections.abc import Callable

AGE_MS = 100.0  # how old an acknowledgement may be without holding up the audio
CARRY_MS = 400.0  # how far the clock may carry the position beyond the last acknowledgement
SLACK_MS = 0.5  # not worth a wait
STALLED_MS = 20.0  # between two looks at a listener who has stopped
SILENT_S = 10.0  # without acknowledgements for this long, the clock alone counts again


class Pacer:
    """One reply's audio on its way out."""

    def __init__(self, lead_ms: float, clock: Callable[[], float]) -> None:
        self.lead(lead_ms)
        self._clock = clock
        self.sent_ms = 0.0
        self._anchor_ms, self._anchor_at = 0.0, 0.0
        self._acked_ms = 0.0
        self._acked_at: float | None = None
        self._running = asyncio.Event()
        self._running.set()

    def lead(self, ms: float) -> None:
        """From now on audio may be so far ahead of the listener."""
        self._lead, self._aim = ms, ms - min(AGE_MS, 0.4 * ms)

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    async def wait(self, ms: float) -> None:
        """Wait until the next `ms` of audio may leave, and count them as sent."""
        while True:
            await self._running.wait()
            if self._trusted() and self.sent_ms + ms > self._acked_ms + self._lead:
                await asyncio.sleep(STALLED_MS / 1000)
                continue
            behind = self.sent_ms + ms - self._aim - self.heard_ms()
            if behind < SLACK_MS or not self._outstanding():
                break
            await asyncio.sleep(behind / 1000)
        if not self._outstanding():  # the first audio, or the first after an underrun: it sounds from now on
            self._anchor_ms, self._anchor_at = self.sent_ms, self._clock()
        self.sent_ms += ms

    def _outstanding(self) -> bool:
        return self.sent_ms - self.heard_ms() > SLACK_MS

    def heard_ms(self) -> float:
        """How much of what was sent has sounded."""
        if self.paused:
            return self._anchor_ms
        passed = (self._clock() - self._anchor_at) * 1000
        if self._trusted():
            passed = min(passed, CARRY_MS)
        return min(self.sent_ms, self._anchor_ms + passed)

    def _trusted(self) -> bool:
        """Whether the listener tells where it is."""
        return self._acked_at is not None and self._clock() - self._acked_at < SILENT_S

    def played(self, ms: float) -> None:
        """The listener's own word on how much has sounded."""
        self._acked_at = self._anchor_at = self._clock()
        self._acked_ms = self._anchor_ms = min(ms, self.sent_ms)

    def pause(self) -> None:
        self._anchor_ms = self.heard_ms()
        self._running.clear()

    def resume(self) -> None:
        if self._acked_at is not None:  # the silence of a pause is no reason to distrust the listener
            self._acked_at = self._clock()
        self._anchor_at = self._clock()
        self._running.set()

    async def heard_out(self, patience_s: float = 2.0) -> None:
        """Wait until all that was sent has sounded; for a listener who stopped playing, no longer than `patience_s`."""
        stuck_since, last = self._clock(), -1.0
        while self._outstanding() or self.paused:
            if self.paused:
                await self._running.wait()
                stuck_since = self._clock()
                continue
            if (heard := self.heard_ms()) > last:
                stuck_since, last = self._clock(), heard
            elif self._clock() - stuck_since > patience_s:
                return
            await asyncio.sleep(min(0.1, max(0.005, (self.sent_ms - heard) / 1000)))
