"""The measuring of `bench.gpu`, tried with tiny weights: what it prints on a card is known to work here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Runs it; its exit status and what it said."""
    from bench import gpu

    def run(*arguments: str) -> tuple[int, list[str]]:
        saved = tmp_path / "new" / "gpu.md"
        tiny = ["gpu", "--tiny", "--device", "cpu", "--rows", "30", "--out", str(saved)]
        monkeypatch.setattr("sys.argv", [*tiny, *arguments])
        status = gpu.main()
        told = capsys.readouterr().out
        assert saved.read_text() == told, "what is said is not what is saved"
        return status, told.splitlines()

    return run


def _levels(told: list[str]) -> list[str]:
    return [line.split("|")[1].strip() for line in told if line.startswith("|")][2:]


def test_it_measures_and_agrees_with_generate(bench: Callable[..., Any]) -> None:
    status, told = bench("--streams", "3,1")
    assert status == 0
    assert any("greedy, in company: 30 of 30 rows are those of generate()" in line for line in told)
    assert any(line.startswith("counted, in the released size: 376 kernels: MLP 112") for line in told)
    assert _levels(told) == ["1", "3"]
    assert not any("FAILED" in line for line in told)


def test_a_level_that_finds_no_memory_costs_only_itself(
    bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.pipelines.tts._higgs.step import Step

    row = Step._row

    def full(self: Step, count: int, reach: int) -> None:
        if bool(self.active.sum() > 1):
            raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
        row(self, count, reach)

    monkeypatch.setattr(Step, "_row", full)
    status, told = bench("--streams", "1,2,4")
    assert status == 1
    assert _levels(told) == ["1"]
    failed = [line for line in told if "FAILED" in line]
    assert any(line.startswith("2 streams: FAILED") and "no memory left for this utterance" in line for line in failed)
    assert told[-1].startswith("in real time")


def test_slots_that_find_no_memory_are_left_out(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from server.pipelines.tts._higgs import machine

    class Small(machine.Slots):
        def __init__(self, config: Any, count: int, *rest: Any) -> None:
            if count > 2:
                raise torch.OutOfMemoryError("CUDA out of memory (simulated)")
            super().__init__(config, count, *rest)

    monkeypatch.setattr(machine, "Slots", Small)
    status, told = bench("--streams", "1,2,64")
    assert status == 1
    assert told[0].startswith("64 streams: FAILED: [tts] slots, length: the card has no memory for so many")
    assert _levels(told) == ["1", "2"]


def test_a_part_that_fails_and_a_slow_card_are_told(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.higgs_load import Bench
    from server.pipelines.tts._higgs.machine import Machine

    def broken(self: Bench, rows: int) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors ...")

    monkeypatch.setattr(Bench, "_generated", broken)
    monkeypatch.setattr(Machine, "notice", lambda self: "CUDA graphs could not be captured, every row is slower: why")
    status, told = bench("--streams", "1")
    assert status == 1
    assert "generate(): FAILED: RuntimeError: CUDA error: an illegal memory access was encountered" in told
    assert "NOTICE: CUDA graphs could not be captured, every row is slower: why" in told
    assert _levels(told) == ["1"]


def test_no_level_is_begun_when_time_is_up(bench: Callable[..., Any]) -> None:
    status, told = bench("--streams", "1,2", "--minutes", "0")
    assert status == 0
    assert _levels(told) == []
    assert "2 streams: not measured, no time was left (--minutes)" in told


def test_targets_are_judged_by_what_was_measured() -> None:
    from bench.gpu import targets
    from bench.higgs_load import Level

    levels = [Level(count, 2.0 + count, 1.5, 41.0, 20, 140, 1, 3, 1, 9) for count in (1, 32)]
    assert targets(levels) == [
        "1 streams, a row over its floor: 2.0 of 2: met",
        "1 streams, ms to first audio, p95: 140.0 of 150: met",
        "16 streams, ms to first audio, p95: not measured",
        "32 streams, ms from row to row: 41.0 of 40: MISSED",
        "32 streams, ms to cancel: 3.0 of 50: met",
    ]


def test_an_engine_that_hangs_does_not_keep_the_results(tmp_path: Path) -> None:
    import threading

    from bench.gpu import Report, stop

    class Hanging:
        over = threading.Event()

        def stop(self) -> None:
            self.over.wait()

    report = Report(tmp_path / "gpu.md")
    stop(report, Hanging(), 0.01)  # type: ignore[arg-type]
    Hanging.over.set()
    assert report.failed
    assert "did not stop" in (tmp_path / "gpu.md").read_text()


def test_what_a_card_launched_is_listed_by_what_it_took() -> None:
    from types import SimpleNamespace

    from bench.higgs_kernels import listed

    ran = [SimpleNamespace(key=key, count=n, self_device_time_total=us) for key, n, us in
           (("norm", 114, 228.0), ("gemv", 226, 3000.0), ("on the host", 7, 0.0))]  # fmt: skip
    assert listed(ran, 2) == [
        "a row of one stream launched 170 kernels, which ran for 1.61 ms",
        "  1500.0 us a row: 113 times gemv",
        "   114.0 us a row: 57 times norm",
    ]


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "abacus"])
def test_a_card_that_is_not_there_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    from bench import gpu

    monkeypatch.setattr("sys.argv", ["gpu", "--tiny", "--device", device])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main()


def test_the_real_size_wants_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import gpu

    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu"])
    with pytest.raises(SystemExit):
        gpu.main()


def test_the_real_size_is_the_released_one() -> None:
    """5.4 billion parameters, of which a row reads 5.7 GB: without allocating any of it."""
    from bench.higgs_model import touched
    from tests.higgs import tiny

    with torch.device("meta"):
        model = tiny.model(tiny.tokenizer(), {})
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.38e9, rel=0.01)
    assert touched(model) / 4 * 2 == pytest.approx(5.7e9, rel=0.02)
