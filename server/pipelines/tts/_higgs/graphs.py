"""CUDA graphs: work on fixed buffers, captured once by key and replayed; without a card the work itself runs."""

import logging
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch

log = logging.getLogger(__name__)

Work = Callable[[], None]


class Graphs:
    """`enabled`: whether anything is captured at all (on CUDA only)."""

    def __init__(self, device: torch.device, enabled: bool) -> None:
        self._device = device
        self.enabled = enabled and device.type == "cuda"
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
        captured and everything runs as it stands, only slower."""
        if not self.enabled:
            return
        try:
            pool = torch.cuda.graph_pool_handle()
            for key, work in works.items():
                self._graphs[key] = self._captured(work, pool)
        except RuntimeError as error:
            self._graphs.clear()
            self.enabled = False
            log.warning("CUDA graphs could not be captured, every row will be slower: %s", error)

    def _captured(self, work: Work, pool: Any) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(2):  # what is chosen or allocated at the first call must not be captured
                work()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other engines start meanwhile in other threads, and may allocate
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
        return graph
