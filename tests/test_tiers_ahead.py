"""Reading ahead of a reader."""

import asyncio
from contextlib import aclosing

import pytest

from server.pipelines.tiers.ahead import ahead


async def test_ahead_reads_ahead_but_not_without_end():
    made = []

    async def source():
        for n in range(10):
            made.append(n)
            yield n

    async with aclosing(ahead(source(), 2)) as items:
        assert await anext(items) == 0
        for _ in range(10):
            await asyncio.sleep(0)
        assert made == [0, 1, 2, 3]  # two wait, one is in hand
        assert [n async for n in items] == list(range(1, 10))


async def test_ahead_closes_its_source_and_passes_on_what_it_raises():
    closed = []

    async def source():
        try:
            yield 1
            raise ValueError("later")
        finally:
            closed.append(True)

    async with aclosing(ahead(source())) as items:
        assert await anext(items) == 1
        with pytest.raises(ValueError, match="later"):
            await anext(items)
    assert closed == [True]

    async def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    async with aclosing(ahead(endless())) as items:
        await anext(items)
    assert closed == [True, True]
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "ahead"]
