# ruff: noqa: E402
"""Higgs sampling: the tensors' rules against transformers' own processors, and the hash that stands in for chance."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS
from server.pipelines.tts._higgs.sampler import CODES, Sampling, State, _filtered, draw, gumbel


def _state(*hows: Sampling, step: int = 20) -> State:
    state = State(len(hows), torch.device("cpu"))
    for slot, how in enumerate(hows):
        state.begin(slot, how, np.full((1, BOOKS), BOS))
        state.step[slot] = step
    return state


def _logits(count: int, seed: int = 0) -> "torch.Tensor":
    return 3 * torch.randn(count, BOOKS, CODES, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [1, 50, 0])
@pytest.mark.parametrize("top_p", [0.05, 0.95, 1.0])
def test_what_may_be_drawn_is_what_transformers_allows(temperature: float, top_k: int, top_p: float) -> None:
    logits = _logits(2)
    theirs = TemperatureLogitsWarper(temperature)(None, logits.view(-1, CODES).clone())
    theirs = TopKLogitsWarper(top_k)(None, theirs) if top_k else theirs
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1 else theirs
    ours = _filtered(logits / temperature, torch.tensor([top_k or CODES] * 2), torch.tensor([top_p] * 2))
    assert torch.equal(ours.view(-1, CODES), theirs)


def test_every_slot_has_its_own_settings() -> None:
    hows = [Sampling(temperature=0), Sampling(top_k=1, temperature=2), Sampling(temperature=1, seed=7)]
    logits = _logits(3)
    together = draw(logits, _state(*hows))
    for slot, how in enumerate(hows):
        assert torch.equal(together[slot], draw(logits[slot : slot + 1], _state(how))[0])
    likeliest = logits.argmax(-1)
    assert torch.equal(together[:2], likeliest[:2])
    assert not torch.equal(together[2], likeliest[2])


def test_draws_follow_the_distribution() -> None:
    """3,200 draws of one distribution over ten codes: chi-squared within the 1-in-10,000 bound for nine degrees."""
    wanted = torch.tensor([0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.03, 0.02, 0.01])
    logits = torch.full((1, BOOKS, CODES), -torch.inf)
    logits[..., :10] = wanted.log()
    state = _state(Sampling(temperature=1, top_k=0, top_p=1, repeats=0, seed=3))
    drawn = []
    for step in range(BOOKS, BOOKS + 400):
        state.step[0] = step
        drawn.append(draw(logits, state))
    seen = torch.bincount(torch.cat(drawn).flatten(), minlength=10)[:10].double()
    expected = wanted.double() * seen.sum()
    assert seen.sum() == 400 * BOOKS
    assert float(((seen - expected) ** 2 / expected).sum()) < 33.7


def test_noise_differs_between_seeds_rows_codebooks_and_draws() -> None:
    noise = gumbel(torch.tensor([1, 2, 1]), torch.tensor([5, 5, 6]))
    rows = noise.reshape(-1, CODES)
    assert len({tuple(row[:4].tolist()) for row in rows}) == len(rows)
    assert abs(float(np.corrcoef(rows.numpy())[np.triu_indices(len(rows), 1)].max())) < 0.2


def test_a_code_that_came_too_often_is_drawn_again_without_filter() -> None:
    """The rule as `generate` has it: what came `repeats` times in the last `window` rows, BOS and EOS apart."""
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., 5], logits[..., 9] = 10.0, 9.9  # greedy takes 5; the second draw may take 9
    how = Sampling(temperature=0, window=7, repeats=2, seed=1)
    state = _state(how)
    state.past[0, -7:, 0] = torch.tensor([5, 1, 1, 1, 1, 1, 5])  # twice, in the window
    state.past[0, -8:, 1] = torch.tensor([5, 1, 1, 1, 1, 1, 1, 5])  # the first one is too old
    redrawn = set()
    for seed in range(20):
        state.seed[0] = seed
        row = draw(logits, state)[0]
        assert row[1:].tolist() == [5] * 7
        redrawn.add(int(row[0]))
    assert redrawn == {5, 9}


def test_the_ends_do_not_count_as_repeats() -> None:
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., EOS] = 10.0
    state = _state(Sampling(temperature=0, repeats=1))
    state.past[0] = EOS
    assert draw(logits, state)[0].tolist() == [EOS] * BOOKS


def test_codebooks_begin_and_end_one_after_the_other() -> None:
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., 5] = 10.0
    state = State(1, torch.device("cpu"))
    state.begin(0, Sampling(temperature=0, repeats=0), np.full((1, BOOKS), BOS))
    active = torch.tensor([True])
    for step in range(1, 30):  # row 0 is all BOS and never drawn
        if step == 12:
            logits[0, 3, EOS] = 20.0  # codebook 3 ends first
        row = draw(logits, state)
        ramp = step - 12
        expected = [BOS if book >= step else 5 for book in range(BOOKS)]
        if ramp >= 0:
            expected = [EOS if book < ramp or book == 3 else 5 for book in range(BOOKS)]
        assert row[0].tolist() == expected, step
        state.advance(row, active)
        if expected == [EOS] * BOOKS:
            return
    raise AssertionError("it never ended")


def test_a_slot_that_does_not_run_stays_as_it_is() -> None:
    state = _state(Sampling(seed=1), Sampling(seed=2))
    before = [t.clone() for t in (state.row, state.past, state.step, state.eos)]
    state.advance(torch.full((2, BOOKS), EOS), torch.tensor([False, True]))
    for tensor, old in zip((state.row, state.past, state.step, state.eos), before, strict=True):
        assert torch.equal(tensor[0], old[0])
        assert not torch.equal(tensor[1], old[1])


@pytest.mark.parametrize("count", [1, 2, 9, 16, 17, 40])
def test_a_stream_that_comes_back_is_known_as_it_was(count: int) -> None:
    rows = np.random.default_rng(count).integers(0, 1024, (count, BOOKS))
    rows[0] = BOS
    if count > 20:
        rows[30, 2] = rows[31, 2] = EOS
    made, back = _state(Sampling(seed=3)), State(1, torch.device("cpu"))
    made.begin(0, Sampling(seed=3), rows[:1])
    for row in rows[1:]:
        made.advance(torch.from_numpy(row)[None], torch.tensor([True]))
    back.begin(0, Sampling(seed=3), rows)
    for name in ("row", "past", "step", "eos", "seed", "top_k", "window", "repeats", "temperature", "top_p"):
        assert torch.equal(getattr(made, name), getattr(back, name)), name
