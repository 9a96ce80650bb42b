"""The scheduler on the tiny model, without threads: rows are made one at a time, on a clock that the test owns."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from server.errors import EngineError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs import weights
from server.pipelines.tts._higgs.clock import Clock
from server.pipelines.tts._higgs.codec import Codec
from server.pipelines.tts._higgs.delay import Codes
from server.pipelines.tts._higgs.graphs import Graphs
from server.pipelines.tts._higgs.keeping import Keeping
from server.pipelines.tts._higgs.prefixes import Prefixes
from server.pipelines.tts._higgs.prompt import Prompts, Scene
from server.pipelines.tts._higgs.reading import Reader
from server.pipelines.tts._higgs.sampler import Sampling
from server.pipelines.tts._higgs.scheduler import Scheduler
from server.pipelines.tts._higgs.slots import Slots
from server.pipelines.tts._higgs.step import Step
from server.pipelines.tts._higgs.stream import Stream
from tests.higgs import tiny

torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # a card would compare three digits
GREEDY = Sampling(temperature=0, repeats=0)


@functools.cache
def loaded() -> weights.Weights:
    return weights.load(str(tiny.folder()), "", tiny.DEVICE, "float32", True)


@functools.cache
def halved() -> weights.Weights:
    """The same in bfloat16, as on a card."""
    return weights.load(str(tiny.folder()), "", tiny.DEVICE, "bfloat16", True)


@functools.cache
def prompts() -> Prompts:
    return Prompts(loaded().processor)


def drawn(seed: int, **changes: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, "seed": seed} | changes)


@dataclass
class Basket:
    """An outlet that keeps what it is given."""

    pieces: list[Speech] = field(default_factory=list)
    full: bool = False
    ended: int = 0
    error: EngineError | None = None

    def put(self, speech: Speech) -> None:
        self.pieces.append(speech)

    def end(self, error: EngineError | None = None) -> None:
        self.ended += 1
        self.error = error

    @property
    def pcm(self) -> bytes:
        return b"".join(piece.pcm for piece in self.pieces)


class Stage:
    """`now` is ms, moved on by the test; every look at the clock takes a quarter of one. `what`: other weights.
    `captured`: a card replays graphs; without them hooks are called at every row."""

    def __init__(
        self,
        slots: int = 4,
        length: int = 1024,
        streams: int = 0,
        keep: int = 2**28,
        what: weights.Weights | None = None,
        captured: bool = True,
        **options: Any,
    ) -> None:
        model = (what or loaded()).model
        self.now = 0.0
        cache, graphs = Slots(model.config, slots, length, model.dtype, model.device), Graphs(model.device, captured)
        self.step, self.reader = Step(model, cache, graphs), Reader(model, cache, graphs, prompts().audio_id)
        graphs.capture(self.step.works() | self.reader.works())
        assert not graphs.failure
        self.clock = Clock(self.step.sizes)
        self.codec = Codec(loaded().codec, model.device)
        self.keeping = Keeping(self.step.slots, Prefixes(keep), prompts().audio_id)
        self.scheduler = Scheduler(
            self.step,
            self.reader,
            self.codec,
            self.keeping,
            self.clock,
            self._look,
            streams=streams or slots,
            **options,
        )

    def _look(self) -> float:
        self.now += 0.25
        return self.now

    def stream(
        self,
        text: str,
        how: Sampling = GREEDY,
        limit: int = 40,
        before: Codes | None = None,
        head: int = 0,
        **more: Any,
    ) -> Stream:
        """An utterance with the tokens `before` it (none: a plain scene)."""
        before = prompts().head(Scene()) if before is None else before
        prompt = np.concatenate([before, prompts().turn(text)])
        names: dict[str, Any] = {"speaker": object(), "voice": object()} | more
        return Stream(text, prompt, len(before), head, how=how, limit=limit, outlet=Basket(), **names)

    def say(self, text: str, how: Sampling = GREEDY, **more: Any) -> Stream:
        stream = self.stream(text, how, **more)
        self.scheduler.submit(stream)
        return stream

    def kept(self, stream: Stream) -> Any:
        """The KV of all its tokens, as it was kept for its speaker; None if it was not."""
        kept = self.keeping.prefixes._kept.get(stream.speaker)
        return None if kept is None else kept.kv

    def as_alone(self, stream: Stream) -> bool:
        """Whether a finished stream has the rows, and left the KV, that it would have had by itself."""
        rows, kv = _alone(stream.text, stream.prompt.tobytes(), stream.how, stream.limit)
        ours = self.kept(stream)
        left = ours is None or (ours.shape == kv.shape and float((ours - kv).abs().max()) < 1e-4)
        return left and np.array_equal(stream.said.array(), rows)

    def until(self, reached: Callable[[], object], rounds: int = 1000) -> None:
        """Tick until `reached`."""
        for _ in range(rounds):
            if reached():
                return
            self.scheduler.tick()
        raise AssertionError("it never came to that")

    def run(self, rounds: int = 2000) -> None:
        """Until nothing is left to do."""
        for _ in range(rounds):
            if not self.scheduler.tick() and not self.scheduler.waiting:
                return
        raise AssertionError("the scheduler never came to rest")


@functools.lru_cache(256)
def _alone(text: str, prompt: bytes, how: Sampling, limit: int) -> tuple[Codes, Any]:
    stage = Stage(slots=1)
    stream = stage.stream(text, how, limit=limit)
    stream.prompt = np.frombuffer(prompt, np.int64).reshape(-1, 9).copy()
    stage.scheduler.submit(stream)
    stage.run()
    return stream.said.array(), stage.kept(stream)


def alone(text: str, how: Sampling = GREEDY, limit: int = 40, before: Codes | None = None) -> Codes:
    """The rows of an utterance that has the machine to itself."""
    stream = Stage(slots=1).stream(text, how, limit=limit, before=before)
    return _alone(text, stream.prompt.tobytes(), how, limit)[0]


def generated(prompt: Codes, rows: int) -> Codes:
    """What transformers' own `generate` makes of a prompt, greedily, up to `rows` rows."""
    model = loaded().model
    sound = prompt[prompt[:, 0] == prompts().audio_id, 1:]
    model.generation_config.ras_win_len = None
    given: dict[str, Any] = {"input_ids": torch.from_numpy(prompt[:, 0])[None]}
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    if len(sound):
        given["audio_input_ids"] = torch.from_numpy(sound)[None]
        given["audio_input_ids_mask"] = torch.ones(1, len(sound), dtype=torch.bool)
    given = {name: tensor.to(model.device) for name, tensor in given.items()}
    with torch.inference_mode():
        made = model.generate(**given, do_sample=False, max_new_tokens=rows)
    return np.asarray(made[0, len(sound) :].cpu().numpy())
