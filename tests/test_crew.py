"""Workers beside each other: an idle one is asked first, and each makes its pieces on a core of its own."""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing

import pytest

from server.pipelines import crew, threads
from server.pipelines.crew import Cores, Crew, Worker
from server.pipelines.threads import pour

BOTH = frozenset((0, 1))


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> dict[int, frozenset[int]]:
    """By thread, the cores it was last bound to, of a machine that has two."""
    told: dict[int, frozenset[int]] = {}
    monkeypatch.setattr(os, "sched_setaffinity", told.__setitem__, raising=False)
    return told


@pytest.fixture
def cores() -> Cores:
    return Cores(BOTH)


@pytest.fixture
def hire(cores: Cores) -> Iterator[Callable[[], Worker]]:
    with ExitStack() as stack:

        def one() -> Worker:
            worker = stack.enter_context(Worker("worker", cores))
            worker.submit(int).result()  # its thread has begun
            return worker

        yield one


def test_two_who_make_something_have_a_core_each(hire: Callable[[], Worker], bound: dict[int, frozenset[int]]) -> None:
    one, other, third = hire(), hire(), hire()
    one.sit()
    other.sit()
    third.sit()
    one.sit()
    assert (one.core, other.core, third.core) == (0, 1, None)
    assert list(bound.values()) == [{0}, {1}, BOTH]


def test_who_begins_again_stays_where_he_was_unless_somebody_is_there(
    hire: Callable[[], Worker], bound: dict[int, frozenset[int]]
) -> None:
    one, other, third = hire(), hire(), hire()
    one.sit()
    other.sit()
    one.rise()
    other.rise()
    bound.clear()
    other.sit()
    assert (other.core, bound) == (1, {})
    other.rise()
    third.sit()
    one.sit()
    assert (third.core, one.core) == (0, 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no threads to cores")
def test_the_thread_itself_is_bound_and_no_other() -> None:
    allowed = os.sched_getaffinity(0)
    with Worker("worker", Cores((min(allowed),))) as worker:
        worker.submit(int).result()
        worker.sit()
        assert worker.submit(os.sched_getaffinity, 0).result() == {min(allowed)}
        assert os.sched_getaffinity(0) == allowed


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no threads to cores")
def test_a_core_that_is_gone_stops_nobody() -> None:
    with Worker("worker", Cores((4_095,))) as worker:
        worker.submit(int).result()
        worker.sit()
        assert worker.core is None
        assert worker.submit(len, "on").result() == 2


def test_a_machine_with_many_cores_is_left_to_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, few in ((1, False), (2, True), (4, True), (5, False)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: set(range(count)), raising=False)
        with Worker("worker", crew._few()) as worker:
            worker.submit(int).result()
            told: list[object] = []
            monkeypatch.setattr(os, "sched_setaffinity", lambda *what, told=told: told.append(what), raising=False)
            worker.sit()
            assert bool(told) is few


def test_who_is_idle_is_asked_first_and_where_nobody_is_each_in_turn() -> None:
    finish = threading.Event()
    members: Crew[str] = Crew()
    with Worker("a") as a, Worker("b") as b:
        members.add("a", a)
        members.add("b", b)
        a.submit(finish.wait, 10)
        assert members.next() == ("b", b)
        b.submit(finish.wait, 10)
        asked = [member[0] for _ in range(4) if (member := members.next())]
        assert asked in (["a", "b"] * 2, ["b", "a"] * 2)
        finish.set()


def test_a_crew_that_has_left_does_nothing() -> None:
    members: Crew[str] = Crew()
    with Worker("a") as a:
        members.add("a", a)
        assert members.leave() == [("a", a)]
        assert members.next() is None


async def test_a_core_is_held_for_as_long_as_a_piece_is_made(
    hire: Callable[[], Worker], cores: Cores, bound: dict[int, frozenset[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE_S", 10.0)
    begun, finish = threading.Semaphore(0), threading.Semaphore(0)

    def produce(give: Callable[[int], bool]) -> None:
        for n in range(2):
            begun.release()
            finish.acquire(timeout=10)
            give(n)

    async with aclosing(pour(produce, hire())) as stream:
        for _ in range(2):
            piece = asyncio.ensure_future(anext(stream))
            await asyncio.to_thread(begun.acquire, timeout=10)
            assert cores.free == {1}
            finish.release()
            await piece
            assert cores.free == BOTH


async def test_who_makes_more_than_he_was_asked_for_holds_his_core_to_the_end(
    hire: Callable[[], Worker], cores: Cores, bound: dict[int, frozenset[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE_S", 0.001)
    one, ahead, finish = hire(), threading.Event(), threading.Event()

    def produce(give: Callable[[int], bool]) -> None:
        give(0)
        ahead.set()
        finish.wait(10)
        give(1)

    async with aclosing(pour(produce, one)) as stream:
        await anext(stream)
        await asyncio.to_thread(ahead.wait, 10)
        assert cores.free == {1}
        finish.set()
        await asyncio.wrap_future(one.submit(int))
        assert await anext(stream) == 1
        assert cores.free == BOTH


async def test_a_job_that_never_began_holds_no_core(
    hire: Callable[[], Worker], cores: Cores, bound: dict[int, frozenset[int]]
) -> None:
    one, finish = hire(), threading.Event()
    one.submit(finish.wait, 10)
    reader = asyncio.create_task(anext(pour(lambda give: None, one)))
    await asyncio.sleep(0)
    assert cores.free == {1}
    reader.cancel()
    await asyncio.wait([reader])
    assert cores.free == BOTH
    finish.set()


async def test_a_worker_that_has_left_holds_no_core(
    hire: Callable[[], Worker], cores: Cores, bound: dict[int, frozenset[int]]
) -> None:
    one = hire()
    one.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        await anext(pour(lambda give: None, one))
    assert cores.free == BOTH
