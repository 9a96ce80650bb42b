"""The pipecat services in real pipecat pipelines, before real servers: what is heard, what the context keeps."""

import asyncio
import importlib.util
from argparse import Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pipecat = pytest.importorskip("pipecat", reason='pipecat is not installed: pip install -e ".[pipecat]"')

from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    LLMRunFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    TTSUpdateSettingsFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.aggregators.llm_context import LLMContext  # noqa: E402
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.services.settings import LLMSettings, TTSSettings  # noqa: E402
from pipecat.transports.base_output import BaseOutputTransport  # noqa: E402
from pipecat.transports.base_transport import TransportParams  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from server.audio import read_wav  # noqa: E402
from server.clients.pipecat import (  # noqa: E402
    ParleyAdaptiveTTSService,
    ParleyHTTPTTSService,
    ParleyLLMService,
    ParleyTTSService,
)
from server.clients.pipecat.words import Playout, Tokens  # noqa: E402
from server.clients.speech import SpokenWord  # noqa: E402
from server.http import adaptive  # noqa: E402
from server.http import speech as speech_http  # noqa: E402
from server.pipelines.studio import Studio  # noqa: E402
from server.pipelines.tts import espeak  # noqa: E402
from server.ws import chunked_llm  # noqa: E402
from server.ws import speech as speech_ws  # noqa: E402
from tests.fakes import FakeLLM, FakeTTS, words  # noqa: E402
from tests.line import Line  # noqa: E402
from tests.services import serving, until  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
RATE = 16_000
ANSWER = "One two three four five. Six seven eight. Nine ten eleven twelve."
TTS = {"websocket": ParleyTTSService, "http": ParleyHTTPTTSService, "adaptive": ParleyAdaptiveTTSService}


class Loudspeaker(BaseOutputTransport):
    """Plays what comes, in real time, and remembers it."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, audio_out_sample_rate=RATE))
        self.heard = b""
        self.began = self._until = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        self.heard += frame.audio
        now = asyncio.get_running_loop().time()
        self.began = self.began or now
        self._until = max(self._until, now) + len(frame.audio) / 2 / RATE
        await asyncio.sleep(self._until - now)
        return True


class Notes(FrameProcessor):
    """Every frame that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, *kinds: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kinds)]


class Bot:
    """A pipeline of a model, a voice and a loudspeaker, with its context."""

    def __init__(
        self, worker: PipelineWorker, context: LLMContext, speaker: Loudspeaker, notes: Notes, line: Line
    ) -> None:
        self.worker, self.context, self.speaker, self.notes, self.line = worker, context, speaker, notes, line
        self.errors: list[Any] = []
        worker.add_event_handler("on_pipeline_error", lambda worker, frame: self.errors.append(frame))

    async def ask(self, text: str = "Count, please.") -> None:
        self.context.add_message({"role": "user", "content": text})
        await self.worker.queue_frame(LLMRunFrame())

    @property
    def heard(self) -> list[str]:
        return words(self.speaker.heard)

    @property
    def kept(self) -> list[str]:
        """What the context says the assistant said, message by message."""
        return [str(m["content"]) for m in self.context.get_messages() if m["role"] == "assistant"]


@asynccontextmanager
async def servers(llm: FakeLLM, tts: Any) -> AsyncIterator[int]:
    studio = Studio({"fake" if isinstance(tts, FakeTTS) else "espeak": tts})
    routes = [
        *speech_http.routes(studio), *adaptive.routes(studio), *speech_ws.routes(studio),
        *chunked_llm.routes(llm),
    ]  # fmt: skip
    async with serving(routes) as url:
        yield int(url.rpartition(":")[2])


def voice(kind: str, port: int, **options: Any) -> Any:
    url = f"ws://127.0.0.1:{port}/ws/tts/stream" if kind == "websocket" else f"http://127.0.0.1:{port}"
    return TTS[kind](url=url, sample_rate=RATE, **options)


@asynccontextmanager
async def bot(
    kind: str, llm: FakeLLM | None = None, tts: FakeTTS | None = None, **options: Any
) -> AsyncIterator[tuple[Bot, FakeLLM, FakeTTS]]:
    llm, tts = llm or FakeLLM(ANSWER, delay=0.005, first=0.02), tts or FakeTTS(speed=20)
    async with servers(llm, tts) as port, Line(port) as line:
        port, context = line.port, LLMContext()
        pair, speaker, notes = LLMContextAggregatorPair(context), Loudspeaker(), Notes()
        model = ParleyLLMService(
            url=f"ws://127.0.0.1:{port}/ws/llm", settings=LLMSettings(system_instruction="Be brief."), **options
        )
        pipeline = Pipeline([pair.user(), model, voice(kind, port), notes, speaker, pair.assistant()])
        worker = PipelineWorker(
            pipeline, cancel_on_idle_timeout=False, params=PipelineParams(audio_out_sample_rate=RATE)
        )
        async with running(worker):
            yield Bot(worker, context, speaker, notes, line), llm, tts
        bill.append(model.bill)


bill: list[Any] = []


@asynccontextmanager
async def running(worker: PipelineWorker) -> AsyncIterator[None]:
    started = asyncio.Event()
    worker.add_event_handler("on_pipeline_started", lambda worker, frame: started.set())
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    task = asyncio.ensure_future(runner.run())
    try:
        async with asyncio.timeout(60):
            await started.wait()
            yield
            await worker.queue_frame(EndFrame())
            await task
    finally:
        if not task.done():
            await worker.cancel()
            await asyncio.wait([task], timeout=30)


async def spoken(kind: str, text: str) -> Notes:
    """`text` spoken by the real espeak, in a pipeline of its own."""
    engine, notes = espeak.create(), Notes()
    await engine.start()
    try:
        async with servers(FakeLLM(), engine) as port:
            service = voice(kind, port, settings=TTSSettings(voice="aria"))
            worker = PipelineWorker(
                Pipeline([service, notes]), cancel_on_idle_timeout=False,
                params=PipelineParams(audio_out_sample_rate=RATE),
            )  # fmt: skip
            async with running(worker):
                await worker.queue_frame(TTSSpeakFrame(text))
                await until(lambda: notes.of(TTSStoppedFrame), 30)
    finally:
        await engine.stop()
    return notes


@pytest.mark.parametrize("kind", TTS)
async def test_a_voice_speaks_and_its_words_pass_with_the_times_they_sound(kind: str) -> None:
    text = "Good evening, “Dr. Smith”. It is 3.50 now; there was no more."
    notes = await spoken(kind, text)
    audio = notes.of(TTSAudioRawFrame)
    assert notes.of(TTSStartedFrame)
    assert {frame.sample_rate for frame in audio} == {RATE}
    total = sum(len(frame.audio) for frame in audio) / 2 / RATE
    assert 2 < total < 8
    told = notes.of(TTSTextFrame)
    assert " ".join(frame.text.strip() for frame in told).split() == text.split()
    times = [frame.pts for frame in told]
    assert times == sorted(times)
    assert 1 < (times[-1] - times[0]) / 1e9 < total
    assert not notes.of(ErrorFrame)


@pytest.mark.parametrize("kind", TTS)
async def test_the_whole_loop_is_heard_and_kept(kind: str) -> None:
    async with bot(kind) as (b, llm, tts):
        await b.ask()
        expected = ANSWER.lower().replace(".", "").split()
        await until(lambda: len(b.heard) >= len(expected), 30)
        await until(lambda: b.kept, 30)
        assert b.heard == expected
        # pipecat hands words to its context by its own clock: on a busy machine neighbours have changed places there.
        assert [sorted(line.split()) for line in b.kept] == [sorted(ANSWER.split())]
        assert not b.notes.of(ErrorFrame)
        assert [m.content for m in llm.seen[-1]] == ["Be brief.", "Count, please."]
    assert tts.open_now == tts.speaking == llm.open_now == 0


@pytest.mark.parametrize("kind", TTS)
async def test_an_interruption_is_silence_at_once_and_the_context_keeps_what_was_heard(kind: str) -> None:
    story = " ".join(f"Sentence{n} has w{n} of its own." for n in range(20))
    async with bot(kind, llm=FakeLLM(story, "Very well.", delay=0.03)) as (b, llm, tts):
        await b.ask()
        await until(lambda: len(b.heard) >= 8, 30)
        await b.worker.queue_frame(InterruptionFrame())
        await until(lambda: not tts.speaking and not llm.open_now, 20)  # both halves have stopped
        await until(lambda: b.kept, 20)
        passed = asyncio.get_running_loop().time() - b.speaker.began
        heard, kept = b.heard, b.kept[0].lower().replace(".", "").split()
        assert kept == story.lower().replace(".", "").split()[: len(kept)]
        assert len(heard) - 2 <= len(kept) <= passed / 0.2 + 2  # a word lasts 0.2 s; pipecat goes by the clock
        assert llm.produced < 100
        at = len(b.speaker.heard)
        await asyncio.sleep(0.3)
        assert len(b.speaker.heard) == at
        await b.ask("Stop.")
        await until(lambda: b.heard[-2:] == ["very", "well"], 30)
        await until(lambda: len(b.kept) == 2, 30)
        assert b.kept[1] == "Very well."


async def test_two_turns_in_a_row_keep_their_words_apart() -> None:
    async with bot("websocket", llm=FakeLLM("First answer here.", "Second one.")) as (b, _, _):
        await b.ask()
        await until(lambda: len(b.kept) == 1, 30)
        await b.ask()
        await until(lambda: len(b.kept) == 2, 30)
        await until(lambda: b.heard == ["first", "answer", "here", "second", "one"], 30)
        assert b.kept == ["First answer here.", "Second one."]


@pytest.mark.parametrize("kind", TTS)
async def test_an_emoji_alone_is_kept_and_takes_nothing_from_what_comes_after_it(kind: str) -> None:
    replies = ("First answer here. \U0001f389", "\U0001f44d", "Second one.")
    async with bot(kind, llm=FakeLLM(*replies)) as (b, _, _):
        for number, reply in enumerate(replies, 1):
            await b.ask()
            await until(lambda n=number: len(b.kept) == n, 30)
            assert b.kept[-1] == reply
        await until(lambda: b.heard == ["first", "answer", "here", "second", "one"], 30)


async def test_the_model_rests_while_it_is_heard() -> None:
    answer = " ".join(f"Sentence {n} has six words here." for n in range(8))
    async with bot("websocket", llm=FakeLLM(answer, delay=0.001), ahead_s=1.0) as (b, llm, _):
        await b.ask()
        await until(lambda: len(b.heard) > 6, 30)
        assert 0 < llm.produced < len(answer.split())  # it waits
        await b.worker.queue_frame(InterruptionFrame())
        await until(lambda: not llm.open_now, 30)
    assert bill[-1].rested_ms > 0


async def test_another_voice_from_the_middle_of_a_turn_on() -> None:
    async with bot("websocket") as (b, _, tts):
        opened: list[Any] = []
        _watch(tts, opened.append)
        await b.ask()
        await until(lambda: len(b.heard) >= 2, 30)
        await b.worker.queue_frame(TTSUpdateSettingsFrame(delta=TTSSettings(voice="leo")))
        await b.ask()
        await until(lambda: b.heard.count("twelve") == 2, 30)
        assert len(opened) >= 2


def _watch(tts: FakeTTS, seen: Callable[[Any], None]) -> None:
    open_ = tts.open

    def opened(voice: Any) -> Any:
        seen(voice)
        return open_(voice)

    tts.open = opened  # type: ignore[method-assign]


@pytest.mark.parametrize("kind", TTS)
async def test_a_voice_that_breaks_is_an_error_and_the_next_turn_is_spoken(kind: str) -> None:
    async with bot(kind, llm=FakeLLM("EXPLODE now.", "Fine again.")) as (b, _, _):
        await b.ask()
        await until(lambda: b.errors, 30)
        await b.worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(0.1)
        await b.ask()
        await until(lambda: b.heard == ["fine", "again"], 30)


COUNT = "one two three four five six seven eight nine ten"


@pytest.mark.parametrize("cut_in", [False, True])
@pytest.mark.parametrize("kind", TTS)
async def test_a_turn_that_begins_when_the_line_was_lost_is_spoken(kind: str, cut_in: bool) -> None:
    async with bot(kind, tts=FakeTTS(speed=2)) as (b, _, _):
        await b.worker.queue_frame(TTSSpeakFrame(COUNT))
        await until(lambda: len(b.heard) >= 2, 30)
        b.line.cut()
        if cut_in:
            await b.worker.queue_frame(InterruptionFrame())
        await b.worker.queue_frame(TTSSpeakFrame("fine again"))
        await until(lambda: b.heard[-2:] == ["fine", "again"], 30)
        assert len(b.errors) <= 1


@pytest.mark.parametrize("kind", TTS)
async def test_a_server_that_was_away_is_an_error_and_the_next_turn_is_spoken(kind: str) -> None:
    async with bot(kind, tts=FakeTTS(speed=2)) as (b, _, _):
        await b.ask()
        await until(lambda: len(b.heard) >= 2, 30)
        b.line.away = True
        b.line.cut()
        await until(lambda: b.errors, 30)
        await b.worker.queue_frame(InterruptionFrame())
        await b.worker.queue_frame(TTSSpeakFrame("nobody hears this"))
        await asyncio.sleep(1)
        b.line.away = False
        told = len(b.errors)
        await b.worker.queue_frame(InterruptionFrame())
        await b.worker.queue_frame(TTSSpeakFrame("fine again"))
        await until(lambda: b.heard[-2:] == ["fine", "again"], 30)
        assert "nobody" not in b.heard
        assert len(b.errors) <= told + 1


async def test_a_model_that_fails_is_an_error_and_the_next_turn_is_answered() -> None:
    async with bot("websocket", llm=FakeLLM(RuntimeError("no"), "Well.")) as (b, _, _):
        await b.ask()
        await until(lambda: b.errors, 30)
        await b.ask()
        await until(lambda: b.heard == ["well"], 30)


async def test_the_model_answers_out_of_band_too() -> None:
    async with servers(FakeLLM("A summary of it."), FakeTTS()) as port:
        model = ParleyLLMService(url=f"ws://127.0.0.1:{port}/ws/llm")
        context = LLMContext([{"role": "user", "content": [{"type": "text", "text": "Sum up."}]}])
        assert (await model.run_inference(context) or "").strip() == "A summary of it."
        await model._answers.__aexit__()


def test_an_engine_s_words_become_the_words_of_the_text() -> None:
    tokens = Tokens("“Well, there was 3.50 left.”")
    told = tokens.at([SpokenWord("Well", 1, 5, 0, 200), SpokenWord("there was", 7, 16, 200, 400)])
    assert told == [("“Well,", 0.0), ("there", 0.2), ("was", pytest.approx(0.333, abs=0.01))]
    told = tokens.at([SpokenWord("3", 17, 18, 400, 500), SpokenWord("50", 19, 21, 500, 600)], offset_s=1)
    assert told == [("3.50", 1.4)]
    assert tokens.rest(2, 3) == [("left.”", 2.0)]
    assert tokens.rest(3, 4) == []
    tokens.add(" \U0001f389 … ")
    assert tokens.rest(0, 3.4) == [("\U0001f389", 1.4), ("…", 2.4)]  # not before what was told


def test_what_comes_too_late_moves_the_words_behind_it() -> None:
    playout = Playout()
    playout.add(1.0, now=10.0)
    playout.add(0.5, now=10.2)
    assert playout.at(1.4) == pytest.approx(1.4)
    playout.add(1.0, now=13.0)  # it had run dry at 11.5
    assert playout.at(1.4) == pytest.approx(1.4)
    assert playout.at(1.5) == pytest.approx(3.0)
    assert playout.at(2.4) == pytest.approx(3.9)


@pytest.mark.parametrize("kind", TTS)
async def test_the_example_bot_answers_and_writes_what_it_said(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "pipecat_bot.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)

    async def lines() -> AsyncIterator[str]:
        yield "Hello?"

    monkeypatch.setattr(example, "lines", lines)
    async with servers(FakeLLM("Hello yourself."), FakeTTS(rate=24_000)) as port:
        out = tmp_path / "answer.wav"
        given = Namespace(url=f"http://127.0.0.1:{port}", token="", tts=kind, voice="", out=str(out), linger=4)
        async with asyncio.timeout(60):
            await example.main(given)
    assert "assistant: Hello yourself." in capsys.readouterr().out
    pcm, rate = read_wav(out.read_bytes())
    assert (words(pcm), rate) == (["hello", "yourself"], 24_000)
