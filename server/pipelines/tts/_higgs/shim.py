"""Makes `import torchaudio` work beside a torch it was not built for.

PyPI's torchaudio is linked against one version of CUDA. Beside a torch without CUDA (OSError) or with another version
of it (RuntimeError) the import fails in its compiled part and takes transformers' codec classes along, though only its
pure Python resampling is needed."""

import importlib
import sys
import types


def usable() -> None:
    """Import torchaudio, without its compiled extension where that cannot be loaded. Raises `ImportError` if absent."""
    try:
        importlib.import_module("torchaudio")
    except (OSError, RuntimeError):
        for name in [n for n in sys.modules if n == "torchaudio" or n.startswith("torchaudio.")]:
            del sys.modules[name]
        sys.modules["torchaudio._extension"] = _no_extension()
        importlib.import_module("torchaudio")


def _no_extension() -> types.ModuleType:
    module = types.ModuleType("torchaudio._extension")
    vars(module).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        fail_if_no_align=lambda function: function,
        _check_cuda_version=lambda: None,
    )
    return module
