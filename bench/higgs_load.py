"""A loaded Higgs engine under so many streams at once: what is measured, and how. Every wait has an end."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.higgs_model import settle, touched
from server.errors import EngineError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs.delay import BOOKS, Codes, delayed
from server.pipelines.tts._higgs.machine import Machine
from server.pipelines.tts._higgs.prompt import Scene
from server.pipelines.tts._higgs.sampler import Sampling
from server.pipelines.tts._higgs.stream import Stream

TEXT = "When the bell rang, everybody left the room at once."
REFERENCE = 250  # frames: ten seconds
DRAWN = Sampling(temperature=0.7, repeats=0)
PATIENCE_S = 120.0


class Failed(Exception):
    """What was to be measured did not come about."""


@dataclass
class Probe:
    """An outlet that notes when its sound comes."""

    full: bool = False
    first: float = 0.0
    sound_ms: float = 0.0
    error: EngineError | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def put(self, speech: Speech) -> None:
        self.first = self.first or time.perf_counter()
        self.sound_ms += len(speech.pcm) / 48

    def end(self, error: EngineError | None = None) -> None:
        self.error = error
        self.over.set()


@dataclass(frozen=True)
class Level:
    """What was measured with so many streams at once; times in ms."""

    streams: int
    row: float
    floor: float
    wall: float  # from row to row, with prompts and decoding in between
    first_p50: float
    first_p95: float
    realtime: float  # seconds of sound a second, over all streams
    cancel: float
    codec: float
    memory: float  # GiB


class Bench:
    """`machine` under load: every stream a voice's reference, read before, and a sentence of `rows` rows. `speed`: what
    the memory moves, in bytes a second."""

    def __init__(self, machine: Machine, rows: int, speed: float) -> None:
        self.machine, self.rows, self.speed = machine, rows, speed
        prompts, codes = machine.prompts, np.random.default_rng(0).integers(0, 1024, (REFERENCE, BOOKS))
        self.head = np.concatenate([prompts.head(Scene()), prompts.turn("A recording."), prompts.sound(delayed(codes))])

    def stream(self, seed: int, limit: int | None = None, how: Sampling = DRAWN) -> Stream:
        prompt = self.head if limit == 0 else np.concatenate([self.head, self.machine.prompts.turn(TEXT)])
        return Stream(
            TEXT, prompt, len(self.head), len(self.head), object(), "voice",
            Sampling(**vars(how) | {"seed": seed}), self.rows if limit is None else limit, Probe(),
        )  # fmt: skip

    def run(self, streams: list[Stream]) -> float:
        """All of them at once; the seconds it took. Raises `Failed`; then nobody speaks any more."""
        since = time.perf_counter()
        for stream in streams:
            self.machine.worker.submit(stream)
        try:
            for stream in streams:
                probe: Any = stream.outlet
                if not probe.over.wait(PATIENCE_S):
                    raise Failed(f"an utterance had not come to its end after {PATIENCE_S:.0f} s")
                if probe.error:
                    raise Failed(str(probe.error))
        except Failed:
            self.silence(streams)
            raise
        return time.perf_counter() - since

    def silence(self, streams: list[Stream]) -> None:
        for stream in streams:
            self.machine.worker.cancel(stream)
        _until(lambda: not self.machine.scheduler.active, 10)

    def level(self, count: int) -> Level:
        """Raises `Failed`."""
        machine, clock, device = self.machine, self.machine.clock, self.machine.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.run([self.stream(0, limit=0)])  # the recording is read
        firsts: list[float] = []
        for turn in range(3):
            since, streams = time.perf_counter(), [self.stream(100 * turn + i) for i in range(count)]
            took = self.run(streams)
            firsts += [(stream.outlet.first - since) * 1000 for stream in streams]  # type: ignore[attr-defined]
        sound = sum(stream.outlet.sound_ms for stream in streams) / 1000  # type: ignore[attr-defined]
        tokens = len(streams[0].prompt) + self.rows // 2
        read = touched(machine.step.model) + count * tokens * machine.step.slots.token_bytes
        row, wall, codec = clock.row_ms(count), clock.pace_ms(count), self.codec(count)
        cancel = self.cancel(count)
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
        p50, p95 = np.percentile(firsts, [50, 95])
        return Level(count, row, read / self.speed * 1000, wall, p50, p95, sound / took, cancel, codec, peak)

    def cancel(self, count: int) -> float:
        """From the order to the free slot in ms, with the others still running."""
        streams = [self.stream(i) for i in range(count)]
        for stream in streams:
            self.machine.worker.submit(stream)
        try:
            _until(lambda: all(stream.said.frames or stream.done for stream in streams), PATIENCE_S)
            since = time.perf_counter()
            self.machine.worker.cancel(streams[-1])
            _until(lambda: streams[-1].slot is None, 10, every=0.0002)
            return (time.perf_counter() - since) * 1000
        finally:
            self.silence(streams)

    def codec(self, count: int) -> float:
        """One exact window of ten frames for each stream, decoded together, in ms: the best of five."""
        windows, took = [np.zeros((30, BOOKS), np.int64)] * count, []
        for _ in range(5):
            since = time.perf_counter()
            self.machine.codec.decode(windows).result()
            took.append((time.perf_counter() - since) * 1000)
        return min(took)

    def same(self, rows: int) -> tuple[int, float]:
        """How many rows are those of `generate` from the beginning, and the ms that `generate` takes for each."""
        wanted, each = self._generated(rows)
        stream = self.stream(0, limit=rows, how=Sampling(temperature=0, repeats=0))
        self.run([stream, *(self.stream(i) for i in range(1, min(3, self.machine.step.slots.count)))])
        equal = (stream.said.array() == wanted).all(axis=1)
        return int(equal.argmin()) if not equal.all() else rows, each

    def _generated(self, rows: int) -> tuple[Codes, float]:
        """transformers' own `generate` of the same prompt, greedily: its rows, and the ms of each."""
        model, prompt = self.machine.step.model, self.stream(0).prompt
        model.generation_config.ras_win_len = None
        sound = prompt[prompt[:, 0] == self.machine.prompts.audio_id, 1:]
        given = {"input_ids": torch.from_numpy(prompt[:, 0])[None], "audio_input_ids": torch.from_numpy(sound)[None]}
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        given["audio_input_ids_mask"] = torch.ones(1, len(sound), dtype=torch.bool)
        given = {name: tensor.to(self.machine.device) for name, tensor in given.items()}
        with torch.inference_mode():
            model.generate(**given, do_sample=False, max_new_tokens=2)
            since = time.perf_counter()
            made = model.generate(**given, do_sample=False, max_new_tokens=rows)
            settle(self.machine.device)
        return made[0, len(sound) :].cpu().numpy(), (time.perf_counter() - since) * 1000 / rows


def _until(reached: Callable[[], object], seconds: float, every: float = 0.001) -> None:
    """Raises `Failed` if it never comes to that."""
    end = time.perf_counter() + seconds
    while not reached():
        if time.perf_counter() > end:
            raise Failed(f"nothing came of it in {seconds:.0f} s")
        time.sleep(every)
