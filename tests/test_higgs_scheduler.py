# ruff: noqa: E402
"""Who goes next, and who waits."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.errors import EngineBusy
from server.pipelines.tts._higgs.clock import LARGEST, SMALLEST, Clock
from server.pipelines.tts._higgs.delay import EOS
from server.pipelines.tts._higgs.step import buckets
from tests.higgs.stage import Stage, alone, drawn

TEXT = "A sentence of some length, spoken by many."


def test_batches_come_in_powers_of_two() -> None:
    assert [buckets(n) for n in (1, 2, 3, 32, 48)] == [
        [1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 16, 32], [1, 2, 4, 8, 16, 32, 48],
    ]  # fmt: skip


def test_streams_in_real_time_follow_from_the_measured_rows() -> None:
    clock = Clock(buckets(64), headroom=0.8)
    for size, ms in ((1, 3), (2, 3), (4, 4), (8, 6), (16, 11), (32, 31), (64, 60)):
        clock.row(size, ms)
    assert clock.carries() == 32
    assert clock.row_ms(5) == 6
    for _ in range(100):
        clock.row(32, 45)  # somebody else came onto the card
    assert clock.carries() == 16
    slow = Clock(buckets(4))
    slow.row(1, 90)
    assert slow.carries() == 1
    assert not slow.realtime


def test_a_prompt_is_read_as_fast_as_the_others_can_spare() -> None:
    clock = Clock([1])
    assert clock.piece(0) == LARGEST, "nothing is known of its speed yet"
    clock.prompt(100, 50)
    assert [clock.piece(spare) for spare in (-100, 0, 50, 1e6)] == [SMALLEST, SMALLEST, 100, LARGEST]
    assert clock.piece(float("inf")) == LARGEST


def test_who_came_first_is_let_in_first() -> None:
    stage = Stage(slots=4, streams=2)
    streams = [stage.say(TEXT, drawn(i), limit=12 + 3 * (i % 3)) for i in range(7)]
    entered: list[int] = []
    for _ in range(400):
        stage.scheduler.tick()
        entered += [i for i, s in enumerate(streams) if s.slot is not None and i not in entered]
        assert stage.scheduler.active <= 2
    assert entered == list(range(7))
    assert all(s.complete for s in streams)


def test_who_waits_too_long_is_told() -> None:
    stage = Stage(slots=1, wait_ms=500)
    stage.say(TEXT, drawn(0), limit=700)
    waiting = stage.say(TEXT, drawn(1))
    stage.scheduler.tick()
    assert not waiting.outlet.ended  # type: ignore[attr-defined]
    stage.now += 501
    stage.scheduler.tick()
    assert isinstance(waiting.outlet.error, EngineBusy)  # type: ignore[attr-defined]
    assert not stage.scheduler.waiting


def test_who_leaves_while_waiting_never_enters() -> None:
    stage = Stage(slots=1)
    first, second, third = (stage.say(TEXT, drawn(i), limit=12) for i in range(3))
    stage.scheduler.tick()
    second.cancelled = True
    stage.run()
    assert first.complete
    assert third.complete
    assert len(second.said) == 0


@pytest.mark.parametrize("keep", [2**28, 0], ids=["kept", "read again"])
def test_a_slot_whose_listener_has_enough_is_given_away_and_taken_back(keep: int) -> None:
    """At every row of an utterance that ends by itself; it goes on as if nothing had been."""
    rows = alone(TEXT, drawn(9), limit=60)
    assert (rows[-1] == EOS).all(), "choose a seed whose utterance ends by itself"
    for row in range(1, len(rows)) if keep else (1, 12, len(rows) - 3):
        stage = Stage(slots=1, keep=keep)
        held = stage.say(TEXT, drawn(9), limit=60)
        stage.until(lambda held=held, row=row: len(held.said) >= row)  # type: ignore[misc]
        held.outlet.full = True  # type: ignore[misc]
        other = stage.say("Meanwhile.", drawn(1), limit=15)
        stage.scheduler.tick()
        assert (held.slot, other.slot) == (None, 0)
        assert stage.scheduler.active == 1
        held.outlet.full = False  # type: ignore[misc]
        stage.scheduler.tick()
        assert held.slot is None, "it took the slot of one that is running"
        stage.run()
        assert np.array_equal(held.said.array(), rows), row
        assert held.complete
        assert stage.as_alone(other)
        if keep:
            kv = stage.kept(held)
            fresh = Stage(slots=1)
            one = fresh.say(TEXT, drawn(9), limit=60)
            fresh.run()
            assert float((kv - fresh.kept(one)).abs().max()) < 1e-4


def test_a_parked_stream_that_is_cancelled_never_comes_back() -> None:
    stage = Stage(slots=1)
    held = stage.say(TEXT, drawn(0), limit=60)
    stage.until(lambda: len(held.said) >= 10)
    held.outlet.full = True  # type: ignore[misc]
    other = stage.say(TEXT, drawn(1), limit=15)
    stage.scheduler.tick()
    held.cancelled = True
    held.outlet.full = False  # type: ignore[misc]
    stage.run()
    assert other.complete
    assert len(held.said) == 10
    assert not stage.scheduler.voiced


def test_a_newcomer_goes_before_those_who_have_enough_to_play() -> None:
    """While the others have a second in hand, the prompt is read without a row in between; else they get theirs."""
    for in_hand, rows in ((1000.0, 0), (0.0, 5)):
        stage = Stage(slots=2)
        running = stage.say(TEXT, drawn(0), limit=200)
        stage.until(lambda running=running: running.outlet.pieces)  # type: ignore[attr-defined, misc]
        stage.clock.piece = lambda spare: 16  # type: ignore[method-assign, assignment]
        new = stage.say("x" * 40, drawn(1))
        before = len(running.said)
        for _ in range(5):
            running.plays_until = stage.now + in_hand
            stage.scheduler.tick()
        assert new.reading
        assert len(running.said) - before == rows


def test_nothing_is_decoded_of_a_cancelled_stream() -> None:
    stage = Stage(slots=2)
    decoded: list[Any] = []
    decode = stage.codec.decode
    stage.codec.decode = lambda windows: (decoded.extend(windows), decode(windows))[1]  # type: ignore[method-assign]
    stream = stage.say(TEXT, drawn(0), limit=90)
    stage.until(lambda: stream.outlet.pieces)  # type: ignore[attr-defined]
    stream.cancelled = True
    count, given = len(decoded), len(stream.outlet.pieces)  # type: ignore[attr-defined]
    stage.run()
    assert (len(decoded), len(stream.outlet.pieces)) == (count, given)  # type: ignore[attr-defined]


def test_a_piece_that_is_being_decoded_when_its_stream_is_cancelled_is_not_given_out() -> None:
    stage = Stage(slots=2)
    decode, held = stage.codec.decode, [True]

    class Slow:
        def __init__(self, windows: Any) -> None:
            self._done = decode(windows)

        @property
        def ready(self) -> bool:
            return not held[0]

        def result(self) -> Any:
            return self._done.result()

    stage.codec.decode = Slow  # type: ignore[method-assign, assignment]
    cut, other = stage.say(TEXT, drawn(0), limit=40), stage.say(TEXT, drawn(2), limit=40)
    stage.until(lambda: cut.decoding and other.decoding)
    cut.cancelled = True
    stage.scheduler.tick()
    held[0] = False
    stage.run()
    assert not cut.outlet.pieces  # type: ignore[attr-defined]
    assert other.outlet.pieces  # type: ignore[attr-defined]
    assert other.complete


def test_cancelling_while_the_prompt_is_read_frees_the_slot_at_once() -> None:
    stage = Stage(slots=1)
    stage.clock.piece = lambda spare: 16  # type: ignore[method-assign, assignment]
    cut, waiting = stage.say(TEXT, drawn(0), limit=20), stage.say(TEXT, drawn(1), limit=20)
    stage.scheduler.tick()
    assert cut.reading
    cut.cancelled = True
    stage.scheduler.tick()
    assert (cut.slot, waiting.slot) == (None, 0)
    stage.run()
    assert stage.as_alone(waiting)
