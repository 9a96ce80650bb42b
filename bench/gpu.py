"""`python -m bench.gpu`: what a card carries of Higgs Audio, with random weights of the real size.

`--tiny` does the same with a model of four megabytes, so that the measuring itself can be tried without a card."""

import argparse
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.higgs_model import bandwidth, build, settle, touched
from server.errors import EngineError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs.delay import BOOKS, Codes, delayed
from server.pipelines.tts._higgs.machine import Machine
from server.pipelines.tts._higgs.options import Options
from server.pipelines.tts._higgs.prompt import Scene
from server.pipelines.tts._higgs.sampler import Sampling
from server.pipelines.tts._higgs.stream import Stream
from server.pipelines.tts._higgs.timbre import Taste
from server.pipelines.tts._higgs.weights import pick_device, pick_dtype

TEXT = "When the bell rang, everybody left the room at once."
REFERENCE = 250  # frames: ten seconds
DRAWN = Sampling(temperature=0.7, repeats=0)


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
    """`machine` under load: every stream a voice's reference, read before, and a sentence of `rows` rows."""

    def __init__(self, machine: Machine, rows: int, speed: float) -> None:
        self.machine, self.rows, self.speed = machine, rows, speed
        prompts, codes = machine.prompts, np.random.default_rng(0).integers(0, 1024, (REFERENCE, BOOKS))
        self.head = np.concatenate([prompts.head(Scene()), prompts.turn("A recording."), prompts.sound(delayed(codes))])
        self.run([self.stream(0, limit=0)])

    def stream(self, seed: int, limit: int | None = None, how: Sampling = DRAWN) -> Stream:
        prompt = self.head if limit == 0 else np.concatenate([self.head, self.machine.prompts.turn(TEXT)])
        return Stream(
            TEXT, prompt, len(self.head), len(self.head), object(), "voice",
            Sampling(**vars(how) | {"seed": seed}), self.rows if limit is None else limit, Probe(),
        )  # fmt: skip

    def run(self, streams: list[Stream]) -> float:
        """All of them at once; the seconds it took."""
        since = time.perf_counter()
        for stream in streams:
            self.machine.worker.submit(stream)
        for stream in streams:
            probe: Any = stream.outlet
            if not probe.over.wait(120):
                raise SystemExit("an utterance never came to its end")
            if probe.error:
                raise SystemExit(str(probe.error))
        return time.perf_counter() - since

    def level(self, count: int) -> Level:
        machine, clock, device = self.machine, self.machine.clock, self.machine.device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        firsts: list[float] = []
        for turn in range(3):
            since, streams = time.perf_counter(), [self.stream(100 * turn + i) for i in range(count)]
            took = self.run(streams)
            firsts += [(stream.outlet.first - since) * 1000 for stream in streams]  # type: ignore[attr-defined]
        sound = sum(stream.outlet.sound_ms for stream in streams) / 1000  # type: ignore[attr-defined]
        tokens = len(streams[0].prompt) + self.rows // 2
        read = touched(machine.step.model) + count * tokens * machine.step.slots.token_bytes
        peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else float("nan")
        p50, p95 = np.percentile(firsts, [50, 95])
        return Level(
            count, clock.row_ms(count), read / self.speed * 1000, clock.pace_ms(count), p50, p95, sound / took,
            self.cancel(count), self.codec(count), peak,
        )  # fmt: skip

    def cancel(self, count: int) -> float:
        """From the order to the free slot, with the others still running."""
        streams = [self.stream(i) for i in range(count)]
        for stream in streams:
            self.machine.worker.submit(stream)
        while not all(stream.said.frames for stream in streams):
            time.sleep(0.001)
        since = time.perf_counter()
        self.machine.worker.cancel(streams[-1])
        while streams[-1].slot is not None:
            time.sleep(0.0002)
        took = (time.perf_counter() - since) * 1000
        for stream in streams[:-1]:
            self.machine.worker.cancel(stream)
        while self.machine.scheduler.active:
            time.sleep(0.001)
        return took

    def codec(self, count: int) -> float:
        """One exact window of ten frames for each stream, decoded together: the best of five."""
        windows, took = [np.zeros((30, BOOKS), np.int64)] * count, []
        for _ in range(5):
            since = time.perf_counter()
            self.machine.codec.decode(windows).result()
            took.append((time.perf_counter() - since) * 1000)
        return min(took)

    def generated(self, rows: int) -> tuple[Codes, float]:
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

    def same(self, rows: int) -> tuple[int, float]:
        """How many rows are those of `generate` from the beginning, and the ms that `generate` takes for each."""
        wanted, each = self.generated(rows)
        stream = self.stream(0, limit=rows, how=Sampling(temperature=0, repeats=0))
        self.run([stream, *(self.stream(i) for i in range(1, min(3, self.machine.step.slots.count)))])
        equal = (stream.said.array() == wanted).all(axis=1)
        return int(equal.argmin()) if not equal.all() else rows, each


def table(levels: list[Level]) -> str:
    lines = [
        "| streams | row ms | floor ms | row/floor | row to row ms | first audio p50 / p95 ms | seconds a second "
        "| cancel ms | codec ms | memory GiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for x in levels:
        lines.append(
            f"| {x.streams} | {x.row:.2f} | {x.floor:.2f} | {x.row / x.floor:.1f} | {x.wall:.2f} | {x.first_p50:.0f} / "
            f"{x.first_p95:.0f} | {x.realtime:.1f} | {x.cancel:.1f} | {x.codec:.1f} | {x.memory:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a model of four megabytes, on whatever is here")
    parser.add_argument("--streams", default="1,2,4,8,16,32,64", help="how many at once, one level after the other")
    parser.add_argument("--rows", type=int, default=150, help="of every utterance; 25 are a second")
    parser.add_argument("--step", default="auto", choices=["auto", "graph", "compile", "eager"])
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = pick_device(given.device)
    if device.type == "cpu" and not given.tiny:
        parser.error("there is no card here; --tiny tries the measuring itself")
    levels = [int(count) for count in given.streams.split(",")]
    options = Options(
        model="", codec="", device=str(device), dtype="auto", local_files_only=True, step=given.step, slots=max(levels),
        length=1024, streams=max(levels), headroom=0.8, max_seconds=30, wait_s=60, ahead_s=60, keep_gb=4, presets=None,
        taste=Taste(),
    )  # fmt: skip
    machine = Machine(options, build(given.tiny, device, pick_dtype("auto", device)))
    machine.worker.start()
    try:
        return report(Bench(machine, given.rows, bandwidth(device, given.tiny)), levels)
    finally:
        machine.stop()


def report(bench: Bench, levels: list[int]) -> int:
    """Print all of it; 1 if the rows are not those of `generate` in float32, where they must be."""
    machine = bench.machine
    print(time.strftime("%Y-%m-%d"), machine.about())
    weights = touched(machine.step.model) / 1e9
    print(f"a copy moves {bench.speed / 1e9:.0f} GB/s; a row reads {weights:.2f} GB of weights\n")
    rows = min(40, bench.rows)
    same, each = bench.same(rows)
    print(f"greedy, in company: {same} of {rows} rows are those of generate(); generate() takes {each:.1f} ms a row,")
    print(f"so {40 / each:.2f} streams in real time, one after another, and no sound before an utterance's end\n")
    measured = [bench.level(count) for count in levels]
    print(table(measured))
    carried = [x.streams for x in measured if x.wall <= 40 * machine.options.headroom]
    print(f"\nin real time, with a fifth to spare: {max(carried, default=0)} streams")
    return int(same < rows and machine.step.model.dtype == torch.float32)


if __name__ == "__main__":
    sys.exit(main())
