"""Waiting for the next piece of a stream: with a limit, and as long as a listener is patient."""

import asyncio
from collections.abc import AsyncIterator


class Patience:
    """A listener's, with the first piece: `seconds` from the first delta on; None has no end."""

    def __init__(self, seconds: float | None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._seconds = seconds
        self._end: float | None = None

    def over(self) -> bool:
        """Whether it is lost, now that there is something to say."""
        if self._seconds is None:
            return False
        if self._end is None:
            self._end = self._clock() + self._seconds
        return self._clock() >= self._end

    def rewarded(self) -> None:
        """There was a piece."""
        self._seconds = self._end = None


class Source:
    """An async iterator that may be waited for with a limit, without being cancelled when the limit passes."""

    def __init__(self, tokens: AsyncIterator[str]) -> None:
        self._tokens = tokens
        self._step: asyncio.Task[str | None] | None = None
        self.idle = False  # told once, until the next delta

    async def next(self, timeout: float | None) -> str | None:
        """The next delta; "" when none has come for `timeout` seconds; None at the end."""
        if self._step is None:
            if timeout is None:
                return await anext(self._tokens, None)
            self._step = asyncio.ensure_future(self._anext())
        await asyncio.wait({self._step}, timeout=None if self.idle else timeout)
        if not self._step.done():
            self.idle = True
            return ""
        step, self._step, self.idle = self._step, None, False
        return step.result()

    async def _anext(self) -> str | None:
        return await anext(self._tokens, None)

    async def close(self) -> None:
        if self._step is not None:
            self._step.cancel()
            await asyncio.wait({self._step})
            if not self._step.cancelled():
                self._step.exception()  # looked at, so that nobody is told it was not
        if close := getattr(self._tokens, "aclose", None):
            await close()
