"""How each stream of the middleware goes, for who listens to it: bare PCM cannot say so itself."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

KEPT = 256  # streams that can still be asked about


@dataclass
class Progress:
    """One stream. `end` is empty while it runs."""

    service: str
    begin: float = field(default_factory=time.monotonic)
    chunks: int = 0
    size: int = 0
    first_ms: float | None = None
    end: str = ""
    message: str = ""

    def sent(self, pcm: bytes) -> None:
        if pcm and self.first_ms is None:
            self.first_ms = round((time.monotonic() - self.begin) * 1000, 1)
        self.size += len(pcm)

    def told(self) -> dict[str, Any]:
        return {
            "service": self.service,
            "status": "streaming" if not self.end else "complete" if self.end == "ok" else "failed",
            "code": self.end,
            "message": self.message,
            "chunks": self.chunks,
            "audio_ms": round(self.size / 96, 1),
            "first_audio_ms": self.first_ms,
        }


class Ledger:
    """The latest streams by request id."""

    def __init__(self) -> None:
        self._streams: OrderedDict[str, Progress] = OrderedDict()
        self._running: list[Progress] = []  # apart: ids are the clients', who may use one twice

    def open(self, id: str, service: str) -> Progress:
        progress = self._streams[id] = Progress(service)
        self._running.append(progress)
        self._streams.move_to_end(id)
        while len(self._streams) > KEPT:
            self._streams.popitem(last=False)
        return progress

    def get(self, id: str) -> Progress | None:
        return self._streams.get(id)

    def running(self) -> int:
        self._running = [progress for progress in self._running if not progress.end]
        return len(self._running)
