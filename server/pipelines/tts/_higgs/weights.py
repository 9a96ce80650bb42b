"""The model, its codec and its tokenizer, from a hub name or a folder; and what is told when they cannot be had."""

import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.errors import EngineUnavailable
from server.pipelines.tts._higgs import shim

MODEL = "bosonai/higgs-audio-v2-generation-3B-base"
CODEC = "bosonai/higgs-audio-v2-tokenizer"
COMMAND = "pip install -e '.[higgs]'"
DTYPES = ("bfloat16", "float16", "float32")
PACKAGES = ("torch", "transformers", "torchaudio")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Everything that was loaded. `model` and `codec` are the native transformers classes, on `device`."""

    model: Any
    codec: Any
    processor: Any
    device: Any


def check_packages() -> None:
    """Raises `EngineUnavailable` where a package is missing, with the command that installs it."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineUnavailable(f"engine 'higgs' of [tts] needs {', '.join(missing)}: {COMMAND}")


def pick_device(name: str) -> Any:
    """The torch device for the option `device`; "auto" takes the card if there is one. Raises `EngineUnavailable`."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise EngineUnavailable(
            f"[tts] device = {name!r}, but torch {torch.__version__} sees no card: install torch for CUDA or set 'cpu'"
        )
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or name == kind):
        raise EngineUnavailable(f"[tts] device = {name!r} is none; there are auto, cpu, cuda, cuda:1 and so on")
    if kind == "cpu":
        return torch.device("cpu")
    index, cards = int(number or torch.cuda.current_device()), torch.cuda.device_count()
    if index >= cards:
        raise EngineUnavailable(f"[tts] device = {name!r}, but the last card here is 'cuda:{cards - 1}'")
    return torch.device("cuda", index)


def pick_dtype(name: str, device: Any) -> Any:
    """The torch dtype for the option `dtype`; "auto" is bfloat16 on a card and float32 elsewhere."""
    import torch

    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise EngineUnavailable(f"[tts] dtype = {name!r} is none; there are auto, {', '.join(DTYPES)}")
    return getattr(torch, name)


def load(model: str, codec: str, device: str, dtype: str, local: bool) -> Weights:
    """Load all of it. `model`, `codec`: hub names or folders; empty `codec`: the one the model names. `local`: never
    ask the hub. Blocking, seconds to minutes. Raises `EngineUnavailable`."""
    check_packages()
    shim.usable()
    import torch
    from transformers import HiggsAudioV2ForConditionalGeneration, HiggsAudioV2TokenizerModel

    place = pick_device(device)
    try:
        settings = _processor_settings(model, local)
        codec = codec or _codec_name(model, settings)
        sound = HiggsAudioV2TokenizerModel.from_pretrained(codec, dtype=torch.float32, local_files_only=local)
        speech = HiggsAudioV2ForConditionalGeneration.from_pretrained(
            model, dtype=pick_dtype(dtype, place), local_files_only=local, attn_implementation="sdpa"
        )
        speech, sound = speech.to(place).eval(), sound.to(place).eval()
        return Weights(speech, sound, _processor(model, sound, settings, local), place)
    except torch.OutOfMemoryError as error:
        raise EngineUnavailable(
            f"[tts] device = {device!r} has no memory for the model: 12 GB must be free in bfloat16, before any slots; "
            f"end what else uses it, or name another card ({error})"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise EngineUnavailable(
            f"[tts] model = {model!r} cannot be loaded: {error}. Name a folder that holds it, or: hf download {model}"
        ) from error


def _processor_settings(model: str, local: bool) -> dict[str, Any]:
    from transformers.utils import cached_file

    path = cached_file(model, "processor_config.json", local_files_only=local)
    return dict(json.loads(Path(str(path)).read_text(encoding="utf-8")))


def _codec_name(model: str, settings: dict[str, Any]) -> str:
    """The codec the model's processor names; a relative folder is meant from the model's own."""
    named = str(settings.get("audio_tokenizer", {}).get("audio_tokenizer_name_or_path") or CODEC)
    beside = Path(model) / named
    return str(beside) if beside.is_dir() else named


def _processor(model: str, codec: Any, settings: dict[str, Any], local: bool) -> Any:
    """The processor around the codec that is loaded already; `AutoProcessor` would load it a second time, and looks for
    a relative codec in the working directory."""
    from transformers import AutoFeatureExtractor, AutoTokenizer, HiggsAudioV2Processor
    from transformers.utils import cached_file

    template = cached_file(model, "chat_template.jinja", local_files_only=local)
    return HiggsAudioV2Processor(
        AutoFeatureExtractor.from_pretrained(model, local_files_only=local),
        AutoTokenizer.from_pretrained(model, local_files_only=local),
        codec,
        chat_template=Path(str(template)).read_text(encoding="utf-8"),
    )
