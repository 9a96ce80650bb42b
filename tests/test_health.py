"""`/health` and `/metrics` on a real server: what an orchestrator and Prometheus see."""

import asyncio
import json
import logging
import re

import httpx
import openai
import pytest
import websockets
from prometheus_client import REGISTRY

from server import telemetry
from server.session import Session
from tests import fakes, virtual_time
from tests.talk import talk
from tests.wire import serving


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def sample(port: int, name: str) -> float:
    """One value of /metrics; 0 where it is not there yet."""
    text = (await get(port, "/metrics")).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def converse(port: int, *messages: dict[str, object], until: str = "turn.metrics") -> list[dict[str, object]]:
    """A conversation without audio: everything told up to `until`."""
    told = []
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws?audio=off") as socket:
        for message in messages:
            await socket.send(json.dumps(message))
        async for frame in socket:
            told.append(json.loads(frame))
            if told[-1]["type"] == until:
                break
    return told


async def test_ready_names_the_engines() -> None:
    async with serving() as server:
        answer = await get(server.port, "/health")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["status"], told["live"], told["ready"], told["sessions"]) == ("healthy", True, True, 0)
        assert told["model_loaded"] is True
        assert told["engines"] == {"vad": "fakes", "stt": "fakes", "llm": "fake", "tts": "fake"}
        assert re.match(r"\d+\.\d+", told["version"])


async def test_sessions_are_counted_while_they_last() -> None:
    async with serving() as server:
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as socket:
            await socket.recv()
            assert (await get(server.port, "/health")).json()["sessions"] == 1
            assert await sample(server.port, "parley_sessions") == 1
        async with asyncio.timeout(5):
            while (await get(server.port, "/health")).json()["sessions"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_not_ready_is_503_and_still_live() -> None:
    async with serving() as server:
        state = server.config.app.state  # type: ignore[union-attr]
        state.rack.ready = False
        answer = await get(server.port, "/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "loading")
        state.rack.ready = True
        state.lobby.closing = True
        answer = await get(server.port, "/health")
        assert (answer.status_code, answer.json()["status"], answer.json()["live"]) == (503, "stopping", True)
        assert (await get(server.port, "/health/live")).status_code == 200


async def test_a_turn_is_in_the_metrics_stage_by_stage() -> None:
    async with serving(fakes.rack(fakes.FakeLLM("Well then, that is that."))) as server:
        names = ['parley_turns_total{kind="text"}', 'parley_replies_total{end="done"}']
        names += [f'parley_stage_seconds_count{{stage="{s}"}}' for s in ("first_token", "first_audio", "first_sent")]
        before = [await sample(server.port, name) for name in names]
        told = await converse(server.port, {"type": "user.text", "text": "hello"})
        after = [await sample(server.port, name) for name in names]
        assert [b - a for a, b in zip(before, after, strict=True)] == [1] * len(names)
        metrics = told[-1]
        assert metrics["turn"] == 1
        assert "stages" not in metrics
        assert 0 <= metrics["first_token"] <= metrics["first_audio"] <= metrics["first_sent"]


async def test_errors_and_refusals_are_counted_by_code() -> None:
    async with serving(server={"token": "secret"}) as server:
        errors, refused = 'parley_errors_total{code="unauthorized"}', 'parley_sessions_refused_total{reason="token"}'
        before = [await sample(server.port, name) for name in (errors, refused)]
        async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws") as socket:
            told = json.loads(await socket.recv())
        assert (told["code"], told["fatal"]) == ("unauthorized", True)
        assert [await sample(server.port, n) for n in (errors, refused)] == [value + 1 for value in before]


async def test_what_prometheus_finds() -> None:
    async with serving() as server:
        text = (await get(server.port, "/metrics")).text
    for name in (
        "parley_sessions",
        "parley_queue_depth",
        "parley_loop_lag_seconds",
        "parley_loop_lag_max_seconds",
        "parley_interruptions_total",
        "parley_resumed_total",
        "parley_drafts_total",
        "parley_dropped_total",
    ):
        assert f"# TYPE {name} " in text or f"# TYPE {name.removesuffix('_total')} " in text, name


def test_what_fails_in_a_reply_is_counted() -> None:
    def failed() -> float:
        return REGISTRY.get_sample_value("parley_errors_total", {"code": "tts_failed"}) or 0.0

    before = failed()
    it, _ = talk("EXPLODE.")
    it.send("user.text", text="Hi.").quiet(1).go()
    assert failed() == before + 1


def test_what_a_conversation_had_to_drop_is_counted_when_it_is_over() -> None:
    def dropped() -> list[float]:
        kinds = ({"what": "microphone_ms"}, {"what": "frames"})
        return [REGISTRY.get_sample_value("parley_dropped_total", kind) or 0.0 for kind in kinds]

    def overrun(session: Session) -> None:
        session.hearing.ear.dropped_ms, session.outbox.frames_dropped = 40.0, 3

    it, _ = talk()
    it.before_end = overrun
    before = dropped()
    it.quiet(0.1).go()
    assert [b - a for a, b in zip(before, dropped(), strict=True)] == [40, 3]


def test_a_loop_that_was_held_up_is_told_for_a_minute() -> None:
    async def told() -> list[float | None]:
        watch = asyncio.create_task(telemetry.watch_loop())
        worst = []
        for wait, held in ((50, 3), (10, 1), (45, 0), (10, 0), (10, 0)):
            await asyncio.sleep(wait)
            virtual_time.hold(held)
            await asyncio.sleep(1)
            worst.append(REGISTRY.get_sample_value("parley_loop_lag_max_seconds"))
        watch.cancel()
        return worst

    assert virtual_time.run(told()) == pytest.approx([3, 3, 3, 1, 0], abs=0.3)


async def test_one_line_a_turn_and_it_names_the_session(caplog) -> None:
    caplog.handler.addFilter(telemetry._Carry())
    with caplog.at_level(logging.INFO, "parley"):
        async with serving() as server:
            told = await converse(server.port, {"type": "user.text", "text": "hello"})
    lines = [record for record in caplog.records if record.getMessage() == "turn"]
    assert len(lines) == 1
    assert lines[0].session == told[0]["session"][:8]
    text = telemetry._Line("text").format(lines[0])
    assert re.search(r"turn turn=1 kind=text end=done .*first_sent=\d", text)
    assert json.loads(telemetry._Line("json").format(lines[0]))["first_sent"] >= 0


def test_what_fetches_over_http_says_nothing_below_a_warning() -> None:
    """Its lines hold addresses whole, and there is one for every request to a language model."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        telemetry.set_up()
        for client in (httpx.AsyncClient, *openai.DefaultAsyncHttpxClient.__mro__[1:-1]):
            assert not logging.getLogger(client.__module__.partition(".")[0]).isEnabledFor(logging.INFO), client
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
