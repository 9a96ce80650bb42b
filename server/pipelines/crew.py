"""Threads that make speech beside each other: who is idle is asked first, and who takes long has a core to himself.

A kernel may wake a thread on a core where another one works, and leave it there for milliseconds beside an idle core:
on a busy machine of few cores it hardly looks for one. A first sound is made in less than that.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

T = TypeVar("T")

FEW = 4  # cores; where there are more, the kernel finds an idle one


class Cores:
    """Who works on which core. A thread is moved while it sleeps, which takes microseconds."""

    def __init__(self, cores: Iterable[int] = ()) -> None:
        self._cores = frozenset(cores)
        self._held: dict[Worker, int] = {}

    @property
    def free(self) -> frozenset[int]:
        return self._cores.difference(self._held.values())

    def take(self, worker: "Worker") -> None:
        """A core for `worker` alone, if there is one; else it runs where the kernel likes."""
        if not self._cores or worker in self._held:
            return
        if free := self.free:
            core = self._held[worker] = worker.core if worker.core in free else min(free)
            worker.move(frozenset((core,)))
        else:
            worker.move(self._cores)

    def leave(self, worker: "Worker") -> None:
        self._held.pop(worker, None)


class Worker(ThreadPoolExecutor):
    """One thread. `cores` has a core for it whenever it makes something. None: it is not worth it, or it starts threads
    of its own, which would all be bound to that core."""

    def __init__(self, name: str, cores: Cores | None = None) -> None:
        super().__init__(1, name, initializer=self._begin)
        self._cores = cores or Cores()
        self._bound: frozenset[int] = frozenset()
        self._thread = 0
        self._last: Future[Any] | None = None

    def _begin(self) -> None:
        self._thread = threading.get_native_id()

    @property
    def idle(self) -> bool:
        return self._last is None or self._last.done()

    @property
    def core(self) -> int | None:
        """The one it is bound to."""
        return next(iter(self._bound)) if len(self._bound) == 1 else None

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        self._last = job = super().submit(fn, *args, **kwargs)
        return job

    def sit(self) -> None:
        """It is about to make something."""
        self._cores.take(self)

    def rise(self) -> None:
        """It has made it."""
        self._cores.leave(self)

    def move(self, cores: frozenset[int]) -> None:
        if not self._thread or cores == self._bound:
            return
        try:
            os.sched_setaffinity(self._thread, cores)
            self._bound = cores
        except OSError:  # the thread has ended, or the machine has taken the core away
            self._bound = frozenset()


class Crew(Generic[T]):
    """Workers, each with its tool: what it makes speech with."""

    def __init__(self) -> None:
        self._members: deque[tuple[T, Worker]] = deque()

    def add(self, tool: T, worker: Worker) -> None:
        self._members.append((tool, worker))

    def next(self) -> tuple[T, Worker] | None:
        """Somebody idle; where all are busy, each in turn. None where there is nobody."""
        for member in self._members:
            if member[1].idle:
                return member
        self._members.rotate(-1)
        return self._members[-1] if self._members else None

    def leave(self) -> list[tuple[T, Worker]]:
        """Everybody, who are members no longer."""
        members = list(self._members)
        self._members.clear()
        return members


def _few() -> Cores:
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    return Cores(cores if 1 < len(cores) <= FEW else ())


CORES = _few()  # of this process
