"""Higgs sound: windows of codes against the processor's own decoding of the whole."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from server.pipelines.tts._higgs.codec import HOP
from server.pipelines.tts._higgs.delay import BOOKS, BOS, EOS, Rows, delayed
from server.pipelines.tts._higgs.voicing import _codes
from server.pipelines.tts._higgs.windows import FIRST, FRAME_MS, RIGHT, TAIL, Pace, Window, Windows, first_frames
from tests.higgs.stage import Stage, drawn, loaded

FAST = Pace(row_ms=3, codec_ms=5, ahead_ms=0)


def _frames(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (count, BOOKS))


def _whole(rows: np.ndarray) -> np.ndarray:
    """The processor's decoding of an utterance's rows."""
    return np.asarray(loaded().processor.batch_decode(torch.from_numpy(rows)[None].to(loaded().device))[0])


def _error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative, in the L2 norm."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


# --- the delay pattern


@given(st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_rows_hold_the_frames_they_were_made_of(count: int, seed: int) -> None:
    frames = _frames(count, seed)
    rows = delayed(frames)
    theirs = loaded().processor.build_delay_pattern(
        torch.from_numpy(np.concatenate([[[BOS] * 8], frames, [[EOS] * 8]]).T)[None]
    )
    assert np.array_equal(rows, theirs[0].T.numpy())
    said = Rows()
    for index, row in enumerate(rows):
        said.push(row)
        assert said.frames == min(count, max(0, index - BOOKS + 1))
        assert np.array_equal(said.codes(0, said.frames), frames[: said.frames])
    assert said.ended
    assert said.begun == count


def test_codes_not_said_yet_are_missing() -> None:
    frames, said = _frames(12), Rows()
    for row in delayed(frames)[:13]:
        said.push(row)
    assert (said.frames, said.begun) == (5, 12)
    codes = said.codes(4, 12)
    for index, frame in enumerate(range(4, 12)):
        there = min(BOOKS, 12 - frame)  # one codebook less for every frame further on
        assert np.array_equal(codes[index, :there], frames[frame, :there])
        assert (codes[index, there:] == -1).all()


def test_a_wrong_code_in_the_middle_is_left_out() -> None:
    rows = delayed(_frames(20))
    rows[6, 2] = BOS  # codebook 2 of frame 3
    said = Rows()
    for row in rows:
        said.push(row)
    assert said.frames == 20
    assert np.argwhere(said.codes(0, 20) == -1).tolist() == [[3, 2]]


# --- windows


def _pieces(rows: np.ndarray, pace: Pace, ended: bool = True, longest: int = 10) -> list[tuple[Window, np.ndarray]]:
    """The utterance as it is given out: rows come one by one, every due window is decoded at once."""
    codec, out = Stage(slots=1).codec, []
    stream = Stage(slots=1).stream("x" * 40, limit=len(rows) if ended else 10**6)
    windows = Windows(40, longest)
    for row in rows:
        stream.said.push(row)
        while window := windows.due(stream.said.frames, stream.said.begun, stream.done, pace):
            wave = codec.decode([_codes(stream, window)]).result()[0]
            begin = (window.first - window.begin) * HOP
            out.append((window, wave[begin : begin + (window.last - window.first) * HOP]))
    return out


@pytest.mark.parametrize("longest", [1, 4, 10, 25])
def test_pieces_with_their_lookahead_are_exact(longest: int) -> None:
    """All but the first piece, and the last ten frames, where `batch_decode` has the hiss that we have not."""
    rows = delayed(_frames(70))
    patient = Pace(row_ms=3, codec_ms=5, ahead_ms=10_000)
    pieces = _pieces(rows, patient, longest=longest)
    assert [w.first for w, _ in pieces] == [0, *[w.last for w, _ in pieces[:-1]]]
    assert pieces[-1][0].last == 70
    theirs = _whole(rows)
    sound = np.concatenate([wave for _, wave in pieces])
    assert len(sound) == len(theirs) == 70 * HOP
    steady = (70 - RIGHT) * HOP
    assert np.abs(sound[:steady] - theirs[:steady]).max() < 1e-5


def test_the_first_piece_is_early_and_its_error_is_known() -> None:
    """Three frames, with as many whole frames to look ahead at as come in 25 ms. The half-said ones help where few do.

    With random weights every codebook weighs the same, which is the worst case for half-said frames."""
    frames, codec = _frames(70), Stage(slots=1).codec
    theirs = _whole(delayed(frames))[: FIRST * HOP]
    errors, bare = {}, {}
    for row_ms in (2.5, 5, 12, 25, 32):
        (first, wave), *_ = _pieces(delayed(frames)[:-1], Pace(row_ms, 5, 0), ended=False)
        whole = min(RIGHT, int(25 / row_ms))
        assert first.last >= FIRST
        assert first.end == min(first.last + RIGHT, first.last + whole + BOOKS - 1)
        errors[row_ms] = _error(wave[: FIRST * HOP], theirs)
        bare[row_ms] = _error(codec.decode([frames[: FIRST + whole]]).result()[0][: FIRST * HOP], theirs)
    print("first piece, relative error by ms a row:", errors, "without half-said frames:", bare)
    assert errors[2.5] < 1e-5
    assert errors[5] < 0.1
    assert errors[12] < 0.35
    assert all(errors[row] < bare[row] for row in (12, 25))


def test_the_tail_is_the_last_frame_going_on() -> None:
    frames = _frames(40)
    *_, (window, wave) = _pieces(delayed(frames), Pace(3, 5, 10_000))
    assert window.tail
    longer = np.concatenate([frames, np.repeat(frames[-1:], TAIL, axis=0)])
    theirs = _whole(delayed(longer))[window.first * HOP : 40 * HOP]
    assert np.abs(wave - theirs).max() < 1e-5


def test_windows_decode_together_as_alone() -> None:
    codec = Stage(slots=1).codec
    windows = [_frames(23, seed) for seed in range(5)]
    windows[2][20:, 3:] = -1
    together = codec.decode(windows).result()
    for window, wave in zip(windows, together, strict=True):
        assert np.abs(codec.decode([window]).result()[0] - wave).max() < 1e-5


def test_the_scheduler_gives_out_what_batch_decode_makes() -> None:
    stage = Stage(slots=3)
    streams = [stage.say("A sentence of some length, spoken by many.", drawn(i), limit=90) for i in (1, 3, 8)]
    for stream in streams:
        stream.plays_until = 1e9  # the listener can wait, so every piece has its lookahead
    stage.run()
    for stream in streams:
        pcm = np.frombuffer(stream.outlet.pcm, "<i2") / 32768  # type: ignore[attr-defined]
        rows = stream.said.array()
        theirs = np.clip(_whole(np.concatenate([rows, [[EOS] * 8]]))[: len(pcm)], -1, 1)
        steady = (stream.said.frames - RIGHT - BOOKS) * HOP
        assert steady > 0
        assert np.abs(pcm[:steady] - theirs[:steady]).max() <= 1 / 32768
        assert stream.outlet.ended == 1  # type: ignore[attr-defined]


# --- how the pieces grow


def _played(row_ms: float, frames: int, characters: int, codec_ms: float = 5.0) -> tuple[list[Window], float]:
    """An utterance made at `row_ms` a row and played at once: its windows, and the longest wait for one of them, in ms
    after it was needed."""
    windows, now, plays_until, worst, out = Windows(characters), 0.0, 0.0, -1e9, []
    for row in range(BOOKS + 1, frames + BOOKS + 2):
        now += row_ms
        pace = Pace(row_ms, codec_ms, max(0.0, plays_until - now))
        whole = min(frames, row - BOOKS)
        if window := windows.due(whole, min(frames, whole + BOOKS - 1), row == frames + BOOKS + 1, pace):
            ready = now + codec_ms
            worst = max(worst, ready - plays_until) if out else worst
            plays_until = max(plays_until, ready) + (window.last - window.first) * FRAME_MS
            out.append(window)
    assert out[-1].last == frames
    return out, worst


@pytest.mark.parametrize("row_ms", [0, 1, 3, 8, 15, 25, 32, 38, 45, 60, 120])
def test_playback_never_starves_however_slow_the_card(row_ms: float) -> None:
    """Also where a row takes longer than it sounds, if the text tells how much is to come."""
    frames = 150
    _, late = _played(row_ms, frames, characters=int(frames * 0.6))
    assert late <= 0, f"a hole of {late:.0f} ms"


def test_a_fast_card_speaks_after_three_frames_and_soon_exactly() -> None:
    windows, _ = _played(3, 150, 90)
    assert windows[0].last == FIRST
    assert all(w.end - w.last == RIGHT for w in windows[1:-1])


def test_the_first_piece_grows_with_the_row_time() -> None:
    lengths = [first_frames(Pace(row, 5, 0), 150) for row in (2, 10, 30, 39, 50, 80)]
    assert lengths == sorted(lengths)
    assert lengths[0] == FIRST
    assert lengths[-1] > 60
