# ruff: noqa: E402
"""Higgs in bfloat16, as it runs on a card; float32 is what the other tests compare in."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.pipelines.tts._higgs.codec import HOP, Codec
from server.pipelines.tts._higgs.delay import BOOKS, delayed
from server.pipelines.tts._higgs.prompt import Scene
from server.pipelines.tts._higgs.reading import Part
from tests.higgs import tiny
from tests.higgs.stage import GREEDY, Stage, drawn, halved, prompts
from tests.higgs.theirs import kept

TEXTS = ["Hello there.", "A second voice speaks a rather longer sentence.", "Three", "And the fourth one, at last!"]


@pytest.mark.parametrize("how", [GREEDY, drawn(3)], ids=["greedy", "drawn"])
def test_streams_in_company_are_as_alone(how: Any) -> None:
    def rows(texts: list[str], late: int = 0) -> list[np.ndarray]:
        stage = Stage(slots=4, what=halved())
        streams = [stage.say(text, how, limit=30) for text in texts[: len(texts) - late]]
        stage.until(lambda: len(streams[0].said) > 7)
        streams += [stage.say(text, how, limit=30) for text in texts[len(texts) - late :]]
        stage.run()
        assert all(stream.complete for stream in streams)
        assert all(np.frombuffer(stream.outlet.pcm, "<i2").any() for stream in streams)  # type: ignore[attr-defined]
        return [stream.said.array() for stream in streams]

    alone = [rows([text])[0] for text in TEXTS]
    for together in (rows(TEXTS), rows(TEXTS, late=2)):
        assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_what_is_read_is_what_the_model_reads() -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (30, BOOKS))
    said = prompts().turn("Recorded."), prompts().sound(delayed(codes)), prompts().turn("What is said now.")
    prompt = np.concatenate([prompts().head(Scene()), *said])
    stage = Stage(slots=2, what=halved())
    stage.reader.read([Part(1, 0, prompt)])
    ours, theirs = stage.step.slots.saved(1, len(prompt)).float(), kept(halved(), prompt).float()
    assert float((ours - theirs).abs().max()) < 0.02 * float(theirs.abs().max())  # two roundings of bfloat16


def test_a_codec_stored_in_half_precision_decodes_in_full(tmp_path: Any) -> None:
    from transformers import HiggsAudioV2TokenizerModel

    from server.pipelines.tts._higgs import weights

    folder = tiny.build(tmp_path)
    HiggsAudioV2TokenizerModel.from_pretrained(folder / "audio_tokenizer").bfloat16().save_pretrained(
        folder / "audio_tokenizer"
    )
    found = weights.load(str(folder), "", "cpu", "bfloat16", True)
    assert Codec(found.codec, found.device).decode([np.zeros((5, BOOKS), np.int64)]).result().shape == (1, 5 * HOP)
