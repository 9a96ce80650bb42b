"""Blocking engines on threads: what is made when, and that closing a stream stops its engine and frees its worker."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing

import pytest

from server.pipelines import threads
from server.pipelines.crew import Worker
from server.pipelines.threads import pour, pull


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("worker") as executor:
        yield executor


async def at_rest(worker: Worker) -> None:
    """Wait until the worker has done all it was given."""
    await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(worker, lambda: None), 5)


class Engine:
    """Counts up; knows what it has made, and whether it was closed."""

    def __init__(self, count: int = 1000) -> None:
        self.count = count
        self.made: list[int] = []
        self.closed = False

    def generate(self) -> Iterator[int]:
        try:
            for n in range(self.count):
                self.made.append(n)
                yield n
        finally:
            self.closed = True

    def produce(self, give: Callable[[int], bool]) -> None:
        try:
            for n in range(self.count):
                self.made.append(n)
                if not give(n):
                    return
        finally:
            self.closed = True


async def test_pull_takes_everything_in_order(worker: Worker) -> None:
    assert [n async for n in pull(Engine(5).generate, worker)] == [0, 1, 2, 3, 4]


async def test_pull_makes_nothing_ahead(worker: Worker) -> None:
    engine = Engine()
    async with aclosing(pull(engine.generate, worker)) as stream:
        assert await anext(stream) == 0
        await at_rest(worker)
        assert engine.made == [0]


async def test_a_closed_pull_stops_the_engine_and_frees_the_worker(worker: Worker) -> None:
    engine, following = Engine(), Engine(3)
    async with aclosing(pull(engine.generate, worker)) as stream:
        await anext(stream)
    assert [n async for n in pull(following.generate, worker)] == [0, 1, 2]
    assert engine.made == [0]
    assert engine.closed


async def test_a_cancelled_pull_stops_after_the_piece_in_flight(worker: Worker) -> None:
    begun, finish = threading.Event(), threading.Event()
    made, closed = [], threading.Event()

    def slow() -> Iterator[int]:
        try:
            for n in range(10):
                begun.set()
                finish.wait(10)
                made.append(n)
                yield n
        finally:
            closed.set()

    async def read() -> None:
        async with aclosing(pull(slow, worker)) as stream:
            async for _ in stream:
                pass

    reader = asyncio.create_task(read())
    await asyncio.to_thread(begun.wait, 10)
    reader.cancel()
    await asyncio.wait_for(asyncio.wait([reader]), 5)  # while the piece is still being made
    assert made == []
    finish.set()
    await at_rest(worker)
    assert made == [0]
    assert closed.is_set()


async def test_pulls_that_share_a_worker_take_turns(worker: Worker) -> None:
    order: list[str] = []

    def spell(letter: str) -> Iterator[None]:
        for _ in range(3):
            order.append(letter)
            yield

    async def read(letter: str) -> None:
        async for _ in pull(lambda: spell(letter), worker):
            pass

    await asyncio.gather(read("a"), read("b"))
    assert "".join(order) == "ababab"


async def test_pull_raises_what_the_engine_raises(worker: Worker) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no such phone")

    with pytest.raises(LookupError, match="phone"):
        assert [n async for n in pull(broken, worker)]
    await at_rest(worker)


async def test_pour_takes_everything_in_order(worker: Worker) -> None:
    assert [n async for n in pour(Engine(5).produce, worker)] == [0, 1, 2, 3, 4]


async def test_a_pour_makes_a_piece_when_it_is_asked_for(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE_S", 10.0)
    engine = Engine(3)
    async with aclosing(pour(engine.produce, worker)) as stream:
        for n in range(3):
            assert await anext(stream) == n
            assert engine.made == list(range(n + 1))
        assert [rest async for rest in stream] == []


async def test_a_pour_that_is_closed_while_its_engine_waits_to_be_asked(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PATIENCE_S", 20.0)
    engine = Engine()
    async with aclosing(pour(engine.produce, worker)) as stream:
        await anext(stream)
    await at_rest(worker)
    assert engine.made == [0]


async def test_pour_finishes_without_its_reader(worker: Worker) -> None:
    engine = Engine(50)
    async with aclosing(pour(engine.produce, worker)) as stream:
        await anext(stream)
        await at_rest(worker)
        assert engine.closed
        assert len([n async for n in stream]) == 49


async def test_pour_waits_where_its_buffer_is_full(worker: Worker) -> None:
    taken = 0
    leads: list[int] = []
    full = threading.Event()

    def produce(give: Callable[[int], bool]) -> None:
        for n in range(60):
            if n == 4:
                full.set()
            give(n)
            leads.append(n + 1 - taken)

    async for n in pour(produce, worker, limit=4):
        if n == 0:
            await asyncio.to_thread(full.wait, 10)
        taken = n + 1
    assert taken == 60
    assert max(leads) <= 5  # four in the buffer, one in the reader's hands


async def test_a_closed_pour_stops_the_engine_and_frees_the_worker(worker: Worker) -> None:
    engine, following = Engine(100_000), Engine(3)
    async with aclosing(pour(engine.produce, worker, limit=10)) as stream:
        await anext(stream)
    assert [n async for n in pour(following.produce, worker)] == [0, 1, 2]
    assert engine.closed
    assert len(engine.made) < 100


async def test_a_pour_that_is_closed_while_its_engine_waits_for_room(worker: Worker) -> None:
    full = threading.Event()

    def produce(give: Callable[[int], bool]) -> None:
        n = 0
        while give(n):
            n += 1
            if n == 4:
                full.set()

    async with aclosing(pour(produce, worker, limit=4)) as stream:
        await anext(stream)
        await asyncio.to_thread(full.wait, 10)
    await at_rest(worker)


async def test_a_pour_closed_before_its_turn_never_runs(worker: Worker) -> None:
    free = threading.Event()
    busy = worker.submit(free.wait, 10)
    engine = Engine()
    reader = asyncio.create_task(anext(pour(engine.produce, worker)))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait([reader])
    free.set()
    await at_rest(worker)
    assert busy.done()
    assert engine.made == []


async def test_pour_raises_what_the_engine_raises_after_what_it_made(worker: Worker) -> None:
    def produce(give: Callable[[int], bool]) -> None:
        give(1)
        raise LookupError("no such phone")

    stream = pour(produce, worker)
    assert await anext(stream) == 1
    with pytest.raises(LookupError, match="phone"):
        await anext(stream)
