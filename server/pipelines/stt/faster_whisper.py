"""Whisper on CTranslate2, on the processor or a GPU: `pip install -e '.[whisper]'`.

Source: faster-whisper (MIT). The model is a directory of its format, or a name known to it."""

import asyncio
import importlib.util
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

from server.audio import to_float
from server.errors import EngineError, EngineUnavailable, STTError
from server.pipelines.engines import HEARING_RATE, Transcript
from server.pipelines.stt._buffered import BufferedRecogniser

NO_SPEECH = 0.6  # Whisper's own measure: a segment this likely to be none ...
DOUBT = -1.0  # ... and this unlikely as a text was made up


def create(
    model: str = "small.en",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    compute_type: str = "default",
    beam_size: int = 1,
    partial_ms: float = 0.0,
    threads: int = 0,
    prompt: str = "",
    local_files_only: bool = True,
) -> "FasterWhisper":
    """`model`: a directory (with its tokenizer.json) or a name such as small.en, which is looked up among the models on
    this machine and, without `local_files_only`, fetched. `compute_type`: int8, float16 and so on. `partial_ms`: how
    often a text so far is made while somebody speaks (0: never); wants a GPU. `threads`: of the processor (0: as many
    as there are cores). `prompt`: names and words that are likely to come up. Raises `EngineUnavailable`."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise EngineUnavailable("[stt] engine = 'faster_whisper' needs a package; run: pip install -e '.[whisper]'")
    load = {"device": device, "compute_type": compute_type, "cpu_threads": threads}
    decode = {"beam_size": beam_size, "initial_prompt": prompt or None}
    return FasterWhisper(model, load | {"local_files_only": local_files_only}, decode, partial_ms)


class FasterWhisper:
    """The engine: one model for all sessions, which take turns in its one thread."""

    def __init__(self, model: str, load: dict[str, Any], decode: dict[str, Any], partial_ms: float) -> None:
        self._name = model
        self._options = load
        self._decode = decode
        self._partial_ms = partial_ms
        self._thread: ThreadPoolExecutor | None = None
        self._model: Any = None
        self._waiting = 0  # transcriptions asked for and not yet made

    async def start(self) -> None:
        """Raises `EngineUnavailable`."""
        self._thread = ThreadPoolExecutor(1, "whisper")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        except EngineError:
            await self.stop()
            raise

    def _load(self) -> None:
        import faster_whisper

        path = Path(self._name)
        if path.is_dir() and not (path / "tokenizer.json").is_file():
            raise EngineUnavailable(
                f"[stt] model = {self._name!r} has no tokenizer.json; copy the original model's there"
            )
        try:
            self._model = faster_whisper.WhisperModel(self._name, **self._options)
        except Exception as error:  # of CTranslate2, the hub's client, the file system
            raise EngineUnavailable(self._missing(error)) from error
        self._transcribe(bytes(HEARING_RATE), "en")  # the first run allocates

    def _missing(self, error: Exception) -> str:
        reason = " ".join(str(error).split())[:200]
        if Path(self._name).is_dir():
            return f"[stt] model = {self._name!r} cannot be loaded: {reason}"
        return (
            f"[stt] model = {self._name!r} is neither a directory nor a model on this machine: set it to a directory, "
            f"or set [stt] local_files_only = false once to fetch it by its name ({reason})"
        )

    async def stop(self) -> None:
        if self._thread:
            self._thread.shutdown(wait=False)
        self._thread = self._model = None

    def open(self, language: str) -> BufferedRecogniser:
        """`language` as en or en-US; empty or auto: Whisper finds out."""
        code = language.lower().split("-")[0]
        transcribe = partial(self.transcribe, language="" if code == "auto" else code)
        return BufferedRecogniser(transcribe, partial_ms=self._partial_ms, idle=lambda: self._waiting == 0)

    async def transcribe(self, pcm: bytes, language: str) -> Transcript:
        """The text of PCM at 16 kHz; `confidence` is the mean probability of its tokens. Raises `STTError`."""
        if self._thread is None:
            raise STTError("the recogniser is not started")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._transcribe, pcm, language)
        finally:
            self._waiting -= 1

    def _transcribe(self, pcm: bytes, language: str) -> Transcript:
        if self._model is None:
            raise STTError("the recogniser is stopped")
        try:
            segments, _ = self._model.transcribe(
                to_float(pcm),
                language=language or None,
                temperature=0.0,  # no second tries: they take as long again, and noise is what needs them
                condition_on_previous_text=False,
                without_timestamps=True,
                **self._decode,
            )
            return _joined(segments)
        except ValueError as error:  # a language it does not know
            raise STTError(f"Whisper cannot transcribe this: {error}; check the language") from error
        except Exception as error:  # CTranslate2 raises RuntimeError for all else
            raise STTError(f"Whisper failed: {error}") from error


def _joined(segments: Iterable[Any]) -> Transcript:
    said = [s for s in segments if s.no_speech_prob < NO_SPEECH or s.avg_logprob > DOUBT]
    text = " ".join("".join(segment.text for segment in said).split())
    if not text:
        return Transcript("")
    tokens = [max(1, len(segment.tokens)) for segment in said]
    mean = sum(s.avg_logprob * n for s, n in zip(said, tokens, strict=True)) / sum(tokens)
    return Transcript(text, round(min(1.0, math.exp(mean)), 3))
