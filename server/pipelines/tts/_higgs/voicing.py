"""From rows to sound: which windows are due, decoded in batches across streams, given out in order."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch

from server.audio import to_pcm
from server.errors import TTSError
from server.pipelines.engines import Speech
from server.pipelines.tts._higgs.clock import Clock
from server.pipelines.tts._higgs.codec import HOP, Codec, Decoding, Wave
from server.pipelines.tts._higgs.delay import Codes
from server.pipelines.tts._higgs.stream import Stream
from server.pipelines.tts._higgs.windows import FRAME_MS, TAIL, Pace, Window

NO_MEMORY = "tts_out_of_memory"


@dataclass(frozen=True)
class Batch:
    """Windows of one length that are being decoded, and whose they are."""

    sound: Decoding
    parts: tuple[tuple[Stream, Window], ...]
    since: float


class Voicing:
    """The streams that have sound to come. `now` is a clock in ms; `spare` frees what memory it can."""

    def __init__(self, codec: Codec, clock: Clock, now: Callable[[], float], spare: Callable[[], None]) -> None:
        self._codec, self._clock, self._now, self._spare = codec, clock, now, spare
        self._batches: deque[Batch] = deque()

    def pace(self, stream: Stream, streams: int) -> Pace:
        """What there is to know for `stream`'s next piece, while `streams` of them run."""
        ahead = max(0.0, stream.plays_until - self._now())
        return Pace(self._clock.pace_ms(streams), self._clock.codec_ms, ahead)

    def decode(self, streams: Iterable[Stream], running: int) -> bool:
        """Start decoding what is due, those first who have heard nothing yet. Whether there was anything."""
        lengths: defaultdict[tuple[bool, int], list[tuple[Stream, Window]]] = defaultdict(list)
        for stream in streams:
            first = stream.heard_nothing
            said = stream.said
            window = stream.windows.due(said.frames, said.begun, stream.done, self.pace(stream, running))
            if window is not None and not stream.cancelled:
                stream.decoding += 1
                length = self._codec.length(window.end - window.begin + TAIL * window.tail)
                lengths[not first, length].append((stream, window))
        for _, parts in sorted(lengths.items(), key=lambda item: item[0]):
            self._start(parts)
        return bool(lengths)

    def deliver(self, wait: bool = False) -> bool:
        """Give out what has been decoded, all of it with `wait`. Whether anything was."""
        given = False
        while self._batches and (wait or self._batches[0].sound.ready):
            batch = self._batches.popleft()
            waves = batch.sound.result()
            self._clock.codec(self._now() - batch.since)
            for (stream, window), wave in zip(batch.parts, waves, strict=True):
                self._give(stream, window, wave)
            given = True
        return given

    @property
    def busy(self) -> bool:
        return bool(self._batches)

    def _start(self, parts: list[tuple[Stream, Window]]) -> None:
        """Decode together; where memory runs out, once more with what could be freed, then each by itself."""
        since = self._now()
        try:
            sound = self._codec.decode([_codes(stream, window) for stream, window in parts])
        except torch.OutOfMemoryError as error:
            self._spare()
            self._start_alone(parts, error)
        else:
            self._batches.append(Batch(sound, tuple(parts), since))

    def _start_alone(self, parts: list[tuple[Stream, Window]], error: BaseException) -> None:
        for stream, window in parts:
            try:
                sound = self._codec.decode([_codes(stream, window)])
            except torch.OutOfMemoryError:
                stream.decoding -= 1
                stream.cancelled = True
                stream.outlet.end(out_of_memory(error))
            else:
                self._batches.append(Batch(sound, ((stream, window),), self._now()))

    def _give(self, stream: Stream, window: Window, wave: Wave) -> None:
        stream.decoding -= 1
        if stream.cancelled:
            return
        begin = (window.first - window.begin) * HOP
        sound = wave[begin : begin + (window.last - window.first) * HOP]
        stream.timings.hear(sound)
        words = stream.timings.final() if window.tail else stream.timings.known()
        stream.plays_until = max(self._now(), stream.plays_until) + (window.last - window.first) * FRAME_MS
        stream.outlet.put(Speech(to_pcm(sound), words))


def _codes(stream: Stream, window: Window) -> Codes:
    """The window's codes; behind an utterance's end its last frame goes on for a moment, which is not given out."""
    codes = stream.said.codes(window.begin, window.end)
    return np.concatenate([codes, np.repeat(codes[-1:], TAIL, axis=0)]) if window.tail else codes


def out_of_memory(error: BaseException) -> TTSError:
    """What the one stream is told that found no memory."""
    return TTSError(
        f"no memory left for this utterance: set fewer slots, a smaller length or keep_gb in [tts] ({error})",
        code=NO_MEMORY,
    )
