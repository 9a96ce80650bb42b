# ruff: noqa: E402
"""Higgs' layers in few operations, against transformers' own."""

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from server.pipelines.tts._higgs.attention import Batch
from server.pipelines.tts._higgs.fused import _lie_together, together
from server.pipelines.tts._higgs.layers import Layers
from server.pipelines.tts._higgs.rotary import angles, turned
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.weights import Weights
from tests.higgs.stage import halved, loaded
from tests.higgs.theirs import cached


def test_fused_weights_are_the_modules_own() -> None:
    """Nothing is held twice, what is written to one is seen in the other, and a second engine fuses nothing anew."""
    parts = [torch.nn.Linear(8, n, bias=False) for n in (6, 4, 2)]
    before = torch.cat([part.weight for part in parts])
    whole = together(*parts)
    assert torch.equal(whole, before)
    assert len({whole.untyped_storage().data_ptr(), *(p.weight.untyped_storage().data_ptr() for p in parts)}) == 1
    whole[7] = 5
    assert (parts[1].weight[1] == 5).all()
    again = together(*parts)
    assert again.data_ptr() == whole.data_ptr()
    assert torch.equal(again, whole)
    assert [part.weight.shape for part in parts] == [(6, 8), (4, 8), (2, 8)]


def test_weights_that_only_happen_to_be_neighbours_are_fused() -> None:
    """An allocator may well lay two tensors side by side; a view of both would reach beyond the first."""

    class Weight:
        """A tensor [2, 8] at an address, with a storage of its own."""

        def __init__(self, address: int) -> None:
            self.address, self.nbytes, self.storage = address, 64, torch.zeros(2, 8).untyped_storage()

        def data_ptr(self) -> int:
            return self.address

        def untyped_storage(self) -> object:
            return self.storage

    assert not _lie_together([Weight(1024), Weight(1088)])  # type: ignore[list-item]
    assert not _lie_together([Weight(1024), Weight(2048)])  # type: ignore[list-item]


def test_a_bias_is_not_lost_unseen() -> None:
    with pytest.raises(AssertionError):
        together(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


@pytest.mark.parametrize("what", [loaded, halved])
def test_heads_are_turned_as_transformers_turns_them(what: Callable[[], Weights]) -> None:
    """To the bit, in either precision; v is what it was."""
    from transformers.models.higgs_audio_v2.modeling_higgs_audio_v2 import apply_rotary_pos_emb

    model, positions = what().model.model, torch.tensor([0, 1, 700, 2047])
    config, dtype = model.config, model.norm.weight.dtype
    queries, keys, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    with torch.inference_mode(), torch.device(model.device):
        heads = torch.randn(4, (queries + 2 * keys) * size, dtype=dtype)
        each = heads.view(4, 1, -1, size).transpose(1, 2)
        cos, sin = model.rotary_emb(heads, positions.to(model.device)[:, None])
        q, k = apply_rotary_pos_emb(each[:, :queries], each[:, queries : queries + keys], cos, sin)
        wanted = torch.cat([q, k, each[:, queries + keys :]], 1)[:, :, 0]
        assert torch.equal(turned(heads, angles(model, 2048)[positions.to(model.device)]), wanted)


@pytest.mark.parametrize(("what", "off"), [(loaded, 1e-5), (halved, 0.03)])
def test_rows_are_read_as_transformers_reads_them(what: Callable[[], Weights], off: float) -> None:
    """Five rows one after the other, by two slots at once; in bfloat16 within a few roundings."""
    model = what().model.model
    slots = Slots(model.config, 3, 600, model.dtype, model.device)
    layers, (_, filled) = Layers(model, slots.places), cached(model)
    codes = torch.from_numpy(np.random.default_rng(0).integers(0, 1024, (2, 5, 8))).to(model.device)
    with torch.inference_mode():
        theirs = model(None, codes, **filled).last_hidden_state
        for number in range(5):
            at = torch.full((2,), number, device=model.device)
            ours = layers.read(codes[:, number], at, Batch(slots, at, 512))
            assert float((ours - theirs[:, number]).abs().max()) < off * float(theirs.abs().max())
