"""asyncio on a clock that jumps to the next timer: hours of conversation in milliseconds, and always the same."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

SPINS = 100_000


class VirtualSelector(selectors.DefaultSelector):
    now = 0.0
    spins = 0  # in a row without the time moving

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        self.spins = 0 if timeout else self.spins + 1
        assert self.spins < SPINS, f"the loop spins at {self.now:.3f} s: somebody waits without waiting"
        if not ready and timeout:
            self.now += timeout
        if not ready and timeout is None:
            ready = super().select(None)
        return ready


def hold(seconds: float) -> None:
    """Keep the running loop from everything else for so long."""
    asyncio.get_running_loop()._selector.now += seconds  # type: ignore[attr-defined]


def run(coro: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run`, on virtual time. `loop.time()` is the clock."""
    selector = VirtualSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(coro)
