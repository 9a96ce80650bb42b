# ruff: noqa: E402
"""What a card demands of the engine, as far as a processor can show it.

The device "meta" stands for the card: like it, it is not the host, so that what mixes both or asks for a value fails.
All of `tests/test_higgs_*.py` runs on a card with PARLEY_TEST_DEVICE=cuda, then through captured graphs."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="pip install torch==2.13.0")
pytest.importorskip("transformers", reason="pip install -e .[test]")

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from server.pipelines.tts._higgs import reading
from server.pipelines.tts._higgs.codec import HOP, Codec
from server.pipelines.tts._higgs.delay import BOOKS
from server.pipelines.tts._higgs.graphs import Graphs
from server.pipelines.tts._higgs.reading import Part, Reader
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.step import Step
from tests.higgs import tiny
from tests.higgs.stage import GREEDY, Stage, drawn, loaded, prompts

CARD = torch.device("meta")
TEXTS = ["Hello there.", "A second voice speaks a rather longer sentence.", "Three", "And the fourth one, at last!"]
WAITS = ("_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "unique", "lift_fresh")


class Watch(TorchDispatchMode):
    """Tells `look` of every operation: its function, the tensors it takes, those it gives."""

    def __init__(self, look: Callable[[Any, list[Any], list[Any]], None]) -> None:
        super().__init__()
        self._look = look

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self._look(func, taken, [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)])
        return out


class NothingFromTheHost(TorchFunctionMode):
    """Refuses tensors made of Python's numbers: on a card that is a copy that waits."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.from_numpy, torch.asarray), f"{func.__name__} copies"
        return func(*args, **(kwargs or {}))


@contextmanager
def _only_on(device: Any) -> Iterator[None]:
    """Nothing inside may leave the device, ask it for a value, or have a shape that depends on values."""

    def look(func: Any, taken: list[Any], given: list[Any]) -> None:
        name = func.name().removeprefix("aten::").partition(".")[0]
        assert {t.device.type for t in [*taken, *given]} <= {device.type}, f"{func} takes or gives what is elsewhere"
        assert name not in WAITS, f"{func} waits for the device"
        by_mask = name.startswith("index") and any(t.dtype == torch.bool for t in taken if t is not taken[0])
        assert not by_mask, f"{func} picks by a mask: how much that is, only the device knows"

    with Watch(look), NothingFromTheHost():
        yield


def _on_a_card(slots: int = 5, length: int = 1024) -> tuple[Step, Reader]:
    """The real classes in bfloat16, with the buffers they have on a card."""
    text = tiny.tokenizer()
    with CARD:
        torch.set_default_dtype(torch.bfloat16)
        model = tiny.model(text, tiny.TINY | {"vocab_size": len(text)})
        torch.set_default_dtype(torch.float32)
    cache, graphs = Slots(model.config, slots, length, torch.bfloat16, CARD), Graphs(CARD, False)
    graphs.enabled = True
    return Step(model, cache, graphs), Reader(model, cache, graphs, model.config.audio_token_id)


def test_rows_and_prompts_never_leave_the_card() -> None:
    """At every batch size and reach; anything else forbids a graph, or waits for the device in every layer."""
    step, reader = _on_a_card()
    works = step.works() | reader.works()
    assert len(works) == 2 * (4 + 3)
    for work in works.values():
        with _only_on(CARD):
            work()


@pytest.mark.parametrize("length", [600, 601, 1023])
def test_masks_are_as_long_as_attention_likes_them(length: int) -> None:
    """Any other length is padded in every layer: two kernels more in each."""
    stage = Stage(slots=2, length=length)
    assert all(reach % 16 == 0 for reach in stage.step.slots.reaches())
    assert max(stage.step.slots.reaches()) >= length
    stream = stage.say("Hello there.", drawn(1), limit=30)
    stage.run()
    assert stage.as_alone(stream)


def test_contexts_are_copied_and_cropped_on_the_card() -> None:
    step, _ = _on_a_card()
    with _only_on(CARD), torch.inference_mode():
        kept = step.slots.saved(1, 300)
        assert kept.shape[-2:] == (300, 16)
        step.slots.restore(2, kept, 200)
        step.move(2, 0, 201)


def test_decoding_never_leaves_the_card() -> None:
    with CARD:
        codec = Codec(tiny.codec(tiny.TINY_DAC, tiny.TINY_HUBERT, codebook_dim=8), CARD)
    codes = torch.zeros(2, 24, BOOKS, dtype=torch.int64, device=CARD)
    with _only_on(CARD), torch.inference_mode():
        assert codec._waves(codes).shape == (2, 24 * HOP)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.any()),
        lambda x: x + torch.tensor([1, 2], device=CARD),
        lambda x: x.to("cpu"),
    ],
)
def test_what_would_wait_for_a_card_is_seen_here(work: Callable[[Any], object]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), _only_on(CARD):
        work(torch.zeros(2, device=CARD))


def _lasting(stage: Stage) -> dict[str, Any]:
    """Every tensor that a captured graph knows by its address."""
    step, state = stage.step, stage.step.state
    kept = {"kv": step.slots.kv, "active": step.active}
    kept |= {f"state.{name}": value for name, value in vars(state).items()}
    kept |= {f"fused {n}.{name}": getattr(x, name) for n, x in enumerate(step.layers.all) for name in ("qkv", "gates")}
    kept["angles"] = step.layers._angles
    kept |= {f"buffer {size}.{i}": t for size, pair in stage.reader._buffers.items() for i, t in enumerate(pair)}
    return kept | {f"model.{n}": t for n, t in [*step.model.named_parameters(), *step.model.named_buffers()]}


def _fixed(stage: Stage) -> Stage:
    """With a reader that has its buffers, as on a card; what would be captured runs as it is."""
    graphs = Graphs(torch.device("cpu"), False)
    graphs.enabled = True
    stage.reader = stage.scheduler.reader = Reader(stage.step.model, stage.step.slots, graphs, prompts().audio_id)
    return stage


def test_what_a_graph_knows_by_its_address_never_moves() -> None:
    """Over streams that join, end, are cancelled, move to other slots, come back and go on."""
    stage = _fixed(Stage(slots=4))
    before = {name: tensor.data_ptr() for name, tensor in _lasting(stage).items()}
    for turn in range(3):
        streams = [stage.say(text, drawn(turn + i), limit=10 + 7 * i) for i, text in enumerate(TEXTS)]
        stage.until(lambda streams=streams: len(streams[2].said) > 5)  # type: ignore[misc]
        streams[1].cancelled = True
        stage.run()
    assert {name: tensor.data_ptr() for name, tensor in _lasting(stage).items()} == before


def test_what_is_captured_writes_only_what_it_should() -> None:
    stage = _fixed(Stage(slots=3))
    names: dict[int, str] = {}  # the first where several are views of one
    for name, tensor in _lasting(stage).items():
        names.setdefault(tensor.untyped_storage().data_ptr(), name)
    written: set[str] = set()

    def look(func: Any, taken: list[Any], given: list[Any]) -> None:
        for argument, value in zip(func._schema.arguments, taken, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written.add(names.get(value.untyped_storage().data_ptr(), ""))

    for works, wanted in (
        (stage.step.works(), {"kv", "state.moving", "state.past"}),
        (stage.reader.works(), {"kv"}),
    ):
        written.clear()
        with Watch(look):
            for work in works.values():
                work()
        assert written - {""} == wanted


def test_a_prompt_has_been_read_before_its_time_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card works on after it was asked: without a wait the next row would be blamed for the prompt."""
    order: list[str] = []

    class Asking(Graphs):
        def run(self, key: object, work: object) -> None:
            order.append("asked")

    stage = Stage(slots=1)
    reader = Reader(loaded().model, stage.step.slots, Asking(torch.device("cpu"), False), prompts().audio_id)
    monkeypatch.setattr(reading, "settle", lambda device: order.append("waited"))
    reader.read([Part(0, 0, prompts().turn("Hello."))])
    assert order == ["asked", "waited"]


def test_every_size_is_compiled_and_none_falls_back_unseen() -> None:
    from torch._dynamo.testing import CompileCounter

    stage = Stage(slots=4, length=2048)
    made = CompileCounter()
    try:
        assert stage.step.compile(made) == ""
        assert made.frame_count == 2 * len(stage.step.sizes) == 6
        for work in stage.step.works().values():
            work()
        assert made.frame_count == 6, "how far a row looks is nothing to what was compiled"
    finally:
        torch._dynamo.reset()


@pytest.mark.skipif(not shutil.which("c++"), reason="inductor wants a C++ compiler")
def test_what_inductor_makes_is_the_same() -> None:
    stage = Stage(slots=2, captured=False)
    try:
        assert stage.step.compile() == ""
        streams = [stage.say(text, how, limit=20) for text, how in zip(TEXTS, (GREEDY, drawn(1)), strict=False)]
        stage.run()
        assert all(stage.as_alone(stream) for stream in streams)
    finally:
        torch._dynamo.reset()


def test_where_nothing_compiles_rows_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no C compiler found")

    stage = Stage(slots=1)
    try:
        assert "no C compiler found" in stage.step.compile(broken)
    finally:
        torch._dynamo.reset()
    assert "could not be compiled" in caplog.text
    stream = stage.say("Hello.", limit=12)
    stage.run()
    assert stage.as_alone(stream)
