"""The process in which pocketsphinx runs. It holds the GIL for as long as it decodes, so it gets an interpreter of
its own. Run as a file, it imports nothing of Parley; it speaks frames on its standard input and output, and ends when
its input does, so it never outlives the server.

A frame is `HEADER` (what, decoder, utterance, length) and that many bytes. A reply carries the numbers of what it
answers, so one that comes too late can be told from one that is awaited.
"""

import contextlib
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

HEADER = struct.Struct("<BBII")

BEGIN = 1  # the voice's cepstral mean (text; empty: a new voice); a new utterance
AUDIO = 2  # PCM at 16 kHz; answered by TEXT
END = 3  # answered by FINAL
DROP = 4  # forget the utterance; no answer

READY = 10  # the decoders are loaded
TEXT = 11  # the text so far
FINAL = 12  # the cepstral mean, a newline, the final text
FAILED = 13  # what went wrong; the utterance is dropped

PRIOR = 500  # frames that the decoder takes the mean it is given to stand for
EXACT = 300  # frames until which it does no more than add to them


class Hearing:
    """One decoder, and the utterance it is in."""

    def __init__(self, options: dict[str, Any]) -> None:
        import pocketsphinx

        self._decoder = pocketsphinx.Decoder(pocketsphinx.Config(loglevel="FATAL", **options))
        self._anybody = self._decoder.get_cmn()  # the mean of no voice in particular
        self._new = self._open = False

    def answer(self, what: int, body: bytes) -> tuple[int, str] | None:
        if what == BEGIN:
            self._drop()
            self._new = not body
            self._decoder.set_cmn(body.decode() or self._anybody)
            self._decoder.start_utt()
            self._open = True
        elif what == AUDIO:
            self._decoder.process_raw(body)
            return TEXT, self._text()
        elif what == END:
            self._drop()
            return FINAL, f"{self._mean()}\n{self._text()}"
        elif what == DROP:
            self._drop()
        return None

    def _drop(self) -> None:
        if self._open:
            self._open = False
            self._decoder.end_utt()

    def _mean(self) -> str:
        """The voice's mean after this utterance. Of a new voice it is that of its own frames alone, for which the
        average that it started from is taken out again."""
        mixed, frames = self._decoder.get_cmn(True), self._decoder.n_frames()
        if not self._new or not 0 < frames <= EXACT:
            return str(mixed)
        start = map(float, self._anybody.split(","))
        own = [
            a + (b - a) * (PRIOR + frames) / frames for a, b in zip(start, map(float, mixed.split(",")), strict=True)
        ]
        return ",".join(f"{value:.4f}" for value in own)

    def _text(self) -> str:
        best = self._decoder.hyp()
        return str(best.hypstr) if best else ""


def serve(source: BinaryIO, sink: BinaryIO, hearings: list[Hearing]) -> None:
    def send(what: int, number: int, utterance: int, text: str) -> None:
        body = text.encode()
        sink.write(HEADER.pack(what, number, utterance, len(body)) + body)
        sink.flush()

    send(READY, 0, 0, "")
    while head := source.read(HEADER.size):
        what, number, utterance, length = HEADER.unpack(head)
        try:
            reply = hearings[number].answer(what, source.read(length))
        except Exception as error:
            reply = FAILED, f"{type(error).__name__}: {error}"
        if reply:
            send(reply[0], number, utterance, reply[1])


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may land among the frames
    setup = json.loads(sys.argv[1])
    with contextlib.suppress(BrokenPipeError, struct.error):  # the server is gone
        serve(sys.stdin.buffer, sink, [Hearing(setup["decoder"]) for _ in range(setup["streams"])])
    os._exit(0)  # without flushing into the closed pipe


if __name__ == "__main__":
    main()
