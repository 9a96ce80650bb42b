"""The engine's options, as the `[tts]` table of a configuration gives them, checked."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from server.errors import ConfigError
from server.pipelines.tts._higgs.timbre import Taste

STEPS = ("auto", "graph", "compile", "eager")


@dataclass(frozen=True)
class Options:
    """See docs/gpu.md for what each does. `slots`, `streams`, `keep_gb` 0: as the machine allows."""

    model: str
    codec: str
    device: str
    dtype: str
    local_files_only: bool
    step: str
    slots: int
    length: int
    streams: int
    headroom: float
    max_seconds: float
    wait_s: float
    ahead_s: float
    keep_gb: float
    presets: Path | None
    taste: Taste

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a value that cannot work."""
        wrong = {
            f"step must be one of {', '.join(STEPS)}": self.step not in STEPS,
            "slots must be 0 to 256": not 0 <= self.slots <= 256,
            "length must be 256 to 8192 tokens": not 256 <= self.length <= 8192,
            "streams must be 0 or more": self.streams < 0,
            "headroom must be above 0 and at most 1": not 0 < self.headroom <= 1,
            "max_seconds must be 1 to 300": not 1 <= self.max_seconds <= 300,
            "wait_s, ahead_s and keep_gb must not be negative": not all(
                value >= 0 for value in (self.wait_s, self.ahead_s, self.keep_gb)
            ),
            "temperature must be 0 or more": not 0 <= self.taste.temperature < math.inf,
            "top_p must be above 0 and at most 1": not 0 < self.taste.top_p <= 1,
            "top_k must be 0 or more": self.taste.top_k < 0,
            "context must be 0 to 20 utterances": not 0 <= self.taste.context <= 20,
            "reference_s must be 1 to 120": not 1 <= self.taste.reference_s <= 120,
            f"presets = '{self.presets}' is no folder": self.presets is not None and not self.presets.is_dir(),
        }
        for message in (text for text, bad in wrong.items() if bad):
            raise ConfigError(f"[tts] {message}")


def options(given: Mapping[str, Any]) -> Options:
    """The options as `create` takes them. Raises `ConfigError`."""
    made = dict(given)
    taste = Taste(**{field.name: made.pop(field.name) for field in fields(Taste) if field.name in made})
    presets = made.pop("presets")
    return Options(**made, presets=Path(presets).expanduser() if presets else None, taste=taste)
