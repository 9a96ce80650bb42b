"""A language model in chunks over `/ws/llm`: several answers on one socket, each paused, continued or cancelled."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.clients.link import ConnectionLost, Link, Refused
from server.errors import ParleyError

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Pause:
    """When a chunk ends: at what comes first. With neither, at the answer's end (or after 500 tokens)."""

    max_tokens: int | None = None
    sentence_boundary: bool = False

    def body(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "sentence_boundary": self.sentence_boundary}


@dataclass(frozen=True)
class Chunk:
    """What a chunk came to. `done`: the answer is over."""

    reason: str
    text: str
    tokens: int
    done: bool
    ttft_ms: float
    elapsed_ms: float


@dataclass(frozen=True)
class Bill:
    """What an answer took in all: tokens handed out, those made for nobody, and how long the model rested."""

    tokens: int = 0
    unread_tokens: int = 0
    requests: int = 0
    rested_ms: float = 0.0


FIRST, SENTENCE = Pause(max_tokens=10), Pause(sentence_boundary=True)


class Answer:
    """One answer. `text` is what came so far, `last` the chunk before, `done` whether there is more to come."""

    def __init__(self, link: Link, id: str) -> None:
        self.id = id
        self.text, self.last, self.done = "", Chunk("", "", 0, False, 0.0, 0.0), False
        self.bill = Bill()
        self.inbox: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()
        self._link = link
        self._asked = True  # a chunk, whose end has not been read
        self._ended = False

    async def chunk(self, pause: Pause = SENTENCE) -> AsyncGenerator[str, None]:
        """The deltas of the next chunk. Of the first one, which was asked for when the answer was started, and of one
        that was left in the middle, `pause` is what it was; there is none after `cancel` or `end`.

        Raises `ConnectionLost`, `Refused`."""
        if self._ended:
            return
        if not self._asked:
            await self._send("continue_stream", pause=pause.body())
        self._asked = True
        while True:
            frame = await self._next()
            if frame.get("type") == "token":
                self.text += frame["content"]
                yield frame["content"]
            else:
                self._told(frame)
                return

    async def flow(self, then: Pause = SENTENCE) -> AsyncGenerator[str, None]:
        """All that is left, chunk after chunk."""
        while not self.done:
            async for delta in self.chunk(then):
                yield delta

    async def cancel(self) -> Bill:
        """Stop it within a token. Not while another task reads a chunk of it: that one is told by its end."""
        return await self._finish("cancel_stream", "cancelled")

    async def end(self) -> Bill:
        """Free its slot."""
        return await self._finish("end_stream", "ended")

    async def _finish(self, action: str, status: str) -> Bill:
        if self._ended or not self._link.open:
            return self.bill
        self._ended = True
        await self._send(action)
        while (frame := await self._next(errors=False)).get("status") != status:
            if "error" in frame:
                break
            self.text += frame.get("content", "")
        self.done = True
        known = {key: frame[key] for key in ("tokens", "unread_tokens", "requests", "rested_ms") if key in frame}
        self.bill = Bill(**known)
        return self.bill

    def over(self, frame: dict[str, Any]) -> bool:
        """Whether `frame` is the last there is of it: it has been ended, or never began."""
        refused = "error" in frame and "type" not in frame and not self.last.reason
        return refused or frame.get("status") in ("cancelled", "ended")

    def _told(self, frame: dict[str, Any]) -> None:
        self._asked, self.done = False, frame.get("type") != "paused"
        self.last = Chunk(
            frame.get("reason", ""),
            frame.get("text", ""),
            frame.get("tokens", 0),
            self.done,
            frame.get("ttft_ms", 0.0),
            frame.get("elapsed_ms", 0.0),
        )

    async def _next(self, errors: bool = True) -> dict[str, Any]:
        frame = await self.inbox.get()
        if isinstance(frame, Exception):
            self.done = self._ended = True  # a new connection knows nothing of it
            raise frame
        if errors and "error" in frame and "type" not in frame:
            self.done, self._asked = True, False
            self._ended = not self.last.reason  # it never began: there is nothing to end
            raise Refused(frame["error"], code=frame.get("code", "error"), retry_after=frame.get("retry_after"))
        return frame

    async def _send(self, action: str, **more: Any) -> None:
        await self._link.send({"action": action, "stream_id": self.id, **more})


class Answers:
    """Use as a block. `url` is like `ws://localhost:8000/ws/llm`. When the connection is lost the answers on it are
    over, with `ConnectionLost`; the next one is begun on a new connection."""

    def __init__(self, url: str, *, token: str = "", attempts: int = 5) -> None:
        self._link = Link(lambda: url, token=token, attempts=attempts)
        self._open: dict[str, Answer] = {}
        self._ids = itertools.count(1)
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Answers":
        await self._link.socket()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._reader:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self._link.close()

    async def start(
        self, messages: Messages, pause: Pause = FIRST, *, temperature: float | None = None, **settings: Any
    ) -> Answer:
        """A new answer, whose first chunk is asked for now. `settings`: model, max_tokens, top_p, stop, mode."""
        answer = Answer(self._link, f"a{next(self._ids)}")
        self._open[answer.id] = answer
        wanted = settings | ({} if temperature is None else {"temperature": temperature})
        try:
            await answer._send(
                "start_stream", messages=list(messages), pause=pause.body(), stream_tokens=True, tagged=True, **wanted
            )
        except ParleyError:
            self._open.pop(answer.id, None)
            raise
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        return answer

    async def _read(self) -> None:
        """Hand every frame to its answer, until the connection is lost."""
        try:
            while True:
                frame = await self._link.receive()
                if isinstance(frame, dict) and (answer := self._open.get(frame.get("stream_id", ""))):
                    answer.inbox.put_nowait(frame)
                    if answer.over(frame):
                        del self._open[answer.id]
        except (ConnectionLost, Refused) as error:
            for answer in self._open.values():
                answer.inbox.put_nowait(error)
            self._open.clear()
