"""The model's own weights in fewer and larger operations than transformers': on a card every one is a kernel, and a row
of one stream waits as long for the kernels to begin as for the weights to be read.

q, k and v are one product, and so are an MLP's two; what a layer adds is added by the product itself. The result is
transformers' but for roundings, of which there are fewer."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from server.pipelines.tts._higgs.fused import together
from server.pipelines.tts._higgs.rotary import angles, turned

Backend = Callable[..., Any]


class Seen(Protocol):
    """Writes a layer's keys and values, and looks."""

    def attended(self, layer: int, queries: Tensor, written: Tensor) -> Tensor: ...


class Layer:
    """Attention, and the norms and the MLP that are for sound; `module` has those for text."""

    def __init__(self, number: int, module: Any) -> None:
        attention, mlp = module.self_attn, module.audio_mlp
        self.number, self.module = number, module
        self.before, self.after = module.audio_input_layernorm, module.audio_post_attention_layernorm
        self.qkv = together(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gates = together(mlp.gate_proj, mlp.up_proj)
        self.output, self.down = attention.o_proj.weight, mlp.down_proj.weight


class Layers:
    """`model`: a `HiggsAudioV2Model`. `count`: how many positions there are."""

    def __init__(self, model: Any, count: int) -> None:
        assert model.config.hidden_act == "silu", "a model of another kind"
        self._model, self._shared = model, model.config.num_key_value_heads
        self._angles = angles(model, count)
        self.all = [Layer(number, module) for number, module in enumerate(model.layers)]
        self.compile(None)

    def compile(self, backend: str | Backend | None) -> None:
        """Have torch.compile make one kernel of what lies between two products; None: as it stands. The products and
        attention are what it would call anyway, and these two are compiled in seconds where a row takes minutes."""
        self._turned, self._swished = turned, swished
        if backend is not None:
            self._turned = torch.compile(turned, dynamic=False, backend=backend)
            self._swished = torch.compile(swished, dynamic=False, backend=backend)

    def angles(self, positions: Tensor) -> Tensor:
        return self._angles[positions]

    def read(self, codes: Tensor, positions: Tensor, seen: Seen) -> Tensor:
        """What the model makes of one row of codes [n, books] for each of n tokens at `positions` [n]: [n, hidden]."""
        hidden, turns = embedded(self._model, codes), self.angles(positions)
        for layer in self.all:
            self.attend(hidden, normal(hidden, layer.before), turns, layer, seen)
            hidden.addmm_(self.gated(hidden, layer), layer.down.t())
        return normal(hidden, self._model.norm)

    def attend(self, hidden: Tensor, looking: Tensor, turns: Tensor, layer: Layer, seen: Seen) -> None:
        """Add to `hidden` [n, hidden] what its tokens see, `looking` with their norms."""
        heads = self._turned(functional.linear(looking, layer.qkv), turns)
        queries = heads.shape[1] - 2 * self._shared
        written = heads[:, queries:].view(len(heads), 2, self._shared, -1)
        hidden.addmm_(seen.attended(layer.number, heads[:, :queries], written), layer.output.t())

    def gated(self, hidden: Tensor, layer: Layer) -> Tensor:
        """The MLP for sound, but for its last product."""
        return self._swished(functional.linear(normal(hidden, layer.after), layer.gates))


def embedded(model: Any, codes: Tensor) -> Tensor:
    made: Tensor = model.embed_audio_tokens(codes)
    return made


def normal(hidden: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def swished(gates: Tensor) -> Tensor:
    """Of an MLP's two products in one the first as a gate for the second."""
    gate, up = gates.chunk(2, -1)
    return functional.silu(gate).mul_(up)
