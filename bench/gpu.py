"""`python -m bench.gpu`: what a card carries of Higgs Audio, with random weights of the real size.

`--tiny` does the same with a model of four megabytes: first of all on a card, and without one to try the measuring
itself. What is measured is printed and saved at once; what fails costs no more than itself."""

import argparse
import gc
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench import higgs_kernels
from bench.higgs_load import Bench, Level
from bench.higgs_model import bandwidth, build, touched
from server.errors import EngineUnavailable
from server.pipelines.tts._higgs.machine import Machine
from server.pipelines.tts._higgs.options import Options
from server.pipelines.tts._higgs.timbre import Taste
from server.pipelines.tts._higgs.weights import Weights, pick_device, pick_dtype

T = TypeVar("T")
HEADER = (
    "| streams | row ms | floor ms | row/floor | row to row ms | first audio p50 / p95 ms | seconds a second "
    "| cancel ms | codec ms | memory GiB |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Report:
    """Says everything twice: to the terminal and to the file `path`, line by line. `failed`: whether a part did."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a")
        self.failed = False

    def say(self, text: str = "") -> None:
        print(text, flush=True)
        print(text, file=self._file, flush=True)

    def part(self, name: str, work: Callable[[], T]) -> T | None:
        """Do it; where it fails, say so and go on."""
        try:
            return work()
        except Exception as error:
            self.failed = True
            self.say(f"{name}: FAILED: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
            return None


def line(x: Level) -> str:
    memory = "-" if math.isnan(x.memory) else f"{x.memory:.1f}"
    return (
        f"| {x.streams} | {x.row:.2f} | {x.floor:.2f} | {x.row / x.floor:.1f} | {x.wall:.2f} | {x.first_p50:.0f} / "
        f"{x.first_p95:.0f} | {x.realtime:.1f} | {x.cancel:.1f} | {x.codec:.1f} | {memory} |"
    )


def targets(levels: list[Level]) -> list[str]:
    """The targets (meant for one H200), and whether they were met."""
    at = {x.streams: x for x in levels}
    asked: list[tuple[int, str, Callable[[Level], float], float]] = [
        (1, "a row over its floor", lambda x: x.row / x.floor, 2),
        (1, "ms to first audio, p95", lambda x: x.first_p95, 150),
        (16, "ms to first audio, p95", lambda x: x.first_p95, 300),
        (32, "ms from row to row", lambda x: x.wall, 40),
        (32, "ms to cancel", lambda x: x.cancel, 50),
    ]
    return [
        f"{count} streams, {what}: {judged(value(at[count]), most) if count in at else 'not measured'}"
        for count, what, value, most in asked
    ]


def judged(value: float, most: float) -> str:
    return f"{value:.1f} of {most}: {'met' if value <= most else 'MISSED'}"


def opened(report: Report, step: str, loaded: Weights, levels: list[int]) -> Machine:
    """The engine with slots for the largest level there is memory for; larger levels are left out, and that is said."""
    while True:
        options = Options(
            model="", codec="", device=str(loaded.device), dtype="auto", local_files_only=True, step=step,
            slots=max(levels), length=1024, streams=max(levels), headroom=0.8, max_seconds=30, wait_s=60, ahead_s=60,
            keep_gb=4, presets=None, taste=Taste(),
        )  # fmt: skip
        try:
            return Machine(options, loaded)
        except EngineUnavailable as error:
            report.say(f"{max(levels)} streams: FAILED: {error}")
            report.failed = True
            if len(levels) == 1:
                raise
            levels.remove(max(levels))
        gc.collect()
        torch.cuda.empty_cache()


def measure(report: Report, bench: Bench, levels: list[int], until: float) -> list[Level]:
    measured: list[Level] = []
    report.say(HEADER)
    for count in levels:
        if time.monotonic() > until:
            report.say(f"{count} streams: not measured, no time was left (--minutes)")
        elif level := report.part(f"{count} streams", lambda count=count: bench.level(count)):  # type: ignore[misc]
            report.say(line(level))
            measured.append(level)
    carried = [x.streams for x in measured if x.wall <= 40 * bench.machine.options.headroom]
    report.say(f"\nin real time, with a fifth to spare: {max(carried, default=0)} streams")
    return measured


def compare(report: Report, bench: Bench) -> None:
    rows = min(40, bench.rows)
    same, each = bench.same(rows)
    report.say(
        f"greedy, in company: {same} of {rows} rows are those of generate(); generate() takes {each:.1f} ms a row,"
    )
    report.say(f"so {40 / each:.2f} streams in real time, one after another, and no sound before an utterance's end\n")
    if same < rows and bench.machine.step.model.dtype == torch.float32:
        report.failed = True
        report.say("FAILED: in float32 all rows must be those of generate()\n")


def counted() -> str:
    return higgs_kernels.told(higgs_kernels.row(1))


def run(report: Report, given: Any, device: torch.device) -> None:
    levels = sorted({int(count) for count in given.streams.split(",")})
    until = time.monotonic() + given.minutes * 60
    loaded = build(given.tiny, device, pick_dtype(given.dtype, device))
    machine = opened(report, given.step, loaded, levels)
    machine.worker.start()
    try:
        report.say(f"{time.strftime('%Y-%m-%d')} {machine.about()}")
        if notice := machine.notice():
            report.say(f"NOTICE: {notice}")
        speed = report.part("bandwidth", lambda: bandwidth(device, given.tiny)) or float("nan")
        weights = touched(machine.step.model) / 1e9
        report.say(f"a copy moves {speed / 1e9:.0f} GB/s; a row reads {weights:.2f} GB of weights")
        report.part("count", lambda: report.say(f"counted, in the released size: {counted()}\n"))
        bench = Bench(machine, given.rows, speed)
        report.part("generate()", lambda: compare(report, bench))
        measured = measure(report, bench, levels, until)
        for told in targets(measured) if device.type == "cuda" and not given.tiny else ():
            report.say(told)
        if device.type == "cuda":  # last, as a profiler may cost what it looks at
            for told in report.part("profile", lambda: higgs_kernels.launched(machine.step)) or ():
                report.say(told)
    finally:
        stop(report, machine)


def stop(report: Report, machine: Machine, patience_s: float = 30) -> None:
    """A card that hangs must not keep the results from being read."""
    stopping = threading.Thread(target=machine.stop, daemon=True)
    stopping.start()
    stopping.join(patience_s)
    if stopping.is_alive():
        report.failed = True
        report.say(f"FAILED: the engine did not stop in {patience_s:.0f} s")


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a model of four megabytes, on whatever is here")
    parser.add_argument("--streams", default="1,2,4,8,16,32,64", help="how many at once, one level after the other")
    parser.add_argument("--rows", type=int, default=150, help="of every utterance; 25 are a second")
    parser.add_argument("--step", default="auto", choices=["auto", "graph", "compile", "eager"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", help="float32: rows must be those of generate(), every one")
    parser.add_argument("--minutes", type=float, default=8, help="no level is begun later")
    parser.add_argument("--out", type=Path, default=Path("out/gpu.md"), help="the file that all of it is added to")
    given = parser.parse_args()
    try:
        device = pick_device(given.device)
    except EngineUnavailable as error:
        parser.error(str(error))
    if device.type == "cpu" and not given.tiny:
        parser.error("there is no card here; --tiny tries the measuring itself")
    report = Report(given.out)
    report.part("bench", lambda: run(report, given, device))
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
