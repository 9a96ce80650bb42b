# ruff: noqa: E402
"""What a row costs a card beside its weights: the kernels it launches, counted in the released geometry."""

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from bench.higgs_kernels import Kernels, counted, row

LAYERS = 28


def test_a_row_of_one_stream_launches_few_kernels() -> None:
    """Each takes a card a microsecond or two: 1,393 of them took longer than reading the weights."""
    kernels = row(1)
    assert kernels.by_part["norms"] == 2 * LAYERS + 1
    assert kernels.by_part["attention"] == 2 * LAYERS, "the cache is written to once a layer, and looked at"
    assert kernels.by_part.total() <= 376, kernels.by_part


def test_more_streams_launch_one_more_in_each_layer() -> None:
    """What is looked with lies apart then, and is gathered."""
    assert row(2).by_part.total() == row(1).by_part.total() + LAYERS == row(32).by_part.total()


def test_how_far_a_row_looks_changes_nothing() -> None:
    assert row(1, 2048).by_op == row(1, 512).by_op


def _count(work: object) -> Kernels:
    with torch.device("meta"):
        return counted(work)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("launched", "work"),
    [
        (0, lambda x: x.view(-1)[1:].unsqueeze(0).expand(3, -1)),
        (1, lambda x: torch.nn.functional.rms_norm(x, (8,), x[0])),
        (1, lambda x: x.t().reshape(-1)),
        (1, lambda x: torch.nn.functional.linear(x, x)),
        (2, lambda x: x.masked_fill(torch.empty(8, 8, dtype=torch.bool), 0)),
        (2, lambda x: torch.where(x < 0, x, x)),
        (3, lambda x: torch.where(x < 0, 1.0, x)),
        (2, lambda x: torch.addmm(x, x, x)),
        (1, lambda x: x.addmm_(x, x)),
        (1, lambda x: x.__setitem__((slice(None), torch.empty(2, dtype=torch.int64)), x[:, :2])),
    ],
)  # fmt: skip
def test_kernels_are_counted_as_a_card_launches_them(launched: int, work: object) -> None:
    x = torch.empty(8, 8, device="meta")
    assert _count(lambda: work(x)).by_op.total() == launched  # type: ignore[operator]


@pytest.mark.parametrize(("dtype", "launched"), [(torch.bfloat16, 1), (torch.bool, 4)])
def test_a_mask_of_booleans_costs_attention_more(dtype: object, launched: int) -> None:
    x = torch.empty(8, 1, 3, 16, dtype=torch.bfloat16, device="meta")
    mask = torch.empty(8, 1, 1, 3, dtype=dtype, device="meta")  # type: ignore[arg-type]
    work = torch.nn.functional.scaled_dot_product_attention
    assert _count(lambda: work(x, x, x, attn_mask=mask)).by_op.total() == launched
