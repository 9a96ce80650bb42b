"""CUDA graphs: work on fixed buffers, captured once by key and replayed; without a card the work itself runs."""

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)

Work = Callable[[], None]


def settle(device: torch.device) -> None:
    """Wait for what this thread asked of the card; without one everything is done when it was asked."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def first_line(error: BaseException) -> str:
    """What an error of torch says before its advice and its stack; for one of the compiler, what went wrong in it."""
    return str(getattr(error, "inner_exception", error)).partition("\n")[0]


class Graphs:
    """`enabled`: whether anything is captured at all (on CUDA only). `failure`: why nothing could be, if so."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self._device = device
        self.enabled = enabled and device.type == "cuda"
        self.failure = ""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def run(self, key: Hashable, work: Work) -> None:
        """Replay what was captured under `key`, or do `work`."""
        graph = self._graphs.get(key)
        if graph is not None:
            graph.replay()
        else:
            work()

    def capture(self, works: Mapping[Hashable, Work]) -> None:
        """Capture all of it, the largest first, so that the others fit into its memory. Where that fails, nothing is
        captured and everything runs as it stands, only slower: `failure` says why."""
        if not self.enabled:
            return
        try:
            self._capture(works)
        except RuntimeError as error:
            self._graphs.clear()
            self.enabled = False
            self.failure = f"CUDA graphs could not be captured, every row is slower: {first_line(error)}"
            log.warning(self.failure)

    def _capture(self, works: Mapping[Hashable, Work]) -> None:
        with torch.cuda.device(self._device):  # a graph is captured on the thread's own card, whatever it works on
            # One stream for all: the pool's memory and the libraries' workspaces are kept by stream.
            side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            pool = torch.cuda.graph_pool_handle()
            with torch.cuda.stream(side):  # the thread gets its own stream back, even from a capture that broke off
                for key, work in works.items():
                    self._graphs[key] = self._captured(work, pool, side)
            torch.cuda.current_stream().wait_stream(side)

    def _captured(self, work: Work, pool: Any, side: Any) -> torch.cuda.CUDAGraph:
        for _ in range(2):  # what is chosen or allocated at the first call must not be captured
            work()
        graph = torch.cuda.CUDAGraph()
        # thread_local: other engines start meanwhile in other threads, and may allocate
        with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
            work()
        return graph
