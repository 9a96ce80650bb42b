"""A language model of 6 MB made on the spot, with which real llama.cpp says one fixed text.

Attention and feed-forward are zero; the output row of each token is the embedding of the one before it in the script,
so after the prompt's end the script follows, and then the end of the text (at temperature 0)."""

import itertools
from pathlib import Path

import numpy as np

_TOKENS = (  # none twice: each knows but the one before it
    "Hello| there|. I| am| a| tiny| model|,| running| inside| llama|.cpp|! My| answer| is| fixed| so| that| tests| can"
    "| check| every| word|. The| price| was| 3|.|14| dollars| for| Dr|. Smith|, wasn't| it|?"
)
SCRIPT = _TOKENS.split("|")
TEMPLATE = (
    "{% for m in messages %}<|user|>{{ m['role'] }}: {{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
EMBED, FEED, LAYERS, HEADS = 384, 64, 2, 4


def write(path: Path) -> None:
    """The model file, by the `gguf` package."""
    from gguf import GGUFWriter, TokenType

    special = [("<unk>", TokenType.UNKNOWN)]
    special += [(name, TokenType.CONTROL) for name in ("<s>", "</s>", "<|end|>", "<|assistant|>", "<|user|>")]
    pieces = special + [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    script = list(range(len(pieces), len(pieces) + len(SCRIPT)))
    pieces += [(word, TokenType.USER_DEFINED) for word in SCRIPT]  # so that text is cut into them again
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(2048)
    writer.add_embedding_length(EMBED)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(EMBED // HEADS)
    writer.add_vocab_size(len(pieces))
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text.encode() for text, _ in pieces])
    writer.add_token_scores([0.0] * len(pieces))
    writer.add_token_types([int(kind) for _, kind in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in _tensors(len(pieces), [4, *script, 2]).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(size: int, chain: list[int]) -> dict[str, np.ndarray]:
    embedding = np.random.default_rng(1).standard_normal((size, EMBED)).astype(np.float32)
    embedding *= np.sqrt(EMBED) / np.linalg.norm(embedding, axis=1, keepdims=True)
    output = np.zeros((size, EMBED), np.float32)
    for before, after in itertools.pairwise(chain):
        output[after] = embedding[before]
    ones = np.ones(EMBED, np.float32)
    tensors = {"token_embd.weight": embedding, "output_norm.weight": ones, "output.weight": output}
    shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (EMBED, EMBED))
    shapes |= {"ffn_gate": (FEED, EMBED), "ffn_up": (FEED, EMBED), "ffn_down": (EMBED, FEED)}
    for layer in range(LAYERS):
        tensors |= {f"blk.{layer}.{name}.weight": ones for name in ("attn_norm", "ffn_norm")}
        tensors |= {f"blk.{layer}.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    return tensors
