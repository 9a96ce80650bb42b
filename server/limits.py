"""Limits on what one client may send: a meter of its audio and messages. Pure; `now` in seconds."""

from server.errors import LimitError

BURST_MS = 10_000.0  # what may come at once, after a quiet time
MESSAGE_MS = 20.0  # what one message counts for
FRAME_MS = 1.0  # and one frame of audio at least, however short
PATIENCE_S = 15.0  # how long a client is slowed down before it is sent away


class Meter:
    """Lets `flood` times real time through. Beyond that the reader is to wait, and so the client; one that goes on for
    long is closed."""

    def __init__(self, flood: float, now: float) -> None:
        self._flood = flood
        self._left, self._at = BURST_MS, now
        self._waited = 0.0

    def take(self, ms: float, now: float) -> float:
        """Count `ms` of audio; how many seconds to wait before the next is read. Raises `LimitError`."""
        self._left = min(BURST_MS, self._left + (now - self._at) * 1000 * self._flood) - ms
        self._at = now
        if self._left >= 0:
            self._waited = max(0.0, self._waited - ms / 1000)
            return 0.0
        wait = -self._left / 1000 / self._flood
        self._waited += wait
        if self._waited > PATIENCE_S:
            raise LimitError(
                f"audio or messages come faster than {self._flood:g} times real time (server.flood)", code="flood"
            )
        return wait
