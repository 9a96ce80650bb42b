"""The model's own weights in fewer and larger operations than transformers': on a card every one is a kernel, and a row
of one stream waits as long for the kernels to begin as for the weights to be read.

q, k and v are one product, and so are an MLP's two; what a layer adds is added by the product itself. The result is
transformers' but for roundings, of which there are fewer."""

from typing import Any, Protocol

from torch import Tensor
from torch.nn import functional

from server.pipelines.tts._higgs.fused import together
from server.pipelines.tts._higgs.rotary import angles, turned


class Seen(Protocol):
    """Writes a layer's keys and values, and looks."""

    def attended(self, layer: int, queries: Tensor, written: Tensor) -> Tensor: ...


class Layer:
    """Attention, and the norms and the MLP that are for sound; `module` has those for text."""

    def __init__(self, number: int, module: Any) -> None:
        attention, mlp = module.self_attn, module.audio_mlp
        self.number, self.module, self.active = number, module, mlp.act_fn
        self.before, self.after = module.audio_input_layernorm, module.audio_post_attention_layernorm
        self.qkv = together(attention.q_proj, attention.k_proj, attention.v_proj)
        self.gates = together(mlp.gate_proj, mlp.up_proj)
        self.output, self.down = attention.o_proj.weight, mlp.down_proj.weight


class Layers:
    """`model`: a `HiggsAudioV2Model`. `count`: how many positions there are."""

    def __init__(self, model: Any, count: int) -> None:
        self._model, self._shared = model, model.config.num_key_value_heads
        self._angles = angles(model, count)
        self.all = [Layer(number, module) for number, module in enumerate(model.layers)]

    def angles(self, positions: Tensor) -> Tensor:
        return self._angles[positions]

    def read(self, codes: Tensor, positions: Tensor, seen: Seen) -> Tensor:
        """What the model makes of one row of codes [n, books] for each of n tokens at `positions` [n]: [n, hidden]."""
        hidden, turns = embedded(self._model, codes), self.angles(positions)
        for layer in self.all:
            self.attend(hidden, normal(hidden, layer.before), turns, layer, seen)
            hidden.addmm_(gated(hidden, layer), layer.down.t())
        return normal(hidden, self._model.norm)

    def attend(self, hidden: Tensor, looking: Tensor, turns: Tensor, layer: Layer, seen: Seen) -> None:
        """Add to `hidden` [n, hidden] what its tokens see, `looking` with their norms."""
        heads = turned(functional.linear(looking, layer.qkv), turns)
        queries = heads.shape[1] - 2 * self._shared
        written = heads[:, queries:].view(len(heads), 2, self._shared, -1)
        hidden.addmm_(seen.attended(layer.number, heads[:, :queries], written), layer.output.t())


def embedded(model: Any, codes: Tensor) -> Tensor:
    made: Tensor = model.embed_audio_tokens(codes)
    return made


def normal(hidden: Tensor, norm: Any) -> Tensor:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, norm.variance_epsilon)


def gated(hidden: Tensor, layer: Layer) -> Tensor:
    """The MLP for sound, but for its last product."""
    gate, up = functional.linear(normal(hidden, layer.after), layer.gates).chunk(2, -1)
    out: Tensor = layer.active(gate).mul_(up)
    return out
