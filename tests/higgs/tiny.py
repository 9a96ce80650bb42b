# ruff: noqa: E402
"""A tiny Higgs Audio v2 with random weights, in the real classes and in a folder as `from_pretrained` reads it.

What callers depend on is the released geometry: 24 kHz, 960 samples a frame, 8 codebooks of 1024 (+2), and a decoder
with the same kernels and dilations, hence the same receptive field. Built in about a second, 4 MB."""

import functools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from server.pipelines.tts._higgs import shim

shim.usable()

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    DacConfig,
    DacFeatureExtractor,
    HiggsAudioV2Config,
    HiggsAudioV2ForConditionalGeneration,
    HiggsAudioV2Processor,
    HiggsAudioV2TokenizerConfig,
    HiggsAudioV2TokenizerModel,
    HubertConfig,
    PreTrainedTokenizerFast,
)

DEVICE = os.environ.get("PARLEY_TEST_DEVICE", "cpu")  # "cuda": all of it on a card, through captured graphs
torch.set_num_threads(1)  # so small a model only loses by sharing its work out

SPECIALS = [
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<|audio_out_bos|>", "<|audio_eos|>", "<|reserved_special_token_6|>", "<|AUDIO_OUT|>",
    "<|scene_desc_start|>", "<|scene_desc_end|>",
]  # fmt: skip

# The same text as the checkpoint's template, in our own wording: system, scene, then turns.
TEMPLATE = (
    "{{- bos_token }}{%- macro txt(c) %}{%- if c is string %}{{- c | trim }}{%- else %}"
    "{%- for p in c if p['type'] == 'text' %}{{- p['text'] | trim }}{%- endfor %}{%- endif %}{%- endmacro %}"
    "{%- macro scene(c) %}{%- if c is string %}{{- c | trim }}{%- else %}{%- for p in c %}{%- if p['type'] == 'text' %}"
    "{{- p['text'] | trim }}{%- if loop.first and not loop.last %}{{- '\n\n' }}"
    "{%- elif not loop.last and c[loop.index]['type'] != 'audio' %}{{- '\n' }}{%- endif %}"
    "{%- else %}{{- ' <|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>' }}{%- if not loop.last %}{{- '\n' }}{%- endif %}"
    "{%- endif %}{%- endfor %}{%- endif %}{%- endmacro %}"
    "{%- set sys = messages[0]['content'] %}{%- set rest = messages[1:] %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{{- (sys if sys is string else sys[0]['text']) | trim }}"
    "{%- if rest and rest[0]['role'] == 'scene' %}{{- '\n\n<|scene_desc_start|>\n' }}{{- scene(rest[0]['content']) }}"
    "{{- '\n<|scene_desc_end|>' }}{%- set rest = rest[1:] %}{%- endif %}{{- '<|eot_id|>' }}"
    "{%- for m in rest %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if m['role'] == 'assistant' %}{{- '<|audio_out_bos|><|AUDIO_OUT|><|audio_eos|>' }}"
    "{%- else %}{{- txt(m['content']) }}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>' }}{%- endif %}"
)  # fmt: skip


def tokenizer() -> Any:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=SPECIALS[0],
        eos_token="<|eot_id|>",
        pad_token="<|eot_id|>",
        padding_side="left",
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIALS})
    return fast


TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 4096}  # fmt: skip
TINY_DAC = {"encoder_hidden_size": 4, "decoder_hidden_size": 32, "hidden_size": 16}
TINY_HUBERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
               "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
               "mask_time_prob": 0.0, "vocab_size": 8}  # fmt: skip
RATIOS = [8, 5, 4, 2, 3]


def model(text: Any, geometry: dict[str, Any]) -> Any:
    """The model with random weights. `geometry`: what differs from the released one."""
    ids = text.convert_tokens_to_ids
    config = HiggsAudioV2Config(
        codebook_size=1026, audio_token_id=ids("<|AUDIO_OUT|>"), audio_bos_token_id=ids("<|audio_out_bos|>"),
        audio_delay_token_id=ids("<|reserved_special_token_6|>"), bos_token_id=ids("<|begin_of_text|>"),
        eos_token_id=ids("<|eot_id|>"), pad_token_id=ids("<|eot_id|>"), **geometry,
    )  # fmt: skip
    made = HiggsAudioV2ForConditionalGeneration(config).eval()
    wanted = made.generation_config
    wanted.bos_token_id, wanted.eos_token_id, wanted.pad_token_id = 0, config.eos_token_id, config.pad_token_id
    wanted._from_model_config = False  # else the file is ignored and its repetition rule lost
    wanted.ras_win_len, wanted.ras_win_max_num_repeat = 7, 2
    return made


def codec(dac: dict[str, Any], hubert: dict[str, Any], **geometry: Any) -> Any:
    """The codec with random weights, loud enough to tell its frames apart."""
    config = HiggsAudioV2TokenizerConfig(
        target_bandwidths=[0.5, 1, 1.5, 2],  # the default ends in 4, which is 16 codebooks at 25 Hz
        acoustic_model_config=DacConfig(downsampling_ratios=RATIOS, upsampling_ratios=RATIOS, **dac),
        semantic_model_config=HubertConfig(**hubert),
        **geometry,
    )
    made = HiggsAudioV2TokenizerModel(config).eval()
    with torch.no_grad():  # the stock initialisation leaves the codebooks at zero and the decoder almost silent
        for quantizer in made.quantizer.quantizers:
            quantizer.codebook.embed.normal_(0, 1)
            quantizer.project_out.weight.normal_(0, quantizer.project_out.in_features**-0.5)
        made.fc2.weight.normal_(0, made.fc2.in_features**-0.5)
        for module in made.acoustic_decoder.modules():
            if isinstance(module, torch.nn.Conv1d):
                module.weight.normal_(0, 0.5 * (module.in_channels * module.kernel_size[0]) ** -0.5)
            elif isinstance(module, torch.nn.ConvTranspose1d):
                module.weight.normal_(0, (module.in_channels * 2) ** -0.5)
        made.acoustic_decoder.conv2.weight.mul_(0.3)
    return made


def processor(text: Any, sound: Any) -> Any:
    features = DacFeatureExtractor(
        feature_size=1, hop_length=1, padding_side="right", padding_value=0.0, sampling_rate=24000,
        return_attention_mask=True,
    )  # fmt: skip
    return HiggsAudioV2Processor(features, text, sound, chat_template=TEMPLATE)


def build(out: Path, *, seed: int = 0) -> Path:
    """Write the model, its codec and its processor to the folder `out`."""
    torch.manual_seed(seed)
    text = tokenizer()
    model(text, TINY | {"vocab_size": len(text)}).save_pretrained(out)
    codec(TINY_DAC, TINY_HUBERT, codebook_dim=8).save_pretrained(out / "audio_tokenizer")
    sound = HiggsAudioV2TokenizerModel.from_pretrained(out / "audio_tokenizer")  # so that it knows its name
    processor(text, sound).save_pretrained(out)
    settings = out / "processor_config.json"
    written = json.loads(settings.read_text())
    written["audio_tokenizer"]["audio_tokenizer_name_or_path"] = "audio_tokenizer"  # so that the folder may be moved
    settings.write_text(json.dumps(written))
    return out


@functools.cache
def folder() -> Path:
    """The tiny model's folder, built once per test run."""
    return build(Path(tempfile.mkdtemp(prefix="tiny-higgs-")))
