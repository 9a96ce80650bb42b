"""Higgs Audio v2 on transformers: expressive voices, each steady over its conversation, many streams on one card."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from server.errors import EngineUnavailable
from server.pipelines.engines import Voice
from server.pipelines.tts._higgs import weights

if TYPE_CHECKING:  # the parts need torch, which takes seconds to import and may be absent
    from server.pipelines.tts._higgs.machine import Machine
    from server.pipelines.tts._higgs.options import Options
    from server.pipelines.tts._higgs.speaker import HiggsSpeaker


class HiggsTTS:
    """Fulfils `TTS`. Source: Boson AI's Higgs Audio v2, through transformers' native classes."""

    rate = 24_000

    def __init__(self, options: "Options") -> None:
        self._options = options
        self._machine: Machine | None = None

    async def start(self) -> None:
        """Load, capture and measure: a minute or so, in a thread. Raises `EngineUnavailable`."""
        from server.pipelines.tts._higgs import gauges
        from server.pipelines.tts._higgs.machine import Machine

        self._machine = await asyncio.to_thread(Machine, self._options)
        self._machine.worker.start()
        gauges.watch(lambda: self.active, lambda: self.waiting, lambda: self.row_ms, lambda: self.streams)

    async def stop(self) -> None:
        machine, self._machine = self._machine, None
        if machine is not None:
            await asyncio.to_thread(machine.stop)

    def voices(self) -> Sequence[str]:
        """The recorded presets of the `presets` folder, then those described in words."""
        from server.pipelines.tts._higgs.timbre import DESCRIBED, presets

        return [*presets(self._options.presets), *DESCRIBED]

    def open(self, voice: Voice) -> "HiggsSpeaker":
        """Raises `ConfigError` for a voice that cannot be made, `EngineUnavailable` before `start`."""
        from server.pipelines.tts._higgs.speaker import HiggsSpeaker
        from server.pipelines.tts._higgs.timbre import presets, timbre

        made = timbre(voice, self._options.taste, presets(self._options.presets))
        return HiggsSpeaker(self._running, made)

    @property
    def _running(self) -> "Machine":
        if self._machine is None:
            raise EngineUnavailable("engine 'higgs' has not been started")
        return self._machine

    @property
    def notice(self) -> str:
        """What the user should know about this machine; usually nothing."""
        return self._machine.notice() if self._machine else ""

    @property
    def about(self) -> str:
        """Card, memory, versions and streams in real time, in a line."""
        return self._machine.about() if self._machine else ""

    @property
    def streams(self) -> int:
        """How many utterances at once are made faster than they sound, as measured; at least 1."""
        return self._machine.scheduler.streams if self._machine else 1

    @property
    def active(self) -> int:
        """Utterances that hold a slot."""
        return self._machine.scheduler.active if self._machine else 0

    @property
    def waiting(self) -> int:
        """Utterances that wait for a slot."""
        return len(self._machine.scheduler.waiting) if self._machine else 0

    @property
    def row_ms(self) -> float:
        """What a row (40 ms of sound for every stream) takes at the present number of streams."""
        return self._machine.clock.row_ms(max(1, self.active)) if self._machine else 0.0


def create(
    model: str = weights.MODEL,
    codec: str = "",
    device: str = "auto",
    dtype: str = "auto",
    local_files_only: bool = False,
    step: str = "auto",
    slots: int = 0,
    length: int = 2048,
    streams: int = 0,
    headroom: float = 0.8,
    max_seconds: float = 30.0,
    wait_s: float = 10.0,
    ahead_s: float = 2.0,
    keep_gb: float = 0.0,
    presets: str = "",
    context: int = 5,
    temperature: float = 0.7,
    top_p: float = 0.95,
    top_k: int = 50,
    reference_s: float = 30.0,
) -> HiggsTTS:
    """The engine, not yet started. docs/gpu.md says what each option does.

    Raises `EngineUnavailable` for a missing package, `ConfigError` for a wrong option."""
    given = dict(locals())
    weights.check_packages()
    from server.pipelines.tts._higgs.options import options

    return HiggsTTS(options(given))
