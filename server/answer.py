"""An answer: what one turn is answered with, the addressed characters' replies one after the other.

It may be prepared before the turn has ended: until `release` it thinks and synthesises, but tells nothing and leaves no
trace. While one character speaks, the next one already thinks.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from server.characters import Character
from server.history import History
from server.reply import Phase, Reply

Begin = Callable[[Character, History], Reply]


@dataclass(frozen=True)
class Cut:
    """An answer that was interrupted: the reply that sounded, what was heard of it, and what was not."""

    reply: Reply
    heard: str
    unheard: str
    heard_ms: float


class Answer:
    """`begin` makes a character's reply on top of a history. `text` is the user's line, or "" where there is none."""

    def __init__(self, turn: int, text: str, cast: Sequence[Character], history: History, begin: Begin) -> None:
        self.turn, self.text = turn, text
        self._cast, self._history, self._begin = cast, history, begin
        self.released = asyncio.Event()
        self._known = history.copy()  # what the next reply is thought on
        if text:
            self._known.heard_user(text, turn)
        self.reply: Reply | None = None
        self._noted: Reply | None = None
        self.last: Character | None = None
        self._pauses: set[str] = set()

    def release(self) -> None:
        """The turn has ended: the user's line enters the history, and the replies are told and heard."""
        if self.text:
            self._history.heard_user(self.text, self.turn)
        self.released.set()
        if self.reply:
            self.reply.release()

    @property
    def phase(self) -> Phase:
        return self.reply.phase if self.reply else Phase.THINKING

    async def run(self) -> None:
        """All replies, in order."""
        async with asyncio.TaskGroup() as group:
            running = self._start(group, self._cast[0])
            for character, following in zip(self._cast, [*self._cast[1:], None], strict=True):
                reply, task = running
                self._present(reply, character)
                if following:
                    await _first(reply.thought.wait(), task)
                    self._known.said(character.id, reply.text.strip(), self.turn)
                    running = self._start(group, following)
                await asyncio.wait([task])
                task.result()
                self._note(cut=False)

    def _start(self, group: asyncio.TaskGroup, character: Character) -> tuple[Reply, asyncio.Task[None]]:
        reply = self._begin(character, self._known)
        return reply, group.create_task(reply.run(), name=f"reply of {character.id}")

    def _present(self, reply: Reply, character: Character) -> None:
        """`reply` is now the one that sounds; a pause that was made of the answer holds for it too."""
        self.reply, self.last = reply, character
        if self.released.is_set():
            reply.release()
        for reason in self._pauses:
            reply.pause(reason)

    def pause(self, reason: str) -> None:
        self._pauses.add(reason)
        if self.reply:
            self.reply.pause(reason)

    def resume(self, reason: str, told: str | None = None) -> None:
        self._pauses.discard(reason)
        if self.reply:
            self.reply.resume(reason, told)

    def cut(self) -> Cut | None:
        """Note what was heard, now that it is interrupted, in the history. None if nothing was under way."""
        if self.reply is None or not self.released.is_set():
            return None
        heard, unheard = self.reply.heard()
        whole = self.reply.phase is Phase.DONE
        self._note(cut=not whole)
        return None if whole else Cut(self.reply, heard, unheard, self.reply.heard_ms)

    def _note(self, *, cut: bool) -> None:
        """What was heard of the present reply enters the history, once."""
        if self.reply and self.reply is not self._noted:
            self._history.said(self.reply.character, self.reply.heard()[0], self.turn, cut=cut)
            self._noted = self.reply


async def _first(one: Coroutine[object, object, object], task: asyncio.Task[None]) -> None:
    """Wait for `one`, or for `task` to end, whichever comes first."""
    waiting = asyncio.ensure_future(one)
    try:
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
