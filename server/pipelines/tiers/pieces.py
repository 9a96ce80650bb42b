"""Messages of a back end cut to a carrier's limit: RunPod takes at most 1 MB at a time. Pure."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

LARGEST = 720_000  # characters of base64 in one message; divides by 8, so that no sample is cut


async def pieces(source: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[dict[str, Any], None]:
    """What `source` yields, a chunk of much audio as several chunks; numbers and totals are those of the pieces."""
    number = 0
    async with aclosing(source) as messages:
        async for message in messages:
            if message.get("status") == "complete":
                yield message | {"total_chunks": number}
                continue
            for part in _parts(message):
                number += 1
                yield part | {"chunk": number}


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    sound = message.get("audio_chunk", "")
    if len(sound) <= LARGEST:
        return [message]
    cuts = [sound[at : at + LARGEST] for at in range(0, len(sound), LARGEST)]
    return [message | {"audio_chunk": cut, "num_samples": _samples(cut)} for cut in cuts]


def _samples(base64: str) -> int:
    return (len(base64) // 4 * 3 - base64[-2:].count("=")) // 2
