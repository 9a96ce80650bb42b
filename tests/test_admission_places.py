"""Who finds a place at an engine, and when those who find none are told to come back. On the virtual clock."""

import asyncio

import pytest

from server.errors import EngineBusy
from server.pipelines.admission import Admission, Stream
from tests.virtual_time import run


async def takes(stream: Stream, seconds: float = 0.1) -> None:
    async with stream.turn():
        await asyncio.sleep(seconds)


def test_an_engine_is_given_no_more_turns_at_once_than_it_carries() -> None:
    async def scene() -> float:
        admission = Admission(1, at_once=4)
        async with admission.stream("a") as one, admission.stream("b") as two:
            await asyncio.gather(takes(one), takes(two))
        return asyncio.get_running_loop().time()

    assert run(scene()) == pytest.approx(0.2)


def test_whoever_is_alone_gets_as_far_ahead_as_the_engine_is_quick() -> None:
    async def scene() -> float:
        async with Admission(2).stream("a") as stream:
            for _ in range(20):
                await takes(stream)
                stream.sent(1_000)
        return asyncio.get_running_loop().time()

    assert run(scene()) == pytest.approx(2)


def test_those_who_are_let_in_already_take_nobodys_place_in_the_queue() -> None:
    async def scene() -> int:
        admission = Admission(1, waiting=1)
        async with admission.stream("a") as one, admission.stream("b") as two, admission.stream("c") as three:
            await takes(one)
            await takes(two)
            await asyncio.gather(takes(one), takes(three))
        return admission.refused

    assert run(scene()) == 0


def test_among_equals_the_first_to_come_goes_first() -> None:
    async def scene() -> list[int]:
        admission, order = Admission(1), list[int]()

        async def one(number: int) -> None:
            async with admission.stream(f"client {number}") as stream, stream.turn():
                order.append(number)
                await asyncio.sleep(0.1)

        await asyncio.gather(*(one(number) for number in range(6)))
        return order

    assert run(scene()) == list(range(6))


@pytest.mark.parametrize(("waited", "retry_after"), [(0, 1), (1, 8), (2, 14.4), (20, 30)])
def test_who_is_refused_is_told_how_long_others_wait(waited: int, retry_after: float) -> None:
    async def scene() -> float | None:
        admission = Admission(1, waiting=1, patience_s=60)
        for _ in range(waited):
            async with admission.stream("a") as hog, admission.stream("b") as patient:
                await asyncio.gather(takes(hog, 40), takes(patient))
        async with admission.stream("a") as hog, admission.stream("b") as patient, admission.stream("c") as late:
            *_, busy = await asyncio.gather(takes(hog), takes(patient), takes(late), return_exceptions=True)
        assert isinstance(busy, EngineBusy)
        return busy.retry_after

    assert run(scene()) == pytest.approx(retry_after)
