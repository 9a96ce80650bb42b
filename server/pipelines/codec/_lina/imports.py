"""Importing torch, torchaudio and linacodec, also where torchaudio's compiled half does not fit the torch that is here.

PyPI's torchaudio is linked against CUDA and does not load beside a CPU torch. The codec uses only its Python half, so
then that is imported without the other.
"""

import importlib
import importlib.util
import logging
import sys
import types
import warnings
from typing import Any

from server.errors import EngineUnavailable

HOW = "LinaCodec is not installed: pip install -e '.[linacodec]' (it comes from its git repository, at a fixed commit)"


def present() -> bool:
    """Whether the package is there, without importing it."""
    return importlib.util.find_spec("linacodec") is not None


def module(name: str) -> Any:
    """The module `name` of linacodec or torch. Raises `EngineUnavailable`, saying how to get it."""
    if not present():
        raise EngineUnavailable(HOW)
    try:
        _torchaudio()
        found = importlib.import_module(name)
    except ImportError as error:
        raise EngineUnavailable(f"LinaCodec cannot be imported ({error}): pip install -e '.[linacodec]'") from error
    _quiet()
    return found


def _torchaudio() -> None:
    if "torchaudio" in sys.modules:
        return
    try:
        importlib.import_module("torchaudio")
    except OSError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _no_extension()
        importlib.import_module("torchaudio")


def _no_extension() -> types.ModuleType:
    extension: Any = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension.fail_if_no_align = lambda function: function
    extension._check_cuda_version = lambda: None
    return extension  # type: ignore[no-any-return]


def _quiet() -> None:
    """It logs to a handler of its own, asks for CUDA's autocast wherever it runs, and uses what torch gives up."""
    logging.getLogger("kanade_tokenizer").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*device_type of 'cuda'.*|CUDA is not available or torch_xla.*")
    warnings.filterwarnings("ignore", message=".*(torch.cuda.amp.autocast|weight_norm).*", category=FutureWarning)
