"""How many kernels a card launches for a row of Higgs Audio: counted on the device "meta", where nothing is computed.

Each takes a card a microsecond or two, however little it does; beside a row's weights that is what a row costs at one
stream. What an operation launches is known from torch's sources for CUDA, by hand: a count, not a measurement;
`launched` looks on a card what really was."""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from server.pipelines.tts._higgs.graphs import Graphs
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.step import Step
from tests.higgs import tiny

FREE = {"empty", "empty_like", "empty_strided", "new_empty", "detach", "_unsafe_view"}
KNOWN = {"rms_norm": 1, "sort": 4, "topk": 2, "masked_fill": 2, "index_put": 2, "scatter": 2, "addmm": 2}  # others: 1
MADE_FLOAT = 3  # what attention does to a mask of booleans, every time
PARTS = {
    "embedded": "embeddings",
    "looked": "mask",
    "angles": "rope",
    "turned": "rope",
    "normal": "norms",
    "gated": "MLP",
    "swished": "MLP",
    "attend": "q, k, v and output",
    "attended": "attention",
    "read": "MLP",
    "_logits": "heads",
    "draw": "sampler",
    "advance": "bookkeeping",
    "_row": "bookkeeping",
}  # by the innermost function of such a name


class Kernels(TorchDispatchMode):
    """Counts them inside: `by_part` and `by_op`."""

    def __init__(self, parts: Mapping[str, str] = PARTS) -> None:
        super().__init__()
        self._parts = parts
        self.by_part: Counter[str] = Counter()
        self.by_op: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        name, kwargs = func.name().removeprefix("aten::").partition(".")[0], dict(kwargs or {})
        if name == "scaled_dot_product_attention":
            return self._attention(*args, **kwargs)
        if name not in KNOWN:
            with self:  # what is made of others is counted as those
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        if name not in FREE and not _only_looks(func):
            self._count(name, KNOWN.get(name, 1))
        return func(*args, **kwargs)

    def _attention(self, query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, **__: Any) -> Any:
        """The memory-efficient kernel, which lays its heads out last but one."""
        self._count("attention", 1 + MADE_FLOAT * (attn_mask is not None and attn_mask.dtype == torch.bool))
        batch, heads, rows, size = query.shape
        return query.new_empty(batch, rows, heads, size).transpose(1, 2)

    def _count(self, name: str, launched: int) -> None:
        self.by_op[name] += launched
        self.by_part[self._part()] += launched

    def _part(self) -> str:
        frame: Any = sys._getframe()
        while frame is not None and frame.f_code.co_name not in self._parts:
            frame = frame.f_back
        return self._parts[frame.f_code.co_name] if frame else "the rest"


def _only_looks(func: Any) -> bool:
    """Whether it gives a view of what it takes."""
    given = [given.alias_info for given in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in given)


def row(count: int, reach: int = 512) -> Kernels:
    """A row of `count` streams of the released geometry in bfloat16."""
    card, model = torch.device("meta"), _released()
    step = Step(model, Slots(model.config, count, 2048, torch.bfloat16, card), Graphs(card, False))
    return counted(lambda: step._row(count, reach))


@functools.cache
def _released() -> Any:
    try:
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            return tiny.model(tiny.tokenizer(), {})
    finally:
        torch.set_default_dtype(torch.float32)


@torch.inference_mode()
def counted(work: Callable[[], object]) -> Kernels:
    with Kernels() as kernels:
        work()
    return kernels


def told(kernels: Kernels) -> str:
    parts = ", ".join(f"{part} {launched}" for part, launched in kernels.by_part.most_common())
    return f"{kernels.by_part.total()} kernels: {parts}"


def launched(step: Step, rows: int = 5) -> list[str]:
    """What a card launched for a row of one stream, and for how long each ran. No slot may be running."""
    reach = step.slots.reach(step.slots.length // 2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(rows):
            step._batch(1, reach)
    return listed(profile.key_averages(), rows)


def listed(averages: Iterable[Any], rows: int, most: int = 15) -> list[str]:
    """The kernels that `rows` rows launched: all, and those that take longest."""
    ran = sorted((x for x in averages if x.self_device_time_total), key=lambda x: -x.self_device_time_total)
    count, busy = sum(x.count for x in ran) / rows, sum(x.self_device_time_total for x in ran) / rows / 1000
    lines = [
        f"{x.self_device_time_total / rows:8.1f} us a row: {x.count / rows:.0f} times {x.key[:90]}" for x in ran[:most]
    ]
    return [f"a row of one stream launched {count:.0f} kernels, which ran for {busy:.2f} ms", *lines]
