"""A pipecat bot on Parley's services. Type, and it answers aloud; type while it speaks, and you cut in.

    pip install -e '.[pipecat]'                    # and "pipecat-ai[local]" to hear it from the loudspeaker
    python -m server serve &
    python examples/pipecat_bot.py --tts websocket --out answer.wav

`--tts` chooses how the speech comes: `websocket` (full duplex, the default), `http` (a request for each sentence) or
`adaptive` (one stream for each turn, which chooses its own segments). `--out -` plays it instead of writing a file.
"""

import argparse
import asyncio
import sys
import wave
from typing import Any
from urllib.parse import urlsplit

from pipecat.frames.frames import EndFrame, InterruptionFrame, LLMMessagesAppendFrame, OutputAudioRawFrame, StartFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.settings import LLMSettings, TTSSettings
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from server.clients.pipecat import ParleyAdaptiveTTSService, ParleyHTTPTTSService, ParleyLLMService, ParleyTTSService

RATE = 24_000
PROMPT = "You are in a spoken conversation. Answer in one to three short sentences of plain speech."


class WavFile(BaseOutputTransport):
    """Writes what would be heard to a file, in real time, so that an interruption cuts it off."""

    def __init__(self, path: str) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, audio_out_sample_rate=RATE))
        self._file = wave.open(path, "wb")  # noqa: SIM115
        self._file.setparams((1, 2, RATE, 0, "NONE", ""))

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self._file.writeframes(frame.audio)
        await asyncio.sleep(len(frame.audio) / 2 / RATE)
        return True

    async def cleanup(self) -> None:
        await super().cleanup()
        self._file.close()


def loudspeaker() -> Any:
    from pipecat.transports.local.audio import LocalAudioTransport, LocalAudioTransportParams

    return LocalAudioTransport(LocalAudioTransportParams(audio_out_enabled=True, audio_out_sample_rate=RATE)).output()


def voice(kind: str, url: str, token: str, name: str) -> Any:
    settings = TTSSettings(voice=name)
    if kind == "websocket":
        socket = url.replace("http", "ws", 1) + "/ws/tts/stream"
        return ParleyTTSService(url=socket, token=token, settings=settings, sample_rate=RATE)
    service = {"http": ParleyHTTPTTSService, "adaptive": ParleyAdaptiveTTSService}[kind]
    return service(url=url, token=token, settings=settings, sample_rate=RATE)


async def lines() -> Any:
    while line := await asyncio.to_thread(sys.stdin.readline):
        if text := line.strip():
            yield text


async def main(args: argparse.Namespace) -> None:
    context = LLMContext()
    pair = LLMContextAggregatorPair(context)
    model = ParleyLLMService(
        url=args.url.replace("http", "ws", 1) + "/ws/llm",
        token=args.token,
        settings=LLMSettings(system_instruction=PROMPT),
    )
    out = loudspeaker() if args.out == "-" else WavFile(args.out)
    speech = voice(args.tts, args.url, args.token, args.voice)
    pipeline = Pipeline([pair.user(), model, speech, out, pair.assistant()])
    worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False, params=PipelineParams(audio_out_sample_rate=RATE))
    runner = WorkerRunner()
    await runner.add_workers(worker)
    running = asyncio.ensure_future(runner.run())
    async for text in lines():
        await worker.queue_frame(InterruptionFrame())
        await worker.queue_frame(LLMMessagesAppendFrame([{"role": "user", "content": text}], run_llm=True))
    await asyncio.sleep(args.linger)
    await worker.queue_frame(EndFrame())
    await running
    for message in context.get_messages():
        print(f"{message['role']}: {message['content']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://localhost:8000")
    parser.add_argument("--token", default="")
    parser.add_argument("--tts", choices=("websocket", "http", "adaptive"), default="websocket")
    parser.add_argument("--voice", default="aria")
    parser.add_argument("--out", default="answer.wav", help="a WAV file, or - for the loudspeaker")
    parser.add_argument("--linger", type=float, default=8, help="seconds to speak on after the last line")
    arguments = parser.parse_args()
    assert urlsplit(arguments.url).scheme in ("http", "https"), "--url is like http://localhost:8000"
    asyncio.run(main(arguments))
