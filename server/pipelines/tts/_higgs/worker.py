"""The one thread that owns the model: it runs the scheduler, and sleeps while there is nothing to do."""

import logging
import threading
from collections import deque
from collections.abc import Callable

import torch

from server.errors import EngineError, TTSError
from server.pipelines.tts._higgs.scheduler import Scheduler
from server.pipelines.tts._higgs.stream import Stream

log = logging.getLogger(__name__)

NAP_S = 0.05  # how often those who wait for a slot are looked at while nothing else happens


class Worker:
    """`submit`, `cancel` and `wake` may be called from any thread."""

    def __init__(self, scheduler: Scheduler, device: torch.device) -> None:
        self.scheduler, self._device = scheduler, device
        self._orders: deque[Callable[[], None]] = deque()
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="higgs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the row in flight; whoever still speaks is told. Blocking."""
        self._stopping = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, stream: Stream) -> None:
        if self._stopping:
            stream.outlet.end(TTSError("the engine has been stopped"))
        else:
            self.order(lambda: self.scheduler.submit(stream))

    def order(self, work: Callable[[], None]) -> None:
        """Have `work` done between two rows."""
        self._orders.append(work)
        self.wake()

    def cancel(self, stream: Stream) -> None:
        """The stream leaves before the next row, and nothing more of it is decoded or given out."""
        stream.cancelled = True
        self.wake()

    def wake(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        while not self._stopping:
            self._woken.clear()
            while self._orders:
                self._orders.popleft()()
            if not self._round():
                self._woken.wait(NAP_S if self.scheduler.waiting else None)
        while self._orders:
            self._orders.popleft()()
        self.scheduler.fail(TTSError("the engine has been stopped"))

    def _round(self) -> bool:
        """One tick. What nobody foresaw costs those who are speaking, not the process."""
        try:
            return self.scheduler.tick()
        except Exception as error:
            log.exception("the voice engine failed")
            told = error if isinstance(error, EngineError) else TTSError(f"the voice engine failed: {error}")
            self.scheduler.fail(told)
            return False
