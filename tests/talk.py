"""A scripted conversation on the virtual clock: what the user does when, and what the server tells when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from server import commands as c
from server import events as e
from server.cast import Cast
from server.characters import Character
from server.rack import Rack
from server.session import Session
from server.settings import Settings
from tests import fakes
from tests.virtual_time import run

ADA = Character("ada", "Ada", "An engineer.", greeting="Hello you.")
BEN = Character("ben", "Ben", "A baker.", aliases=("Benny",))
COUNT = "One two three four. Five six seven eight. Nine ten eleven twelve."
CHUNK_MS = 20


@dataclass
class Told:
    """Everything the server told, with the time of it."""

    events: list[tuple[float, e.Event]] = field(default_factory=list)

    def of(self, *kinds: type[e.Event]) -> list[Any]:
        return [event for _, event in self.events if type(event) in kinds]

    def at(self, kind: type[e.Event], nth: int = 0) -> float:
        return [t for t, event in self.events if type(event) is kind][nth]

    def audio(self, reply: int | None = None) -> bytes:
        return b"".join(x.data for x in self.of(e.Audio) if reply in (None, x.reply))

    def last(self, kind: type[e.Event]) -> Any:
        return self.of(kind)[-1]


class Talk:
    """Build it up with `say`, `quiet`, `send`; `go` plays it and returns the session and what was told."""

    def __init__(self, rack: Rack | None = None, **settings: Any) -> None:
        self.rack = rack or fakes.rack()
        self.settings = Settings(**settings)
        self.cast = {"ada": ADA, "ben": BEN}
        self.active = ["ada"]
        self._script: list[tuple[float, Any]] = []
        self._now = 0.0
        self.write_delay = 0.0
        self.on_told: Callable[[float, e.Event], Any] | None = None
        self.options: dict[str, Any] = {}
        self.before_end: Callable[[Session], None] = lambda session: None

    def pcm(self, pcm: bytes) -> "Talk":
        """The microphone hears `pcm`, in real time."""
        step = CHUNK_MS * 32
        for i in range(0, len(pcm), step):
            self._script.append((self._now, pcm[i : i + step]))
            self._now += CHUNK_MS / 1000
        return self

    def say(self, text: str) -> "Talk":
        return self.pcm(fakes.voice(text))

    def quiet(self, seconds: float) -> "Talk":
        return self.pcm(fakes.silence(seconds * 1000))

    def wait(self, seconds: float) -> "Talk":
        """Nothing comes from the client, not even silence."""
        self._now += seconds
        return self

    def send(self, type: str, **fields: Any) -> "Talk":
        self._script.append((self._now, c.command({"type": type, **fields})))
        return self

    def raw(self, message: Any) -> "Talk":
        self._script.append((self._now, message))
        return self

    def go(self) -> tuple[Session, Told]:
        return run(self._play())  # type: ignore[no-any-return]

    async def _play(self) -> tuple[Session, Told]:
        loop = asyncio.get_running_loop()
        told = Told()

        async def received() -> AsyncIterator[Any]:
            for at, message in [*self._script, (self._now, None)]:
                if at > loop.time():  # what comes in the same instant is read without a step between, as off a socket
                    await asyncio.sleep(at - loop.time())
                if message is not None:
                    yield message() if callable(message) else message
            self.before_end(self.session)

        async def write(event: e.Event) -> None:
            if self.write_delay:
                await asyncio.sleep(self.write_delay)
            told.events.append((loop.time(), event))
            if self.on_told:
                self.on_told(loop.time(), event)

        cast = Cast(self.rack, self.cast, self.active)
        self.session = session = Session("s", self.rack, cast, self.settings, loop.time, **self.options)
        try:
            await session.run(received(), write)
        finally:
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            assert not left, f"tasks outlive the session: {left}"
        return session, told


def talk(*replies: str | Exception, tts: fakes.FakeTTS | None = None, stt: fakes.FakeSTT | None = None, **settings):
    """A conversation, and the model it is led with."""
    llm = fakes.FakeLLM(*(replies or (COUNT, "Fine.")))
    return Talk(fakes.rack(llm, tts, stt), **settings), llm


def lines(session) -> list[tuple[str, str, bool]]:
    return [(x.role, x.text, x.cut) for x in session.history.entries]


def kinds(told: Told) -> list[str]:
    names: list[str] = []
    for _, event in told.events:
        name = type(event).__name__
        if name not in ("Audio", "ReplyText") or names[-1:] != [name]:
            names.append(name)
    return names
