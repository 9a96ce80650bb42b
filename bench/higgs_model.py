"""Higgs Audio with random weights of the real size, and what a card can do at best. Nothing is downloaded."""

import time
from typing import Any

import torch

from server.pipelines.tts._higgs.delay import BOOKS, BOS
from server.pipelines.tts._higgs.sampler import CODES
from server.pipelines.tts._higgs.weights import Weights
from tests.higgs import tiny


def build(small: bool, device: torch.device, dtype: torch.dtype) -> Weights:
    """Random weights, of the real geometry or tiny. They never say EOS: utterances have the length asked for."""
    text = tiny.tokenizer()
    torch.manual_seed(0)
    with torch.device(device):
        try:
            torch.set_default_dtype(dtype)
            model = tiny.model(text, tiny.TINY | {"vocab_size": len(text)} if small else {})
        finally:
            torch.set_default_dtype(torch.float32)
        sound = tiny.codec(tiny.TINY_DAC, tiny.TINY_HUBERT, codebook_dim=8) if small else tiny.codec({}, {})
    with torch.no_grad():
        head = model.audio_lm_head.weight.view(BOOKS, CODES, -1)
        head[:, BOS:] = 0  # a logit of 0 is never among the 50 likeliest, nor the likeliest
    return Weights(model.to(device), sound.to(device), tiny.processor(text, sound), device)


def touched(model: Any) -> int:
    """Bytes of weights that a row reads: everything but the text's own layers and the embeddings."""
    parts = [model.audio_lm_head, model.model.norm]
    for layer in model.model.layers:
        parts += [layer.self_attn, layer.audio_mlp, layer.audio_input_layernorm, layer.audio_post_attention_layernorm]
    return sum(p.numel() * p.element_size() for part in parts for p in part.parameters())


def bandwidth(device: torch.device, small: bool) -> float:
    """Bytes a second that a plain copy moves, read and written: the best of five."""
    size = 2**24 if small else 2**31
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        settle(device)
        since = time.perf_counter()
        target.copy_(source)
        settle(device)
        best = min(best, time.perf_counter() - since)
    return 2 * size / best


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
