"""One row for all running slots.

It is one function without a decision in it, over buffers that never move. On CUDA it is captured once per batch
size and reach as a graph and replayed; on CPU the same function runs as it stands."""

import logging
import time
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from server.pipelines.tts._higgs.attention import Batch
from server.pipelines.tts._higgs.delay import BOOKS, Codes
from server.pipelines.tts._higgs.graphs import Graphs, Work, first_line, settle
from server.pipelines.tts._higgs.layers import Layers
from server.pipelines.tts._higgs.sampler import Sampling, State, draw
from server.pipelines.tts._higgs.slots import Slots

log = logging.getLogger(__name__)


def buckets(slots: int) -> list[int]:
    """Batch sizes a row is made for: powers of two, and all slots."""
    sizes = [1 << i for i in range(slots.bit_length()) if 1 << i < slots]
    return [*sizes, slots]


class Step:
    """Rows for the first n slots."""

    def __init__(self, model: Any, slots: Slots, graphs: Graphs) -> None:
        self.model, self.slots = model, slots
        self.sizes = buckets(slots.count)
        self.device = slots.kv.device
        self.state = State(slots.count, self.device)
        self.active = torch.zeros(slots.count, dtype=torch.bool, device=self.device)
        self._was_active: tuple[int, ...] = ()
        self._host = torch.zeros(self.state.moving.shape, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        self.layers = Layers(model.model, slots.places)
        self._graphs = graphs

    def begin(self, slot: int, position: int, how: Sampling, rows: Codes) -> None:
        """The prompt in `slot` ends before `position`; what follows is an utterance of which `rows` are made."""
        self.state.begin(slot, how, rows, position)

    def move(self, source: int, target: int, length: int) -> None:
        """The stream of one slot, `length` tokens long, goes on in another."""
        self.slots.move(source, target, length)
        self.state.move(source, target)

    @torch.inference_mode()
    def rows(self, running: Sequence[int], length: int) -> Codes:
        """The next row of each slot in `running`, [len(running), 8]. `length`: tokens of the longest of them."""
        count = next(size for size in self.sizes if size > max(running))
        self._activate(tuple(running))
        return np.array(self._batch(count, self.slots.reach(length + 1))[list(running)])

    @torch.inference_mode()
    def _batch(self, count: int, reach: int) -> Codes:
        """A row of the first `count` slots, on the host: the one transfer and the one wait there is."""
        self._graphs.run(("row", count, reach), lambda: self._row(count, reach))
        self._host[:count].copy_(self.state.moving[:count], non_blocking=True)  # whole: a part would be gathered first
        settle(self.device)
        return np.asarray(self._host[:, :BOOKS].numpy())

    def _activate(self, running: tuple[int, ...]) -> None:
        if running != self._was_active:
            flags = torch.zeros(self.slots.count, dtype=torch.bool)
            flags[list(running)] = True
            self.active.copy_(flags)
            self._was_active = running

    @torch.inference_mode()
    def _row(self, count: int, reach: int) -> None:
        """Read the last row of each of the first `count` slots, draw the next."""
        active = self.active[:count]
        positions = torch.where(active, self.state.position[:count], self.slots.scrap)
        hidden = self.layers.read(self.state.row[:count], positions, Batch(self.slots, positions, reach))
        self.state.advance(draw(self._logits(hidden), self.state), active)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.audio_lm_head(hidden).view(len(hidden), BOOKS, -1)
        return logits

    def measure(self, count: int) -> float:
        """The ms that a row of `count` slots takes, at the middle reach; the best of three. No slot may be running."""
        took = []
        for _ in range(3):
            since = time.perf_counter()
            self._batch(count, self.slots.reach(self.slots.length // 2))
            took.append((time.perf_counter() - since) * 1000)
        return min(took)

    def compile(self, backend: Any = "inductor") -> str:
        """Have torch.compile make what lies between the layers' products, in seconds for every size; why not, where it
        cannot. No slot may run."""
        config = torch._dynamo.config
        config.recompile_limit = max(config.recompile_limit, 2 * len(self.sizes))  # past it the rest would be eager
        self.layers.compile(backend)
        try:
            for size in self.sizes:
                self._row(size, self.slots.reach(1))
        except RuntimeError as error:
            self.layers.compile(None)
            failure = f"rows could not be compiled, they run as they are: {first_line(error)}"
            log.warning(failure)
            return failure
        return ""

    def works(self) -> dict[Hashable, Work]:
        """What there is to capture. No slot may be running."""
        return {
            ("row", count, reach): lambda count=count, reach=reach: self._row(count, reach)  # type: ignore[misc]
            for reach in self.slots.reaches()
            for count in reversed(self.sizes)
        }
