"""What transformers' own forward leaves in its cache, for ours to be compared with."""

import inspect
from typing import Any

import torch
from transformers import DynamicCache

from server.pipelines.tts._higgs.delay import Codes
from server.pipelines.tts._higgs.weights import Weights
from tests.higgs.stage import prompts


def cached(model: Any) -> tuple[Any, dict[str, Any]]:
    """An empty cache, and the arguments that have `model` fill it. Up to 5.23 of transformers it is called
    `past_key_values`, since then `cache`; 5.40 forgets the old name."""
    cache = DynamicCache(config=model.config)
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return cache, {name: cache, "use_cache": True}


def kept(what: Weights, prompt: Codes) -> Any:
    """The KV [layers, 2, heads, tokens, size] of `prompt`."""
    model, sound = what.model, torch.from_numpy(prompt[prompt[:, 0] == prompts().audio_id, 1:])[None]
    cache, filled = cached(model)
    with torch.inference_mode(), torch.device(what.device):
        model(
            input_ids=torch.from_numpy(prompt[:, 0])[None].to(what.device),
            audio_input_ids=sound.to(what.device),
            audio_input_ids_mask=torch.ones(sound.shape[:2], dtype=torch.bool),
            **filled,
        )
    return torch.stack([torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers])
