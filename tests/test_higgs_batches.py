# ruff: noqa: E402
"""Higgs sound in batches, as a card makes it: few shapes, streams together, and nobody kept waiting for it."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.pipelines.tts._higgs.codec import GRAIN, HOP, LONGEST, Codec, Decoding
from server.pipelines.tts._higgs.delay import BOOKS, delayed
from tests.higgs.stage import Stage, drawn, loaded


def test_batches_filled_up_sound_the_same_and_have_few_shapes() -> None:
    codec, plain = (Codec(loaded().codec, loaded().device, few) for few in (True, False))
    shapes: set[tuple[int, ...]] = set()
    waves = codec._waves
    codec._waves = lambda codes: shapes.add(tuple(codes.shape)) or waves(codes)  # type: ignore[method-assign, func-returns-value]
    random = np.random.default_rng(0)
    for count, lengths in ((1, (20,)), (3, (25, 31, 29)), (5, (32, 30, 32, 25, 26))):
        windows = [random.integers(0, 1024, (length, BOOKS)) for length in lengths]
        assert len({codec.length(length) for length in lengths}) == 1
        made = codec.decode(windows).result()
        assert len(made) == count
        assert made.std() > 0.1
        for window, wave in zip(windows, made, strict=True):
            exact = (len(window) - 10) * HOP  # what lies ten frames before a window's end does not know what follows
            assert np.abs(wave[:exact] - plain.decode([window]).result()[0, :exact]).max() < 1e-4
    assert shapes == {(1, 24, BOOKS), (4, 32, BOOKS), (8, 32, BOOKS)}
    shapes.clear()
    codec.warm_up(5)
    assert shapes == {(n, length, BOOKS) for n in (1, 2, 4, 8) for length in range(GRAIN, LONGEST + 1, GRAIN)}


def test_tails_of_nearly_one_length_are_decoded_together() -> None:
    stage = Stage()
    voicing = stage.scheduler.voicing
    voicing._codec = Codec(loaded().codec, loaded().device, few=True)
    streams = [stage.stream("Hello."), stage.stream("Hello you.")]
    for stream, frames in zip(streams, (20, 22), strict=True):
        for row in delayed(np.random.default_rng(frames).integers(0, 1024, (frames, BOOKS))):
            stream.said.push(row)
    voicing.decode(streams, 1)
    assert len(voicing._batches) == 1
    voicing.deliver(wait=True)
    assert [len(s.outlet.pcm) // 2 for s in streams] == [20 * HOP, 22 * HOP]  # type: ignore[attr-defined]


def test_sound_that_is_still_being_made_is_waited_for_only_when_nothing_else_can_be_done() -> None:
    """Looking again and again whether a card is done would keep the event loop from running."""
    stage = Stage(slots=2)
    decode, looks, waits = stage.codec.decode, [], []

    class Slow(Decoding):
        """Never ready when somebody looks; there when somebody waits."""

        @property
        def ready(self) -> bool:
            looks.append(True)
            return False

        def result(self) -> Any:
            waits.append(True)
            return super().result()

    stage.codec.decode = lambda windows: Slow(torch.from_numpy(decode(windows).result()))  # type: ignore[method-assign]
    stream = stage.say("Hello there.", drawn(1), limit=40)
    stage.until(lambda: stream.done)
    assert looks
    assert not waits, "a row was kept waiting by the codec"
    stage.run(rounds=10)
    assert waits
    assert stream.complete
