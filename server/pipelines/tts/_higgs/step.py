"""The two things the model is asked to do: read a prompt into a slot, and make one row for all running slots.

The row is one function without a decision in it, over buffers that never move. On CUDA it is captured once per batch
size and reach as a graph and replayed; on CPU the same function runs as it stands."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from server.pipelines.tts._higgs.delay import BOOKS, Codes
from server.pipelines.tts._higgs.sampler import CODES, Sampling, State, draw
from server.pipelines.tts._higgs.slots import Slots

log = logging.getLogger(__name__)

GRAIN = 512  # tokens by which the reach of a row grows


def buckets(slots: int) -> list[int]:
    """Batch sizes a row is made for: powers of two, and all slots."""
    sizes = [1 << i for i in range(slots.bit_length()) if 1 << i < slots]
    return [*sizes, slots]


class Step:
    """Rows for the first n slots. `mode`: "eager", "graph" (captured, on CUDA) or "compile" (and then captured)."""

    def __init__(self, model: Any, slots: Slots, mode: str) -> None:
        self.model, self.slots = model, slots
        self.sizes = buckets(slots.count)
        self.device = slots.kv.device
        self.state = State(slots.count, self.device)
        self.positions = torch.zeros(slots.count, dtype=torch.int64, device=self.device)
        self.active = torch.zeros(slots.count, dtype=torch.bool, device=self.device)
        self._was_active: tuple[int, ...] = ()
        self._host = torch.zeros(slots.count, BOOKS, dtype=torch.int64, pin_memory=self.device.type == "cuda")
        self._forward = torch.compile(model.model, dynamic=False) if mode == "compile" else model.model
        self._captures = self.device.type == "cuda" and mode != "eager"
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}

    def reach(self, length: int) -> int:
        """How far a row looks that reads `length` tokens."""
        return min(self.slots.length, -(-length // GRAIN) * GRAIN)

    def reaches(self) -> list[int]:
        """All reaches a row can have, longest first."""
        return sorted({self.reach(n) for n in range(GRAIN, self.slots.length + GRAIN, GRAIN)}, reverse=True)

    def begin(self, slot: int, position: int, how: Sampling) -> None:
        """The prompt in `slot` ends before `position`; what follows is an utterance."""
        self.state.begin(slot, how)
        self.positions[slot] = position

    def move(self, source: int, target: int, length: int) -> None:
        """The stream of one slot, `length` tokens long, goes on in another."""
        self.slots.move(source, target, length)
        self.state.move(source, target)
        self.positions[target].copy_(self.positions[source])

    @torch.inference_mode()
    def prefill(self, slot: int, begin: int, tokens: Codes, audio_id: int) -> None:
        """Read `tokens` [n, 9] (text id, then codes where the id says sound) into `slot` from position `begin`."""
        end = begin + len(tokens)
        ids = torch.from_numpy(tokens[:, 0]).to(self.device)[None]
        sound = tokens[tokens[:, 0] == audio_id, 1:]
        audio = torch.from_numpy(sound).to(self.device)[None] if len(sound) else None
        places = torch.arange(begin, end, device=self.device)
        self.model.model(
            input_ids=ids,
            audio_input_ids=audio,
            audio_input_ids_mask=None
            if audio is None
            else torch.ones(audio.shape[:2], dtype=torch.bool, device=self.device),
            position_ids=places[None],
            attention_mask=(torch.arange(end, device=self.device) <= places[:, None])[None, None],
            past_key_values=self.slots.run(slot, begin, end),
            use_cache=True,
        )

    @torch.inference_mode()
    def rows(self, running: Sequence[int], length: int) -> Codes:
        """The next row of each slot in `running`, [len(running), 8]. `length`: tokens of the longest of them."""
        count = next(size for size in self.sizes if size > max(running))
        self._activate(tuple(running))
        return np.array(self._batch(count, self.reach(length + 1))[list(running)])

    @torch.inference_mode()
    def _batch(self, count: int, reach: int) -> Codes:
        """A row of the first `count` slots, on the host: the one transfer and the one wait there is."""
        graph = self._graphs.get((count, reach))
        if graph is not None:
            graph.replay()
        else:
            self._row(count, reach)
        self._host[:count].copy_(self.state.row[:count], non_blocking=True)
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return np.asarray(self._host.numpy())

    def _activate(self, running: tuple[int, ...]) -> None:
        if running != self._was_active:
            flags = torch.zeros(self.slots.count, dtype=torch.bool)
            flags[list(running)] = True
            self.active.copy_(flags)
            self._was_active = running

    def _row(self, count: int, reach: int) -> None:
        """Read the last row of each of the first `count` slots, draw the next."""
        active = self.active[:count]
        positions = torch.where(active, self.positions[:count], self.slots.length)
        looked = torch.arange(reach, device=self.device) <= positions[:, None]
        hidden = self._forward(
            audio_input_ids=self.state.row[:count, None],
            position_ids=positions[:, None],
            attention_mask=looked[:, None, None],
            past_key_values=self.slots.batch(positions, reach),
            use_cache=True,
        ).last_hidden_state
        logits = self.model.audio_lm_head(hidden[:, -1]).float().view(count, BOOKS, CODES)
        self.state.advance(draw(logits, self.state), active)
        self.positions[:count].add_(active)

    def measure(self, count: int) -> float:
        """The ms that a row of `count` slots takes, at the middle reach; the best of three. No slot may be running."""
        took = []
        for _ in range(3):
            since = time.perf_counter()
            self._batch(count, self.reach(self.slots.length // 2))
            took.append((time.perf_counter() - since) * 1000)
        return min(took)

    @torch.inference_mode()
    def capture(self) -> None:
        """Capture every row there can be; where that fails, rows run uncaptured. No slot may be running."""
        if not self._captures:
            return
        pool = torch.cuda.graph_pool_handle()
        try:
            for count in reversed(self.sizes):
                for reach in self.reaches():
                    self._graphs[count, reach] = self._captured(count, reach, pool)
        except RuntimeError as error:
            self._graphs.clear()
            log.warning("CUDA graphs could not be captured; rows will be slower: %s", error)

    def _captured(self, count: int, reach: int, pool: Any) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self._row(count, reach)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            self._row(count, reach)
        return graph
