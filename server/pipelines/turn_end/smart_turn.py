"""Whether a turn is complete, by the sound of it: Smart Turn v3, Whisper's encoder with one output.

Source: pipecat-ai/smart-turn (BSD-2). The model is an ONNX file of 9 MB that does not come with Parley."""

import asyncio
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime

from server.errors import EngineError, EngineUnavailable
from server.pipelines.engines import HEARING_RATE, Samples
from server.pipelines.onnx_model import open_model
from server.pipelines.turn_end._features import log_mel

SPAN = 8 * HEARING_RATE  # samples the model looks at
HOW = (
    "set [turnend] model to the path of smart-turn-v3.2-cpu.onnx, published as pipecat-ai/smart-turn-v3; "
    "or run: pip install --no-deps pipecat-ai (its package carries the file)"
)


def create(model: str = "") -> "SmartTurn":
    """`model`: path of the ONNX file, by default the one in an installed pipecat-ai."""
    return SmartTurn(Path(model) if model else bundled())


def bundled() -> Path:
    """The newest v3 model in pipecat's package, found without importing it. Raises `EngineUnavailable`."""
    spec = importlib.util.find_spec("pipecat")
    for folder in (spec and spec.submodule_search_locations) or ():
        if found := sorted(Path(folder).glob("audio/turn/smart_turn/data/smart-turn-v3*.onnx")):
            return found[-1]
    raise EngineUnavailable(f"there is no Smart Turn model: {HOW}")


class SmartTurn:
    """The engine: one model on one thread, for all sessions in turn."""

    def __init__(self, model: Path) -> None:
        self._path = model
        self._thread: ThreadPoolExecutor | None = None
        self._model: onnxruntime.InferenceSession | None = None

    async def start(self) -> None:
        """Raises `EngineUnavailable`."""
        if not self._path.is_file():
            raise EngineUnavailable(f"[turnend] model = {str(self._path)!r}: there is no such file; {HOW}")
        self._thread = ThreadPoolExecutor(1, "turn_end")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        except EngineError:
            await self.stop()
            raise

    def _load(self) -> None:
        self._model = open_model(self._path, "[turnend] model", {"input_features"})
        self._judge(np.zeros(0, np.float32))  # the first call allocates, and shows that the shapes fit

    async def stop(self) -> None:
        if self._thread:
            self._thread.shutdown(wait=False)
        self._thread = self._model = None

    async def complete(self, samples: Samples) -> float:
        """Probability 0..1 that the turn in `samples` (float32 at 16 kHz; its last 8 s are looked at) is complete.

        Ask it after speech only: to silence it says yes. Some 60 ms in its thread. Raises `EngineError`."""
        if self._thread is None:
            raise EngineError("the end-of-turn model is not started")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._judge, samples)

    def _judge(self, samples: Samples) -> float:
        if self._model is None:
            raise EngineError("the end-of-turn model is stopped")
        try:
            recent = np.asarray(samples[-SPAN:], np.float32)
            features = log_mel(np.pad(recent, (SPAN - len(recent), 0)))
            (probability,) = self._model.run(None, {"input_features": features[None]})
            return float(np.asarray(probability).reshape(-1)[0])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise EngineError(f"the end-of-turn model failed: {error}") from error
