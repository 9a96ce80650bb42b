"""LinaCodec's model on one device, with the traps of the package closed.

Explicit device and eval mode, no CUDA asked for, no dropout (its attention drops 10 % even in eval, so two decodes of
the same tokens would differ), no weights of the encoder where only decoding is wanted. Source: linacodec 0.0.11.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from server.errors import CodecError, ConfigError, ParleyError
from server.pipelines.codec._lina import checkpoint
from server.pipelines.codec._lina.imports import module
from server.pipelines.codec._tokens import SOURCE_SPAN, WIDTH, Tokens
from server.pipelines.engines import Samples

log = logging.getLogger(__name__)

Autocast = Literal["auto", "off", "bfloat16", "float16"]
DISTILLED = [6, 9]  # the layers of the small WavLM that the content is read from
OUTLINE = {"class_path": "server.pipelines.codec._lina.outline.Outline", "init_args": {"sample_rate": 24_000}}


class LinaNetwork:
    """A `Network`. Blocking, and only for one thread: the transformer keeps its rotation table between calls."""

    def __init__(
        self,
        *,
        model: str = checkpoint.HUB,
        revision: str = "",
        cache: Path | None = None,
        device: str = "auto",
        encoder: bool = True,
        autocast: Autocast = "auto",
        trust: Sequence[str] = (),
    ) -> None:
        self._model_name, self._revision, self._cache, self._trust = model, revision, cache, trust
        self._device, self._encoder, self._autocast = device, encoder, autocast
        self._directory: Path | None = None
        self._torch: Any = None
        self._codec: Any = None
        self._vocoder: Any = None

    def load(self) -> None:
        begin = time.monotonic()
        self._torch = module("torch")
        directory = checkpoint.find(self._model_name, self._revision, self._cache, self._encoder)
        self._directory = directory
        self._place()
        try:
            self._open(directory)
        except ParleyError:
            raise
        except Exception as error:  # torch, safetensors, jsonargparse and pickle each have their own
            raise ConfigError(f"[codec] model = {str(directory)!r} cannot be loaded: {error}") from error
        log.info(
            "LinaCodec on %s, autocast %s, %s, ready in %.1f s",
            self._device,
            self._autocast,
            "encodes and decodes" if self._encoder else "decodes only",
            time.monotonic() - begin,
        )

    def _open(self, directory: Path) -> None:
        self._codec = self._open_codec(directory)
        self._vocoder = self._open_vocoder(directory)
        self._steady()
        self._warm_up()

    def encode(self, samples: Samples) -> tuple[Tokens, Samples]:
        if not self._encoder:
            raise CodecError("this codec was opened for decoding only ([codec] encoder = false)", code="no_encoder")
        with self._torch.inference_mode():
            features = self._codec.encode(self._torch.from_numpy(samples).to(self._device))
            tokens = features.content_token_indices.cpu().numpy().astype(np.int64)
            return tokens, features.global_embedding.float().cpu().numpy()

    def decode(self, tokens: Tokens, embeddings: Samples) -> Samples:
        torch, codec = self._torch, self._codec
        with torch.inference_mode():
            samples = codec._calculate_original_audio_length(tokens.shape[1])
            frames = codec._calculate_target_mel_length(samples)
            with self._casting():
                content = codec.decode_token_indices(torch.from_numpy(tokens).to(self._device))
                mel = codec.forward_mel(content, torch.from_numpy(embeddings).to(self._device), mel_length=frames)
            audio = self._vocoder.decode(mel.float())
            return audio.float().cpu().numpy()  # type: ignore[no-any-return]

    def files(self) -> list[str]:
        """The model's files with their sizes, after where they lie."""
        if self._directory is None:
            return []
        there = [name for name in (*checkpoint.DECODING, checkpoint.ENCODING) if (self._directory / name).is_file()]
        return [str(self._directory), *(f"{name} {_megabytes(self._directory / name)}" for name in there)]

    def close(self) -> None:
        self._codec = self._vocoder = None
        if str(self._device).startswith("cuda"):
            self._torch.cuda.empty_cache()

    def _place(self) -> None:
        cuda = self._torch.cuda.is_available()
        if self._device == "auto":
            self._device = "cuda" if cuda else "cpu"
        if self._device.startswith("cuda") and not cuda:
            raise ConfigError(f"[codec] device = {self._device!r}, but torch sees no GPU here; use device = 'auto'")

    def _open_codec(self, directory: Path) -> Any:
        config = checkpoint.read(directory / "config.yaml")
        if not self._encoder:
            _arguments(config)["ssl_feature_extractor"] = OUTLINE
        elif self._cache:
            self._torch.hub.set_dir(str(self._cache / "torch"))  # where its own extractor fetches WavLM to
        checkpoint.approve(config, self._trust)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            module("yaml").safe_dump(config, file)
            file.flush()
            codec = module("linacodec.model").LinaCodecModel.from_pretrained(
                config_path=file.name, weights_path=str(directory / "model.safetensors")
            )
        if self._encoder:
            self._add_wavlm(codec, directory / checkpoint.ENCODING)
        return codec.to(self._device).eval()

    def _add_wavlm(self, codec: Any, file: Path) -> None:
        held = self._torch.load(file, map_location="cpu", weights_only=True)
        wavlm = module("linacodec.module.distill_wavlm").wav2vec2_model(**held["config"])
        wavlm.load_state_dict(held["state_dict"], strict=False)
        codec.wavlm_model, codec.distilled_layers = wavlm, DISTILLED

    def _open_vocoder(self, directory: Path) -> Any:
        config = directory / "vocoder" / "config.yaml"
        checkpoint.approve(checkpoint.read(config), self._trust)
        vocos = module("linacodec.vocoder.vocos").Vocos.from_hparams(str(config))
        weights = self._torch.load(directory / "vocoder" / "pytorch_model.bin", map_location="cpu", weights_only=True)
        vocos.load_state_dict(weights)
        return vocos.to(self._device).eval()

    def _steady(self) -> None:
        attention = module("linacodec.module.transformer").Attention
        for part in self._codec.modules():
            if isinstance(part, attention):
                part.dropout = 0.0

    def _casting(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast in ("off", "auto"):
            return contextlib.nullcontext()
        kind = self._device.split(":")[0]
        return self._torch.autocast(kind, dtype=getattr(self._torch, self._autocast))  # type: ignore[no-any-return]

    def _warm_up(self) -> None:
        """The first pass is slow; and on a CPU only a measurement tells whether half precision pays."""
        if self._encoder:
            self.encode(np.random.default_rng(0).uniform(-1, 1, 12 * SOURCE_SPAN).astype(np.float32))
        if self._autocast == "auto":
            self._autocast = "bfloat16" if self._device.startswith("cuda") else self._faster()
        self._pass()

    def _faster(self) -> Autocast:
        times: dict[Autocast, float] = {}
        choices: tuple[Autocast, ...] = ("off", "bfloat16")
        for self._autocast in choices:
            self._pass()
            times[self._autocast] = min(self._pass() for _ in range(2))
        return "bfloat16" if times["bfloat16"] < 0.9 * times["off"] else "off"

    def _pass(self) -> float:
        begin = time.monotonic()
        self.decode(np.arange(32)[None], np.zeros((1, WIDTH), np.float32))
        return time.monotonic() - begin


def _arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The model's own part of the configuration."""
    arguments = config.get("model", {}).get("init_args")
    if not isinstance(arguments, dict) or "ssl_feature_extractor" not in arguments:
        raise ConfigError("config.yaml: not a configuration of LinaCodec (model.init_args.ssl_feature_extractor)")
    return arguments


def _megabytes(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.1f} MB"
