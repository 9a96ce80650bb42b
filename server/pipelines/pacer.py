"""The pacer: lets audio leave no more than `lead_ms` ahead of the listener, and knows what the listener has heard.

Where the listener is comes from its acknowledgements, carried on by the clock between them, or from the clock alone for
a client that sends none. Deadlines are absolute, so lateness never adds up. Times in ms, the clock in seconds.
"""

import asyncio
from collections.abc import Callable

CARRY_MS = 400.0  # how far the clock may carry the position beyond the last acknowledgement
SLACK_MS = 0.5  # not worth a wait
SILENT_S = 3.0  # without acknowledgements for this long, the clock alone counts again


class Pacer:
    """One reply's audio on its way out."""

    def __init__(self, lead_ms: float, clock: Callable[[], float]) -> None:
        self._lead = lead_ms
        self._clock = clock
        self.sent_ms = 0.0
        self._anchor_ms, self._anchor_at = 0.0, 0.0
        self._acked_at: float | None = None
        self._running = asyncio.Event()
        self._running.set()

    @property
    def paused(self) -> bool:
        return not self._running.is_set()

    async def wait(self, ms: float) -> None:
        """Wait until the next `ms` of audio may leave, and count them as sent."""
        while True:
            await self._running.wait()
            behind = self.sent_ms + ms - self._lead - self.heard_ms()
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
        now = self._clock()
        passed = (now - self._anchor_at) * 1000
        if self._acked_at is not None and now - self._acked_at < SILENT_S:
            passed = min(passed, CARRY_MS)
        return min(self.sent_ms, self._anchor_ms + passed)

    def played(self, ms: float) -> None:
        """The listener's own word on how much has sounded."""
        self._acked_at = self._clock()
        self._anchor_ms, self._anchor_at = min(ms, self.sent_ms), self._acked_at

    def pause(self) -> None:
        self._anchor_ms = self.heard_ms()
        self._running.clear()

    def resume(self) -> None:
        self._anchor_at = self._clock()
        if self._acked_at is not None:  # the silence of a pause is no reason to distrust the listener
            self._acked_at = self._anchor_at
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
