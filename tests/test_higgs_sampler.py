# ruff: noqa: E402
"""Higgs sampling: the tensors' rules against transformers' own processors, and the strip that stands in for chance."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from server.pipelines.tts._higgs import noise
from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS
from server.pipelines.tts._higgs.phases import CODES
from server.pipelines.tts._higgs.sampler import NO_CODE, Sampling, State, _least, draw


def _state(*hows: Sampling, past: int = 20) -> State:
    """Every slot has made a row of BOS and `past` rows in which no code repeats."""
    state = State(len(hows), torch.device("cpu"))
    rows = np.arange(past + 1)[:, None].repeat(BOOKS, 1) + 100
    rows[0] = BOS
    for slot, how in enumerate(hows):
        state.begin(slot, how, rows)
    return state


def _set_past(state: State, book: int, codes: list[int]) -> None:
    """The latest codes of a codebook in slot 0, as far as the window goes back."""
    window = int(state.round[0, 2])
    turns = (int(state.turn[0]) - np.arange(window)[::-1]) % window
    state.past[0, turns, book] = torch.tensor(codes[-window:]).clamp(max=NO_CODE)


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
    state = _state(*[Sampling(temperature=temperature, top_k=top_k, top_p=top_p)] * 2)
    warm = logits / state.heat[:, 0, None, None]
    assert torch.equal(warm.masked_fill(warm < _least(warm, state), -torch.inf).view(-1, CODES), theirs)


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
    how = Sampling(temperature=1, top_k=0, top_p=1, repeats=0, seed=3)
    state = _state(how)
    drawn = []
    for row in range(400):
        state.place[0] = noise.place(how.seed, row)
        drawn.append(draw(logits, state))
    seen = torch.bincount(torch.cat(drawn).flatten(), minlength=10)[:10].double()
    expected = wanted.double() * seen.sum()
    assert seen.sum() == 400 * BOOKS
    assert float(((seen - expected) ** 2 / expected).sum()) < 33.7


def test_noise_differs_between_seeds_rows_codebooks_and_draws() -> None:
    places = [noise.place(seed, row) for seed, row in ((1, 5), (2, 5), (1, 6))]
    rows = noise.windows(torch.device("cpu"))[torch.tensor(places)].reshape(-1, CODES)
    assert len({tuple(row[:4].tolist()) for row in rows}) == len(rows)
    assert abs(float(np.corrcoef(rows.numpy())[np.triu_indices(len(rows), 1)].max())) < 0.2


def test_windows_of_an_utterance_lie_apart() -> None:
    """Further than a codebook is wide in thirty seconds; never on one another in the longest that may be asked for."""
    for rows, apart in ((759, CODES), (7509, 1)):
        places = np.sort([noise.place(1, row) for row in range(rows)])
        assert np.diff([*places, places[0] + noise.STRIP]).min() > apart


def test_a_row_moves_the_window_on() -> None:
    state = _state(Sampling(seed=4))
    for row in range(21, 30):
        assert int(state.place[0]) == noise.place(4, row)
        state.advance(torch.full((1, BOOKS), 7), torch.tensor([True]))


def test_a_code_that_came_too_often_is_drawn_again_without_filter() -> None:
    """The rule as `generate` has it: what came `repeats` times in the last `window` rows, BOS and EOS apart."""
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., 5], logits[..., 9] = 10.0, 9.9  # greedy takes 5; the second draw may take 9
    how = Sampling(temperature=0, window=7, repeats=2, seed=1)
    state = _state(how)
    _set_past(state, 0, [5, 1, 1, 1, 1, 1, 5])  # twice, in the window
    _set_past(state, 1, [5, 1, 1, 1, 1, 1, 1, 5])  # the first one is too old
    redrawn = set()
    for seed in range(20):
        state.place[0] = noise.place(seed, 21)
        row = draw(logits, state)[0]
        assert row[1:].tolist() == [5] * 7
        redrawn.add(int(row[0]))
    assert redrawn == {5, 9}


def test_the_ends_do_not_count_as_repeats() -> None:
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., EOS] = 10.0
    state = _state(Sampling(temperature=0, repeats=1), past=0)
    for _ in range(9):
        state.advance(torch.full((1, BOOKS), 1), torch.tensor([True]))
    for _ in range(7):
        state.advance(torch.full((1, BOOKS), EOS), torch.tensor([True]))
    assert draw(logits, state)[0].tolist() == [EOS] * BOOKS


@pytest.mark.parametrize("window", [0, 1, 7, 16, 20])
def test_only_the_window_is_looked_at(window: int) -> None:
    """A code is drawn again where it came once in the last `window` rows, at most 16; with no window never."""
    logits = torch.full((1, BOOKS, CODES), -20.0)
    logits[..., 5] = 10.0
    logits[..., 9] = 9.9
    for ago in (1, 2, 7, 8, 16, 17):
        rows = np.full((40, BOOKS), 3)
        rows[0], rows[-ago] = BOS, 5
        codes = set()
        state = State(1, torch.device("cpu"))
        for seed in range(3):
            state.begin(0, Sampling(temperature=0, repeats=1, window=window, seed=seed), rows)
            codes |= set(draw(logits, state)[0].tolist())
        assert (codes == {5, 9}) == (ago <= min(window, 16)), ago


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
    before = [t.clone() for t in (state.row, state.past, state.phase, state.position, state.place, state.turn)]
    state.advance(torch.full((2, BOOKS), EOS), torch.tensor([False, True]))
    after = (state.row, state.past, state.phase, state.position, state.place, state.turn)
    for tensor, old in zip(after, before, strict=True):
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
    back.begin(0, Sampling(seed=3), rows, count - 1)
    for name in ("row", "past", "phase", "position", "place", "turn", "round", "repeats", "last", "heat", "share"):
        assert torch.equal(getattr(made, name), getattr(back, name)), name
