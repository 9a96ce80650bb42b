"""Checkpoints of LinaCodec with random weights, for the package's real loaders: a tiny one, and one of the real size.

Needs the package `linacodec`. Random weights are no speech, but lengths, batches, seams and speed are the real ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.pipelines.codec._lina.imports import module


@dataclass(frozen=True)
class Size:
    content: int  # width of the content transformer
    mel: int  # width of the mel transformer
    layers: int
    heads: int
    vocoder: int
    blocks: int


TINY = Size(content=32, mel=32, layers=1, heads=2, vocoder=64, blocks=1)
REAL = Size(content=768, mel=512, layers=6, heads=8, vocoder=512, blocks=8)
WINDOWS = (31, 65)  # attention of the two: 15 tokens and 32 mel frames to either side, in every layer


def write(directory: Path, size: Size = TINY, encoder: bool = True) -> Path:
    """A checkpoint in `directory`."""
    torch, yaml = module("torch"), module("yaml")
    torch.manual_seed(1)
    (directory / "vocoder").mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(_codec(size)))
    (directory / "vocoder" / "config.yaml").write_text(yaml.safe_dump(_vocoder(size)))
    codec = module("linacodec.model").LinaCodecModel.from_hparams(str(directory / "config.yaml"))
    _stir(torch, codec)
    module("safetensors.torch").save_file(codec.weights_to_save(include_modules=[]), directory / "model.safetensors")
    vocos = module("linacodec.vocoder.vocos").Vocos.from_hparams(str(directory / "vocoder" / "config.yaml"))
    torch.save(vocos.state_dict(), directory / "vocoder" / "pytorch_model.bin")
    if encoder:
        held = _wavlm()
        weights = module("linacodec.module.distill_wavlm").wav2vec2_model(**held).state_dict()
        torch.save({"config": held, "state_dict": weights}, directory / "wavlm_encoder.pth")
    return directory


def _stir(torch: Any, codec: Any) -> None:
    """Its gates start at zero, which would make every voice and every neighbourhood sound the same."""
    for name, weights in codec.named_parameters():
        if "condition_proj" in name:
            torch.nn.init.normal_(weights, std=0.1)


def _part(path: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": arguments}


def _transformer(**arguments: Any) -> dict[str, Any]:
    return _part("linacodec.module.transformer.Transformer", **{"multiple_of": 32, "max_seq_len": 512} | arguments)


def _codec(size: Size) -> dict[str, Any]:
    own, heads = {"n_layers": size.layers, "n_heads": size.heads}, size.heads
    return {
        "model": _part(
            "linacodec.model.LinaCodecModel",
            config={"downsample_factor": 4, "mel_upsample_factor": 4},
            ssl_feature_extractor=_part("tests.tiny_ssl.TinySSL", sample_rate=24_000),
            local_encoder=_transformer(dim=32, n_layers=1, n_heads=2, window_size=31),
            local_quantizer=_part(
                "linacodec.module.fsq.FiniteScalarQuantizer",
                input_dim=32,
                output_dim=size.content,
                levels=[8, 8, 8, 5, 5],
            ),
            feature_decoder=None,
            global_encoder=_part(
                "linacodec.module.global_encoder.GlobalEncoder",
                input_channels=32,
                output_channels=128,
                dim=32,
                intermediate_dim=64,
                num_layers=1,
            ),
            mel_prenet=_transformer(dim=size.content, output_dim=size.mel, window_size=WINDOWS[0], **own),
            mel_decoder=_transformer(
                dim=size.mel,
                output_dim=100,
                window_size=WINDOWS[1],
                use_adaln_zero=True,
                adanorm_condition_dim=128,
                n_layers=size.layers,
                n_heads=heads,
            ),
            mel_postnet=_part("linacodec.module.postnet.PostNet", channels=size.mel, num_layers=4),
        )
    }


def _vocoder(size: Size) -> dict[str, Any]:
    wide = 3 * size.vocoder
    return {
        "feature_extractor": _part("vocos.feature_extractors.MelSpectrogramFeatures"),
        "backbone": _part(
            "vocos.models.VocosBackbone",
            input_channels=100,
            dim=size.vocoder,
            intermediate_dim=wide,
            num_layers=size.blocks,
        ),
        "head": _part("vocos.heads.ISTFTHead", dim=size.vocoder, n_fft=1024, hop_length=256, padding="center"),
        "upsampler": _part(
            "linacodec.vocoder.upsampler_block.UpSamplerBlock",
            in_channels=size.vocoder,
            upsample_factors=[2],
            kernel_sizes=[4],
        ),
        "head_48k": _part("vocos.heads.ISTFTHead", dim=size.vocoder, n_fft=1024, hop_length=256, padding="center"),
    }


def _wavlm() -> dict[str, Any]:
    layers = 9
    return {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(8, 10, 5), *[(8, 3, 2)] * 4, *[(8, 2, 2)] * 2],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 32,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 4,
        "encoder_num_layers": layers,
        "encoder_use_attention": [True] * layers,
        "encoder_use_feed_forward": [True] * layers,
        "encoder_total_num_heads": [2] * layers,
        "encoder_remaining_heads": [[0, 1]] * layers,
        "encoder_num_buckets": 16,
        "encoder_max_distance": 32,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": [64] * layers,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
        "normalize_waveform": False,
    }
