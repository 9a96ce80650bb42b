"""Reading a stream ahead of whoever takes it, so that a listener who pauses does not stall the server that sends."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def ahead(source: AsyncGenerator[T, None], limit: int) -> AsyncGenerator[T, None]:
    """What `source` yields, read up to `limit` items ahead; then the source waits. Closing this closes the source."""
    items: asyncio.Queue[T | BaseException | None] = asyncio.Queue(limit)

    async def read() -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await items.put(item)
            await items.put(None)
        except Exception as error:
            await items.put(error)

    reader = asyncio.create_task(read())
    try:
        while (item := await items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        reader.cancel()
        await asyncio.wait([reader])
