"""A character's voice, as this engine can make it: a description, a clone of a recording, or a preset by name."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import ConfigError
from server.pipelines.engines import Voice
from server.pipelines.quoting import quoted
from server.pipelines.tts._higgs import reference
from server.pipelines.tts._higgs.prompt import ROOM, Scene
from server.pipelines.tts._higgs.sampler import WINDOW, Sampling

# Voices in words, so that there is one without any recording. A recording holds its timbre far better.
DESCRIBED = {
    "amber": "feminine; warm, clear; moderate pitch; calm pace; close to the microphone",
    "slate": "masculine; deep, relaxed; low pitch; unhurried; close to the microphone",
    "spark": "feminine; bright, lively; higher pitch; quick; smiling",
    "field": "masculine; friendly, young; moderate pitch; energetic",
}


@dataclass(frozen=True)
class Timbre:
    """What of a voice the prompt and the sampler need. `context`: utterances kept in mind."""

    scene: Scene
    how: Sampling
    seeded: bool
    context: int
    recording: reference.Recording | None = None
    transcript: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for voices that sound from the same prompt."""
        return (self.scene, self.transcript, self.recording.fingerprint if self.recording else "")


@dataclass(frozen=True)
class Taste:
    """The engine's defaults for what a voice leaves open, and its limits."""

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 50
    window: int = 7
    repeats: int = 2
    context: int = 5
    reference_s: float = 30.0


def presets(folder: Path | None) -> dict[str, Path]:
    """The recordings of a folder (NAME.wav, with what is said in NAME.txt) by name."""
    return {path.stem: path for path in sorted(folder.glob("*.wav"))} if folder else {}


def timbre(voice: Voice, taste: Taste, recorded: Mapping[str, Path]) -> Timbre:
    """`voice`, checked. Blocking: reads its recording. Raises `ConfigError`."""
    path, transcript, speaker = voice.reference, voice.transcript, voice.speaker
    if voice.method == "preset":
        path, transcript, speaker = _preset(voice.name, recorded)
    if voice.method in ("clone", "convert") and path is None:
        raise ConfigError("voice.reference is missing: a clone needs a recording (WAV) and its transcript")
    if voice.method == "description" and not speaker:
        raise ConfigError('voice.speaker is missing: describe the voice, such as "feminine; warm; moderate pitch"')
    if path is not None and not transcript.strip():
        raise ConfigError(f"voice.transcript is missing: write down what is said in {path}")
    return Timbre(
        scene=Scene("\n".join(t for t in (voice.scene or ROOM, voice.instructions) if t), speaker),
        how=_sampling(voice, taste),
        seeded=voice.seed is not None,
        context=int(_knob(voice, "context", taste.context, 0, 20)),
        recording=reference.read(path, taste.reference_s) if path is not None else None,
        transcript=transcript.strip(),
    )


def _preset(name: str, recorded: Mapping[str, Path]) -> tuple[Path | None, str, str]:
    """Recording, transcript and description of the preset called `name`; the first one if it has no name."""
    name = name or next(iter([*recorded, *DESCRIBED]))
    if name in recorded:
        written = recorded[name].with_suffix(".txt")
        if not written.is_file():
            raise ConfigError(f"{written} is missing: write down what is said in {recorded[name].name}")
        return recorded[name], written.read_text(encoding="utf-8"), ""
    if name not in DESCRIBED:
        raise ConfigError(f"voice.name = {quoted(name)} is no preset; there are: {', '.join([*recorded, *DESCRIBED])}")
    return None, "", DESCRIBED[name]


def _sampling(voice: Voice, taste: Taste) -> Sampling:
    temperature = taste.temperature if voice.temperature is None else voice.temperature
    top_p = taste.top_p if voice.top_p is None else voice.top_p
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1:
        raise ConfigError("voice.temperature must be 0 or more, voice.top_p above 0 and at most 1")
    return Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=taste.top_k if voice.top_k is None else max(0, voice.top_k),
        window=int(_knob(voice, "window", taste.window, 0, WINDOW)),
        repeats=int(_knob(voice, "repeats", taste.repeats, 0, WINDOW)),
        seed=voice.seed or 0,
    )


def _knob(voice: Voice, name: str, default: int, low: int, high: int) -> float:
    value = voice.options.get(name, default)
    if not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"voice.options.{name} must be between {low} and {high}")
    return value
