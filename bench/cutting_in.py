"""How it feels to cut in: `python -m bench.cutting_in`.

While a reply sounds, listeners of several voices say what listeners say to a whole session with the embedded ears,
Silero and pocketsphinx. For each: did the reply go on or was it lost, and how long after the voice. On a virtual clock,
on which the ears take no time and every run is the same; with `--real`, in real time.
"""

import argparse
import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.engines import Delays, rack
from bench.sayings import BACKCHANNEL, INTERRUPTION, NOISE, Saying, Speaker, speakers
from bench.wer import spread
from server import commands as c
from server import events as e
from server.audio import frames, milliseconds, size, to_pcm
from server.cast import Cast
from server.characters import Character
from server.pipelines.engines import HEARING_RATE, STT
from server.pipelines.loading import load
from server.pipelines.stt import _worker as wire
from server.pipelines.stt._process import SENDS, Job
from server.pipelines.stt.pocketsphinx import PocketSphinx
from server.rack import Rack
from server.session import Received, Session
from server.settings import Settings
from tests.virtual_time import run

FRAME_MS = 20
BEFORE_S = 0.5  # of the reply, before anything is said
AFTER_S = 1.5  # by then it is decided
CALLER = Character("ada", "Ada", "A storyteller.")


@dataclass(frozen=True)
class Outcome:
    """What became of the reply; times in ms."""

    speaker: str
    saying: Saying
    heard: str  # the text as it was at the end
    lost: bool
    pauses: int
    pause_ms: float | None  # from the first of the voice
    decided_ms: float | None  # from its last

    @property
    def right(self) -> bool:
        return self.lost == (self.saying.kind == INTERRUPTION)


@dataclass
class Caller:
    """A session and who talks to it: a microphone that never stops, and what is told, with the time of it."""

    rack: Rack
    events: list[tuple[float, e.Event]] = field(default_factory=list)
    _speech: deque[bytes] = field(default_factory=deque)
    _commands: deque[Received] = field(default_factory=deque)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _hung_up: bool = False
    _spoken_at: float = 0.0

    async def run(self) -> None:
        cast = Cast(self.rack, {CALLER.id: CALLER}, [])
        clock = asyncio.get_running_loop().time
        await Session("bench", self.rack, cast, Settings(), clock).run(self._sent(), self._told)

    async def _sent(self) -> AsyncIterator[Received]:
        loop = asyncio.get_running_loop()
        room = _room()
        due = loop.time()
        while not self._hung_up:
            while self._commands:
                yield self._commands.popleft()
            due += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due - loop.time()))
            if self._speech:
                self._spoken_at = loop.time()
            yield self._speech.popleft() if self._speech else room
            self._news.set()

    async def _told(self, event: e.Event) -> None:
        self.events.append((asyncio.get_running_loop().time(), event))
        self._news.set()

    def hang_up(self) -> None:
        self._hung_up = True

    async def say(self, pcm: bytes) -> tuple[float, float]:
        """When the voice began and ended."""
        length = size(FRAME_MS, HEARING_RATE)
        began = asyncio.get_running_loop().time()
        self._speech += frames(pcm + bytes(-len(pcm) % length), length)[0]
        while self._speech:
            await self._more()
        return self._spoken_at - milliseconds(pcm, HEARING_RATE) / 1000 if pcm else began, self._spoken_at

    async def ask(self) -> None:
        """A new reply sounds."""
        since = len(self.events)
        self._commands.append(c.command({"type": "user.text", "text": "Go on."}))
        async with asyncio.timeout(5):
            while not any(isinstance(event, e.Audio) for _, event in self.events[since:]):
                await self._more()
        await asyncio.sleep(BEFORE_S)

    async def _more(self) -> None:
        self._news.clear()
        await self._news.wait()


class Inline:
    """A pool of one decoder, in this process."""

    async def start(self) -> None:
        setup = json.loads(load("stt", "pocketsphinx", {}).pool.workers[0]._setup)
        self._hearing = wire.Hearing(setup["decoder"])

    async def stop(self) -> None:
        return None

    def pump(self, job: Job) -> None:
        while step := job.utterance.step():
            what, body = self._hearing.answer(SENDS[step[0]], step[1]) or (0, "")
            if what == wire.TEXT:
                job.utterance.heard(body)
            elif what == wire.FINAL:
                mean, _, text = body.partition("\n")
                job.utterance.ended(mean, text)

    def release(self, job: Job) -> None:
        self._hearing.answer(wire.DROP, b"")


def _room() -> bytes:
    noise = np.random.default_rng(7).normal(0, 2.5e-4, size(FRAME_MS, HEARING_RATE) // 2)
    return to_pcm(noise)


async def attempt(caller: Caller, speaker: str, saying: Saying) -> Outcome:
    await caller.ask()
    since = len(caller.events)
    began, ended = await caller.say(saying.pcm)
    await asyncio.sleep(AFTER_S)
    told = caller.events[since:]
    paused = [at for at, event in told if isinstance(event, e.ReplyPaused)]
    decided = [at for at, event in told if isinstance(event, e.ReplyResumed | e.ReplyInterrupted)]
    texts = [event.text for _, event in told if isinstance(event, e.TranscriptPartial | e.TranscriptFinal)]
    return Outcome(
        speaker,
        saying,
        texts[-1] if texts else "",
        any(isinstance(event, e.ReplyInterrupted) for _, event in told),
        len(paused),
        (paused[0] - began) * 1000 if paused else None,
        (decided[-1] - ended) * 1000 if decided else None,
    )


async def converse(engines: Rack, speaker: Speaker, only: str) -> list[Outcome]:
    """All that `speaker` says, in one conversation."""
    caller = Caller(engines)
    call = asyncio.create_task(caller.run())
    try:
        await asyncio.sleep(0.5)
        await caller.say(speaker.primer)
        await asyncio.sleep(AFTER_S)
        return [await attempt(caller, speaker.name, saying) for saying in speaker.sayings if only in saying.text]
    finally:
        caller.hang_up()
        await asyncio.wait([call])


async def measured(talkers: Iterable[Speaker], stt: STT, at_once: int, only: str) -> list[Outcome]:
    fakes = rack(Delays())
    engines = Rack(load("vad", "silero", {}), stt, fakes.llm, fakes.tts())
    room = asyncio.Semaphore(at_once)

    async def one(speaker: Speaker) -> list[Outcome]:
        async with room:
            return await converse(engines, speaker, only)

    async with engines:
        return [outcome for heard in await asyncio.gather(*map(one, talkers)) for outcome in heard]


def table(outcomes: list[Outcome]) -> str:
    rows = []
    for kind in (BACKCHANNEL, NOISE, INTERRUPTION):
        mine = [x for x in outcomes if x.saying.kind == kind]
        if not mine:
            continue
        lost = sum(x.lost for x in mine)
        rows += [
            (f"{kind}s", f"{len(mine)}"),
            ("  the reply was lost", f"{lost} ({lost / len(mine):.0%})"),
            ("  voice to pause, ms, p50 / p95 / max", spread([x.pause_ms for x in mine if x.pause_ms is not None])),
            (
                "  end of the voice to the right verdict, ms, p50 / p95 / max",
                spread([x.decided_ms for x in mine if x.right and x.decided_ms is not None]),
            ),
            (
                "  not noticed; paused more than once",
                f"{sum(not x.pauses for x in mine)}; {sum(x.pauses > 1 for x in mine)}",
            ),
        ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def listed(outcomes: list[Outcome]) -> str:
    """Each outcome in a line."""
    return "\n".join(
        f"{'' if x.right else 'WRONG':5} {x.saying.kind:12} {x.speaker:8} {x.saying.text:32} "
        f"{'lost' if x.lost else 'on':4} {x.pauses} {_ms(x.pause_ms)} {_ms(x.decided_ms)}  {x.heard!r}"
        for x in outcomes
    )


def _ms(value: float | None) -> str:
    return "    -" if value is None else f"{value:5.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cutting_in", description=__doc__.split("\n")[0])
    parser.add_argument("--real", action="store_true", help="in real time, with the recogniser in its own process")
    parser.add_argument("--at-once", type=int, default=3, help="conversations at the same time, in real time")
    parser.add_argument("--only", default="", metavar="TEXT", help="sayings that hold this text")
    parser.add_argument("--list", type=Path, metavar="FILE", help="write every outcome there")
    given = parser.parse_args()
    if given.real:
        heard = asyncio.run(measured(speakers(), load("stt", "pocketsphinx", {}), given.at_once, given.only))
    else:
        heard = run(measured(speakers(), PocketSphinx(Inline(), english=True), 1, given.only))
    print(table(heard))
    if given.list:
        given.list.write_text(listed(heard) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
