"""Everything that is one per process: the weights, the slots, the worker; opened, warmed up and measured."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
import transformers

from server.errors import EngineError, EngineUnavailable, TTSError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs import weights
from server.pipelines.tts._higgs.clock import Clock
from server.pipelines.tts._higgs.codec import Codec
from server.pipelines.tts._higgs.delay import BOOKS, Codes, delayed
from server.pipelines.tts._higgs.graphs import Graphs, first_line
from server.pipelines.tts._higgs.keeping import Keeping
from server.pipelines.tts._higgs.options import Options
from server.pipelines.tts._higgs.prefixes import Prefixes
from server.pipelines.tts._higgs.prompt import Prompts
from server.pipelines.tts._higgs.reading import Reader
from server.pipelines.tts._higgs.sampler import Sampling
from server.pipelines.tts._higgs.scheduler import Scheduler
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.step import Step
from server.pipelines.tts._higgs.stream import Stream
from server.pipelines.tts._higgs.timbre import Timbre
from server.pipelines.tts._higgs.worker import Worker

log = logging.getLogger(__name__)

MOST_SLOTS = {"cuda": 32, "cpu": 4}
KNOWN_HEADS = 256


def milliseconds() -> float:
    return time.perf_counter() * 1000


class Nowhere:
    """The outlet of a prompt that is only read."""

    full = False

    def put(self, speech: Speech) -> None: ...

    def end(self, error: EngineError | None = None) -> None: ...


class Machine:
    """A loaded engine. Making it is blocking. `loaded`: weights to use instead of those that `options` name. Raises
    `EngineUnavailable`."""

    def __init__(self, options: Options, loaded: weights.Weights | None = None) -> None:
        loaded = loaded or weights.load(
            options.model, options.codec, options.device, options.dtype, options.local_files_only
        )
        self.options, self.device = options, loaded.device
        self.prompts = Prompts(loaded.processor)
        self.codec = Codec(loaded.codec, loaded.device)
        try:
            self._open(loaded.model)
            self._warm_up()
        except torch.OutOfMemoryError as error:
            raise EngineUnavailable(f"[tts] slots, length: the card has no memory for so many ({error})") from error
        except torch.AcceleratorError as error:
            raise EngineUnavailable(f"[tts] device = {str(self.device)!r}: {first_line(error)}") from error
        self.worker = Worker(self.scheduler, self.device)
        self._heads: dict[object, Future[Codes]] = {}
        self._voices = ThreadPoolExecutor(1, "higgs-voices")

    def stop(self) -> None:
        """Blocking."""
        self.worker.stop()
        self._voices.shutdown(cancel_futures=True)

    @property
    def longest(self) -> int:
        """Rows an utterance may have."""
        return int(self.options.max_seconds * 25) + BOOKS + 1

    def head(self, timbre: Timbre) -> "Future[Codes]":
        """The tokens that every prompt of this voice begins with. Made, and read by the model, once per voice."""
        known = self._heads.get(timbre.key)
        if known is None or (known.done() and known.exception() is not None):
            while len(self._heads) >= KNOWN_HEADS:
                self._heads.pop(next(iter(self._heads)))
            known = self._heads[timbre.key] = self._voices.submit(self._make_head, timbre)
        return known

    def _make_head(self, timbre: Timbre) -> Codes:
        head = self.prompts.head(timbre.scene)
        if timbre.recording is not None:
            try:
                codes = self.codec.encode(timbre.recording.wave)
            except RuntimeError as error:
                raise TTSError(f"the voice's recording could not be encoded: {error}") from error
            said = self.prompts.turn(timbre.transcript), self.prompts.sound(delayed(codes))
            head = np.concatenate([head, *said])
        if len(head) >= self.options.length:
            needs = f"the voice alone needs {len(head)} tokens of {self.options.length}"
            raise TTSError(f"{needs}: cut its recording or raise length in [tts]")
        self.worker.submit(
            Stream("", head, len(head), len(head), None, timbre.key, Sampling(), limit=0, outlet=Nowhere())
        )
        return head

    def _open(self, model: Any) -> None:
        """Slots, what fills them, and who decides."""
        options = self.options
        if self.device.type == "cuda":  # cuDNN's attention plans anew for every shape, and some versions fail in graphs
            torch.backends.cuda.enable_cudnn_sdp(False)
        count = options.slots or self._slots_that_fit(model.config, model.dtype)
        slots = Slots(model.config, count, options.length, model.dtype, self.device)
        self.graphs = Graphs(self.device, options.step != "eager")
        self.step = Step(model, slots, self.graphs)
        self.reader = Reader(model, slots, self.graphs, self.prompts.audio_id)
        if self.device.type == "cuda":  # the weights as they lay before they were fused
            torch.cuda.empty_cache()
        self.clock = Clock(self.step.sizes, options.headroom)
        self.keeping = Keeping(slots, Prefixes(self._keep_bytes()), self.prompts.audio_id)
        self.scheduler = Scheduler(
            self.step, self.reader, self.codec, self.keeping, self.clock, milliseconds,
            streams=options.streams, wait_ms=options.wait_s * 1000,
        )  # fmt: skip

    def _slots_that_fit(self, config: Any, dtype: torch.dtype) -> int:
        most = MOST_SLOTS[self.device.type]
        if self.device.type != "cuda":
            return most
        one = Slots(config, 1, 1, dtype, torch.device("cpu")).token_bytes * self.options.length
        free = torch.cuda.mem_get_info(self.device)[0]
        return max(1, min(most, int(free * 0.6 / one)))

    def _keep_bytes(self) -> int:
        if self.options.keep_gb:
            return int(self.options.keep_gb * 2**30)
        return int(torch.cuda.mem_get_info(self.device)[0] * 0.3) if self.device.type == "cuda" else 2**29

    def _warm_up(self) -> None:
        """Everything once, so that nothing is slow the first time somebody listens; and how long it takes then."""
        self._not_compiled = self.step.compile() if self.options.step == "compile" else ""
        self.graphs.capture(self.step.works() | self.reader.works())
        for size in self.step.sizes:
            self.clock.row(size, self.step.measure(size))
        self.codec.warm_up(self.step.slots.count)
        since = milliseconds()
        self.codec.decode([np.zeros((32, BOOKS), np.int64)]).result()
        self.clock.codec(milliseconds() - since)
        log.info(self.about())
        if notice := self.notice():
            log.warning(notice)

    def about(self) -> str:
        """The machine in a line: card, memory, versions, and what it carries."""
        slots, clock = self.step.slots, self.clock
        return (
            f"{self._card()}, torch {torch.__version__}, transformers {transformers.__version__}; "
            f"{slots.count} slots of {slots.length} tokens ({slots.kv.nbytes / 2**30:.2f} GiB); a row in "
            f"{clock.row_ms(1):.1f} ms alone, {clock.row_ms(slots.count):.1f} ms full: "
            f"{min(clock.carries(), slots.count)} streams in real time"
            + (f", {self.scheduler.streams} let in" if self.options.streams else "")
        )

    def notice(self) -> str:
        """What the user should know; usually nothing."""
        return "; ".join(filter(None, (self._not_compiled, self.graphs.failure, self._slow())))

    def _slow(self) -> str:
        if self.clock.realtime:
            return ""
        return (
            f"a row takes {self.clock.row_ms(1):.0f} ms and sounds for 40 ({self._card()}): every reply begins late, "
            "by as long as it needs; use a card, or another voice engine"
        )

    def _card(self) -> str:
        if self.device.type != "cuda":
            return f"{self.device} without a card"
        free, total = torch.cuda.mem_get_info(self.device)
        return f"{torch.cuda.get_device_name(self.device)}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
