"""When each word sounds, as guessed, against the sound."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from hypothesis import given, settings
from hypothesis import strategies as st

from server.pipelines.tts._higgs.words import Habit, Timings


def test_words_follow_the_loud_parts() -> None:
    rate, rng = 24_000, np.random.default_rng(0)
    loud = lambda ms: rng.normal(0, 0.1, int(rate * ms / 1000)).astype(np.float32)  # noqa: E731
    quiet = lambda ms: np.zeros(int(rate * ms / 1000), np.float32)  # noqa: E731
    timings = Timings("aaaa bbbb, cccccccc", rate)
    timings.hear(np.concatenate([quiet(100), loud(400), quiet(300)]))
    timings.hear(loud(720))
    one, two, three = timings.final()
    assert [(w.start, w.end) for w in (one, two, three)] == [(0, 4), (5, 10), (11, 19)]
    assert one.start_ms == pytest.approx(100, abs=15)
    assert one.end_ms <= two.start_ms <= two.end_ms <= three.start_ms <= three.end_ms
    assert three.end_ms == pytest.approx(1520, abs=15)
    assert two.start_ms < 500 < 800 < two.end_ms or two.end_ms <= 500 or two.start_ms >= 800


@given(st.text("ab ,.", max_size=60), st.lists(st.integers(0, 3000), max_size=6))
@settings(max_examples=50, deadline=None)
def test_words_are_told_once_in_order_and_all_at_the_end(text: str, pieces: list[int]) -> None:
    timings, told, sounded = Timings(text, 24_000), [], 0.0
    for length in pieces:
        timings.hear(np.full(length, 0.1, np.float32))
        sounded += length / 24
        told += timings.known()
        assert all(word.end_ms <= sounded for word in told)
    assert [w.start for w in told] == sorted({w.start for w in told})
    final = timings.final()
    assert [text[w.start : w.end] for w in final] == text.split()
    assert all(w.start_ms <= w.end_ms <= sounded + 10 for w in final)


async def test_words_are_nearer_the_truth_than_by_characters_alone() -> None:
    """Against espeak, which tells when its words sound: ours from the sound alone, in the end and while it runs."""
    from contextlib import aclosing

    from server.audio import to_float
    from server.pipelines.engines import Voice
    from server.pipelines.loading import load

    texts = [
        "It was a dark night; the rain, which had fallen since noon, did not stop.",
        "I think so. But, well, perhaps we should ask her first, don't you agree?",
        "First, open the box. Then take out the lamp, the cable, and the manual.",
        "When the bell rang, everybody left the room at once, without a word.",
    ]
    engine = load("tts", "espeak", {})
    await engine.start()
    speaker, habit, errors = engine.open(Voice()), Habit(), {"characters": [], "running": [], "final": []}
    for text in texts:
        timings, truth, running, length = Timings(text, engine.rate, habit.character_ms), {}, {}, 0
        async with aclosing(speaker.speak(text)) as speech:
            async for piece in speech:
                truth |= {word.start: word for word in piece.words}
                timings.hear(to_float(piece.pcm))
                running |= {word.start: word for word in timings.known()}
                length += len(piece.pcm) / 2 / engine.rate * 1000
        habit.learn(timings)
        said, count = 0, len("".join(text.split()))
        for word in timings.final():
            middle = said + (word.end - word.start) / 2
            said += word.end - word.start
            if word.start not in truth:  # espeak tells some short words together
                continue
            true = truth[word.start].start_ms + truth[word.start].end_ms
            errors["characters"].append(abs(middle / count * length - true / 2))
            errors["final"].append(abs(word.start_ms + word.end_ms - true) / 2)
            if told := running.get(word.start):
                errors["running"].append(abs(told.start_ms + told.end_ms - true) / 2)
    await engine.stop()
    mean = {kind: float(np.mean(found)) for kind, found in errors.items()}
    print("words, mean error in ms:", mean)
    assert mean["final"] < 0.8 * mean["characters"]
    assert mean["running"] < 250
