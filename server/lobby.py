"""The lobby: which conversations are under way, and which were lost a moment ago and may be taken up again."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from server.errors import LimitError
from server.history import History
from server.session import Session
from server.telemetry import REFUSED, SESSIONS

KEPT = 256  # lost conversations; beyond, the oldest is forgotten


@dataclass(frozen=True)
class Lost:
    """What is kept of a conversation whose socket dropped."""

    history: History
    characters: list[str]
    until: float


class Lobby:
    """`limit` conversations at once; a lost one is kept for `resume_s` seconds. `now` is passed in."""

    def __init__(self, limit: int, resume_s: float) -> None:
        self._limit, self._resume_s = limit, resume_s
        self.sessions: set[Session] = set()
        self._lost: dict[str, Lost] = {}
        self.closing = False
        self.emptied = asyncio.Event()
        self.emptied.set()

    def admit(self, id: str = "") -> None:
        """Raises `LimitError` when no further conversation can be had; one that goes on as `id` is none."""
        if self.closing:
            raise LimitError("the server is restarting; connect again in a moment", code="restart", close=1012)
        others = sum(session.id != id for session in self.sessions)
        if others >= self._limit:
            REFUSED.labels("full").inc()
            text = f"{self._limit} conversations are under way, as many as this server takes (server.sessions)"
            raise LimitError(text, code="full", close=1013, retry_after=5)

    @contextmanager
    def present(self, session: Session) -> Iterator[None]:
        """`session` is under way within this block."""
        self.sessions.add(session)
        self.emptied.clear()
        SESSIONS.inc()
        try:
            yield
        finally:
            self.sessions.discard(session)
            if not self.sessions:
                self.emptied.set()
            SESSIONS.dec()

    def keep(self, session: Session, now: float) -> None:
        """Its socket is gone; it may be taken up again for a while."""
        if self._resume_s and session.history.entries:
            self._lost[session.id] = Lost(session.history, list(session.cast.present), now + self._resume_s)
        self._lost = {id: lost for id, lost in self._lost.items() if lost.until >= now}
        while len(self._lost) > KEPT:
            del self._lost[next(iter(self._lost))]

    def take_up(self, id: str, now: float) -> Lost | None:
        """The lost conversation `id`, if it is known; also one whose client is back before the loss was noticed."""
        if present := [session for session in self.sessions if session.id == id]:
            for session in present:
                session.end(LimitError("the conversation goes on over another connection", code="taken_over"))
            return Lost(present[-1].history, list(present[-1].cast.present), now)
        lost = self._lost.pop(id, None)
        return lost if lost and lost.until >= now else None
