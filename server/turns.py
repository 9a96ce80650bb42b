"""The turns that wait to be taken: spoken, typed, or a text to be said."""

import asyncio
from dataclasses import dataclass

from server import commands as c
from server.errors import LimitError

WAITING = 8
Steering = c.ReplyInterrupt | c.ReplyPause | c.ReplyResume  # what a client does with a reply


@dataclass(frozen=True)
class Ended:
    """A spoken turn that is over; `origin` is the clock's time at the end of speech. `contested`: it may have been no
    more than a backchannel."""

    origin: float
    contested: bool


@dataclass(frozen=True)
class Typed:
    """A typed turn, and when it came by the clock."""

    text: str
    at: float


@dataclass(frozen=True)
class Told:
    """A text to be spoken as it stands."""

    text: str
    character: str | None
    at: float


@dataclass(frozen=True)
class Steered:
    """No turn: what the client did holds for what was asked for before it, and had not begun to sound, as well."""

    command: Steering


Turn = Ended | Typed | Told | Steered


class Turns:
    """Those that wait, in their order; read, they are taken one at a time, and the one taken has not begun."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Turn] = asyncio.Queue()
        self._taken = False

    def __bool__(self) -> bool:
        """Whether one was asked for that has not begun."""
        return self._taken or not self._waiting.empty()

    def put(self, turn: Turn) -> None:
        """Raises `LimitError` where too many wait: of turns, long before there is no room for a stop."""
        room = WAITING if not isinstance(turn, Steered) else 4 * WAITING
        if self._waiting.qsize() >= room:
            raise LimitError(f"{WAITING} turns are waiting; this one is dropped", code="busy")
        self._waiting.put_nowait(turn)

    def __aiter__(self) -> "Turns":
        return self

    async def __anext__(self) -> Turn:
        self._taken = False
        turn = await self._waiting.get()
        self._taken = True
        return turn
