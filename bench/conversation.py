"""Conversations at once: what the server adds to its engines' delays, and what it uses, by the number of sessions.

Each user asks, listens, cuts in with the voice, listens, presses Stop, asks once more with the answer drafted in the
silence, and hears that reply to its end.
"""

import asyncio
import statistics
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from bench.engines import WORD_MS, Delays
from bench.user import VOICE, User

ASK = VOICE * 40
CUT_IN = VOICE * 60
SAMPLES = 10  # of the first figure, at least


@dataclass
class Figures:
    """What the users of one level have measured, in ms, and what the server used."""

    sessions: int
    answer: list[float] = field(default_factory=list)  # turn end to first audio, beyond the engines' delays
    drafted: list[float] = field(default_factory=list)  # the same in all, with the answer drafted in the silence
    pause: list[float] = field(default_factory=list)  # first voiced frame sent to `reply.paused`
    decide: list[float] = field(default_factory=list)  # the same to `reply.interrupted`
    stop: list[float] = field(default_factory=list)  # `reply.interrupt` sent to the end of all audio
    gap: list[float] = field(default_factory=list)  # the longest of each reply, as it arrived
    words: list[int] = field(default_factory=list)  # history and acknowledged audio apart
    strays: int = 0
    failed: list[str] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)  # of this process, the users' own
    cpu: float = 0.0  # share of a core, a session
    mb: float = 0.0  # a session
    gap_max: float = 0.0  # between two frames, as the server wrote them
    waited: float = 0.0  # share of the time that the server wanted a core and had none
    lag_p99: float = 0.0
    lag_max: float = 0.0


async def level(address: str, sessions: int, delays: Delays) -> Figures:
    """`sessions` users at once."""
    figures = Figures(sessions)
    before, idle = await look(address, collect=True), await idling(address)
    gate = asyncio.Barrier(sessions + 1)
    watching = asyncio.create_task(_watch(figures))
    users = [asyncio.create_task(_converse(address, i, gate, delays, figures)) for i in range(sessions)]
    await gate.wait()  # everybody is connected
    start = await look(address)
    await asyncio.sleep(5.0)  # in the middle of it
    end = await look(address)
    await asyncio.wait(users)
    watching.cancel()
    whole = await look(address)
    figures.gap_max = max(end["gap_max_ms"], whole["gap_max_ms"])
    figures.cpu, figures.mb = (share(start, end) - idle) / sessions, (end["mb"] - before["mb"]) / sessions
    figures.waited = (whole["waited_s"] - start["waited_s"]) / (whole["at_s"] - start["at_s"])
    figures.lag_p99, figures.lag_max = whole["lag_p99_ms"], max(end["lag_max_ms"], whole["lag_max_ms"])
    figures.failed = [f"{type(e).__name__}: {e}" for user in users if (e := user.exception())]
    return figures


async def idling(address: str) -> float:
    """Share of a core that the server takes with nobody there."""
    start = await look(address)
    await asyncio.sleep(2.0)
    return share(start, await look(address))


def share(start: dict[str, Any], end: dict[str, Any]) -> float:
    """Of a core, between two looks."""
    return float((end["cpu_s"] - start["cpu_s"]) / (end["at_s"] - start["at_s"]))


async def look(address: str, *, collect: bool = False) -> dict[str, Any]:
    """What the server says of itself, after a garbage collection with `collect`."""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{address}/bench{'?collect' if collect else ''}")
        return dict(answer.json())


async def _watch(figures: Figures) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + 0.01
        await asyncio.sleep(0.01)
        figures.lag.append((loop.time() - due) * 1000)


async def _converse(address: str, number: int, gate: asyncio.Barrier, delays: Delays, figures: Figures) -> None:
    async with User(address) as user:
        await gate.wait()
        await asyncio.sleep(3.0 * number / figures.sessions)  # nobody waits for anybody
        for _ in range(max(0, SAMPLES - figures.sessions)):  # few users ask more often
            await _ask(user, figures.answer, delays.total * 1000)
            await user.send("reply.interrupt")
            await asyncio.sleep(0.3)
        await _ask(user, figures.answer, delays.total * 1000)
        await user.heard(900)
        await _cut_in(user, figures)
        await user.heard(900)
        await _stop(user, figures)
        await user.send("session.update", turn={"speculative": True})
        await asyncio.sleep(0.2)
        await _ask(user, figures.drafted, 0.0)
        await user.told("reply.done", since=len(user.events))
        figures.gap += [max(gaps) for reply in user.replies.values() if (gaps := reply.gaps())]
        figures.strays += user.strays


async def _ask(user: User, took: list[float], known_ms: float) -> None:
    since = len(user.events)
    await user.say(ASK)
    ended, _ = await user.told("user.stopped", since)
    await user.told("reply.audio", since)
    took.append((await user.heard(0.1)).frames[0] - ended - known_ms)


async def _cut_in(user: User, figures: Figures) -> None:
    since = len(user.events)
    speaking = asyncio.create_task(user.say(CUT_IN))
    interrupted, told = await user.told("reply.interrupted", since)
    paused, _ = await user.told("reply.paused", since)
    began = await speaking
    figures.pause.append(paused - began)
    figures.decide.append(interrupted - began)
    figures.words.append(_apart(told, user.acked[told["reply"]]))
    await user.told("reply.audio", since)


async def _stop(user: User, figures: Figures) -> None:
    since = len(user.events)
    sent = await user.send("reply.interrupt")
    at, told = await user.told("reply.interrupted", since)
    reply = user.replies[told["reply"]]
    figures.stop.append(max(at, reply.frames[-1]) - sent)
    figures.words.append(_apart(told, user.acked[told["reply"]]))


def _apart(interrupted: dict[str, Any], acked_ms: float) -> int:
    """How many words history and acknowledged audio differ by; a word counts from its middle on."""
    return abs(len(interrupted["heard"].split()) - int((acked_ms + WORD_MS / 2) // WORD_MS))


def spread(values: list[float], *quantiles: float) -> str:
    return " / ".join(f"{value:.1f}" for value in np.percentile(values, quantiles)) if values else "-"


ROWS = (
    ("turn end to first audio beyond the engines, ms, p50 / p95", lambda f: spread(f.answer, 50, 95)),
    ("the same in all, answer drafted in the silence, p50 / p95", lambda f: spread(f.drafted, 50, 95)),
    ("voice to pause, ms, p50 / p95", lambda f: spread(f.pause, 50, 95)),
    ("voice to interruption, ms, p50 / p95", lambda f: spread(f.decide, 50, 95)),
    ("Stop sent to last frame, ms, p50 / p95", lambda f: spread(f.stop, 50, 95)),
    ("longest gap between two frames written, ms", lambda f: f"{f.gap_max:.0f}"),
    ("longest gap of each reply as it arrived, ms, p50 / max", lambda f: spread(f.gap, 50, 100)),
    ("frames after the end of their reply", lambda f: str(f.strays)),
    ("history and acknowledged audio apart, words, max", lambda f: str(max(f.words, default=0))),
    ("processor, % of a core a session", lambda f: f"{f.cpu * 100:.2f}"),
    ("memory, MB a session", lambda f: f"{f.mb:.2f}"),
    ("the server's loop late, ms, p99 / max", lambda f: f"{f.lag_p99:.1f} / {f.lag_max:.1f}"),
    ("the users' loop late, ms, p99 / max", lambda f: spread(f.lag, 99, 100)),
    ("the server had to wait for a core, % of the time", lambda f: f"{f.waited * 100:.1f}"),
    ("users who failed", lambda f: str(len(f.failed))),
)


def table(levels: list[Figures]) -> str:
    width = max(len(name) for name, _ in ROWS)
    head = "sessions".ljust(width) + "".join(f"{f.sessions:>16}" for f in levels)
    lines = [name.ljust(width) + "".join(f"{show(f):>16}" for f in levels) for name, show in ROWS]
    failures = [failure for f in levels for failure in f.failed[:2]]
    return "\n".join([head, *lines, *failures])


def budgets(levels: list[Figures]) -> list[tuple[str, bool]]:
    """Each budget in words, and whether it is met; those for 25 sessions are read at the level nearest to it."""
    alone, many = levels[0], min(levels, key=lambda f: abs(f.sessions - 25))
    at, answer = f"at {many.sessions} sessions", np.percentile(many.answer, 95)
    first = statistics.median(alone.answer)
    stop, gap = np.percentile(many.stop, 95), many.gap_max
    apart = max(max(f.words, default=0) for f in levels)
    return [
        (f"turn end to first audio alone: p50 {first:.1f} of 5 ms", first <= 5),
        (f"turn end to first audio {at}: p95 {answer:.1f} of 30 ms", bool(answer <= 30)),
        (f"barge-in to last frame {at}: p95 {stop:.1f} of 20 ms", bool(stop <= 20)),
        (f"longest gap {at}: {gap:.0f} of 80 ms", gap <= 80),
        (f"history within {apart} of 1 word of the acknowledged audio", apart <= 1),
        (f"processor {at}: {many.cpu * 100:.2f} of 3 % of a core a session", many.cpu <= 0.03),
        (f"memory {at}: {many.mb:.2f} of 2 MB a session", many.mb <= 2),
        (f"no frame of a reply after its end ({sum(f.strays for f in levels)})", not any(f.strays for f in levels)),
        (f"every user came through ({sum(len(f.failed) for f in levels)} failed)", not any(f.failed for f in levels)),
    ]
