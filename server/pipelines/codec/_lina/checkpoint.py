"""Where the model's files are, and whether their configuration may be trusted.

A directory holds `config.yaml`, `model.safetensors`, `vocoder/config.yaml`, `vocoder/pytorch_model.bin`, and for
encoding `wavlm_encoder.pth`. The two YAML files name Python classes that loading would import and call.
"""

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from server.errors import ConfigError, EngineUnavailable

HUB = "YatharthS/LinaCodec"
DECODING = ("config.yaml", "model.safetensors", "vocoder/config.yaml", "vocoder/pytorch_model.bin")
ENCODING = "wavlm_encoder.pth"
TRUSTED = ("linacodec.", "vocos.", "server.pipelines.codec._lina.")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def find(model: str, revision: str, cache: Path | None, encoder: bool) -> Path:
    """The directory of `model`: itself a directory, or a name on the Hugging Face hub (fetched into `cache` if it is
    not there yet). Raises `ConfigError`, `EngineUnavailable`."""
    directory = Path(model).expanduser()
    if not directory.is_dir():
        if model.startswith((".", "/", "~")) or model.count("/") != 1:
            raise ConfigError(f"[codec] model = {model!r} is no directory, and no name on the hub (owner/name)")
        directory = _fetch(model, revision, cache, encoder)
    wanted = DECODING + ((ENCODING,) if encoder else ())
    if missing := [name for name in wanted if not (directory / name).is_file()]:
        hint = "; with encoder = false it can still decode" if missing == [ENCODING] else ""
        raise ConfigError(f"[codec] model = {str(directory)!r} lacks {', '.join(missing)}{hint}")
    return directory


def _fetch(model: str, revision: str, cache: Path | None, encoder: bool) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise EngineUnavailable("fetching the model needs huggingface_hub: pip install huggingface_hub") from None
    wanted = list(DECODING) + ([ENCODING] if encoder else [])
    where = {"cache_dir": cache / "hub"} if cache else {}
    try:
        return Path(hub.snapshot_download(model, revision=revision or None, allow_patterns=wanted, **where))
    except Exception as error:  # the hub's, requests' and httpx's exceptions share no base
        held = ", ".join(name for name, _ in cached(cache)) or "nothing of it"
        raise EngineUnavailable(
            f"{model} could not be fetched ({type(error).__name__}), and {cache or default_cache()} holds {held}: "
            "put its files into a directory and set [codec] model to that"
        ) from error


def cached(cache: Path | None) -> list[tuple[str, int]]:
    """What lies in the cache of the hub's model: file names and sizes in bytes. For `doctor`; fetches nothing."""
    home = (cache or default_cache()) / "hub" / f"models--{HUB.replace('/', '--')}" / "snapshots"
    files = sorted(path for path in home.glob("*/**/*") if path.is_file())
    return [(str(path.relative_to(home)), path.stat().st_size) for path in files]


def default_cache() -> Path:
    """Where the hub's client keeps its files: `HF_HOME`, which it reads itself."""
    try:
        return Path(importlib.import_module("huggingface_hub.constants").HF_HOME)
    except ImportError:
        return Path.home() / ".cache" / "huggingface"


def read(file: Path) -> dict[str, Any]:
    """A configuration, not yet trusted."""
    yaml = importlib.import_module("yaml")
    try:
        config = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: not a configuration of LinaCodec")
    return config


def approve(config: dict[str, Any], trust: Sequence[str]) -> None:
    """Raises `ConfigError` unless every class it names is of LinaCodec, of Vocos or of a package in `trust`."""
    allowed = TRUSTED + tuple(name.rstrip(".") + "." for name in trust)
    for name in _classes(config):
        if not name.startswith(allowed):
            raise ConfigError(f"the model's configuration would call {name} ([codec] trust lists further packages)")


def _classes(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "class_path" in node:
            yield str(node["class_path"])
        for value in node.values():
            yield from _classes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _classes(value)
    elif isinstance(node, str) and _DOTTED.fullmatch(node) and _importable(node):
        yield node  # where a class is due, its mere path is taken for one


def _importable(name: str) -> bool:
    """Whether `name` begins with a module there is; a file's name does not."""
    try:
        return importlib.util.find_spec(name.split(".")[0]) is not None
    except ValueError:  # a module without a spec, as `__main__`
        return True
