"""The measuring of `bench.gpu`, tried with tiny weights: what it prints on a card is known to work here."""

import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")


def test_it_measures_and_agrees_with_generate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench import gpu

    monkeypatch.setattr("sys.argv", ["gpu", "--tiny", "--device", "cpu", "--streams", "1,3", "--rows", "30"])
    assert gpu.main() == 0
    told = capsys.readouterr().out
    assert "greedy, in company: 30 of 30 rows are those of generate()" in told
    assert [line.split("|")[1].strip() for line in told.splitlines() if line.startswith("|")] == [
        "streams", "---", "1", "3",
    ]  # fmt: skip


def test_the_real_size_wants_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import gpu

    monkeypatch.setattr("sys.argv", ["gpu", "--device", "cpu"])
    with pytest.raises(SystemExit):
        gpu.main()


def test_the_real_size_is_the_released_one() -> None:
    """5.4 billion parameters, of which a row reads 5.7 GB: without allocating any of it."""
    import torch

    from bench.higgs_model import touched
    from tests.higgs import tiny

    with torch.device("meta"):
        model = tiny.model(tiny.tokenizer(), {})
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(5.38e9, rel=0.01)
    assert touched(model) / 4 * 2 == pytest.approx(5.7e9, rel=0.02)
