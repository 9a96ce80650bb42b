"""LinaCodec: speech at 48 kHz in 12.5 tokens a second. Source: github.com/ysharma3501/LinaCodec, extra `linacodec`.

Options: `model` a directory, or a name on the Hugging Face hub with its `revision`; `cache` a directory for what is
fetched (the hub's own otherwise, which honours HF_HOME); `device` auto, cpu, cuda or cuda:N; `encoder` false loads only
what decoding needs; `autocast` auto, off, bfloat16 or float16 (auto: half precision where it is faster here); `batch`
windows in one pass; `whole` tokens that are decoded in one pass at most, longer speech in windows of `window` new
tokens between `left` and `right` tokens of context, `first` new ones in the first, crossfaded over `fade_ms`; `trust`
further packages whose classes the checkpoint's configuration may name.
"""

from pathlib import Path

from server.errors import EngineUnavailable
from server.pipelines.codec._engine import BatchedCodec
from server.pipelines.codec._lina.checkpoint import HUB
from server.pipelines.codec._lina.imports import HOW, present
from server.pipelines.codec._lina.network import Autocast, LinaNetwork
from server.pipelines.codec._windows import Shape
from server.pipelines.engines import Codec


def create(
    *,
    model: str = HUB,
    revision: str = "",
    cache: Path | None = None,
    device: str = "auto",
    encoder: bool = True,
    autocast: Autocast = "auto",
    batch: int = 16,
    whole: int = 256,
    window: int = 12,
    left: int = 16,
    right: int = 4,
    first: int = 4,
    fade_ms: float = 15,
    trust: tuple[str, ...] = (),
) -> Codec:
    """Raises `EngineUnavailable` where the package is missing; `start` raises for a missing model."""
    if not present():
        raise EngineUnavailable(HOW)
    network = LinaNetwork(
        model=model, revision=revision, cache=cache, device=device, encoder=encoder, autocast=autocast, trust=trust
    )
    shape = Shape(window, left, right, first, fade_ms)
    return BatchedCodec(network, shape=shape, whole=whole, batch=batch, name="linacodec")
