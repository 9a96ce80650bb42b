"""An async generator read ahead of its reader: what comes next is made while this is still being used."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T


async def ahead(source: AsyncGenerator[T, None], depth: int = 1) -> AsyncGenerator[T, None]:
    """What `source` yields, `depth` items ahead and one in the making. Closing it closes `source`; raises what it
    raises, after what came before."""
    queue: asyncio.Queue[_Item[T] | BaseException | None] = asyncio.Queue(depth)
    task = asyncio.create_task(_fill(source, queue), name="ahead")
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item.value
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _fill(source: AsyncGenerator[T, None], queue: "asyncio.Queue[_Item[T] | BaseException | None]") -> None:
    try:
        async with aclosing(source):
            async for value in source:
                await queue.put(_Item(value))
    except Exception as error:
        await queue.put(error)
    else:
        await queue.put(None)
