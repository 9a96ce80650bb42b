"""Real recognisers in real processes: what they hear, how they share decoders, how they die and come back."""

import asyncio
import os
import signal
import subprocess
import sys

import pocketsphinx
import pytest
import pytest_asyncio

from bench.wer import word_errors
from server.audio import to_float, to_pcm
from server.errors import ConfigError, EngineUnavailable, STTError
from server.pipelines.loading import load
from server.pipelines.stt._worker import AUDIO, BEGIN, END, Hearing
from tests.speech import JFK, human, say, silence

pytestmark = pytest.mark.asyncio(loop_scope="module")
HEAR, WEATHER, COFFEE = (
    "Can you hear me now?",
    "What is the weather like in London today?",
    "I would like a cup of coffee.",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine():
    engine = load("stt", "pocketsphinx", {"workers": 1, "streams": 2})
    await engine.start()
    yield engine
    await engine.stop()


def spoken(text: str, voice: str = "slt") -> bytes:
    return silence(300) + say(text, voice) + silence(200)


async def feed(recogniser, pcm: bytes, pause: float = 0.0) -> list[str]:
    """The partial texts on the way."""
    partials = []
    for i in range(0, len(pcm), 1024):
        partials.append(await recogniser.feed(pcm[i : i + 1024]))
        await asyncio.sleep(pause)
    return [text for text in partials if text is not None]


async def hear(engine, text: str, voice: str = "slt") -> str:
    recogniser = engine.open("en")
    await feed(recogniser, spoken(text, voice))
    heard = (await recogniser.finish()).text
    await recogniser.close()
    return heard


async def gone(pid: int) -> bool:
    """Whether the process ends within five seconds (a zombie is not gone)."""
    for _ in range(250):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
async def test_what_is_said_is_heard(engine, voice):
    assert (await hear(engine, HEAR, voice)).startswith("can you hear me now")


async def test_text_grows_while_it_is_spoken(engine):
    recogniser = engine.open("en-US")
    partials = await feed(recogniser, spoken(WEATHER), pause=0.008)
    peeked = await recogniser.peek()
    assert any(text.startswith("what") and "london" not in text for text in partials)
    assert peeked.text.startswith("what is the weather")
    assert await recogniser.feed(silence(32)) in (peeked.text, None)
    final = await recogniser.finish()
    assert final.text.startswith("what is the weather")
    assert final.confidence is None
    await recogniser.close()


async def test_one_recogniser_hears_one_utterance_after_the_other(engine):
    recogniser = engine.open("en")
    heard = []
    for text in (HEAR, WEATHER, HEAR):
        await feed(recogniser, spoken(text))
        heard.append((await recogniser.finish()).text)
    assert heard[0] == heard[2] == "can you hear me now"
    assert "weather" in heard[1]
    assert "hear" not in heard[1]
    await recogniser.close()


async def test_more_speakers_than_decoders_are_all_heard_and_none_hears_another(engine):
    texts = [HEAR, WEATHER, COFFEE, HEAR, WEATHER, COFFEE]
    heard = await asyncio.gather(*(hear(engine, text) for text in texts))
    for text, got in zip(texts, heard, strict=True):
        for word in ("hear", "weather", "coffee"):
            assert (word in got) == (word in text.lower()), heard


async def test_nobody_is_heard_worse_for_who_spoke_before(engine):
    whispering = engine.open("en")
    for _ in range(4):
        await whispering.feed(to_pcm(to_float(spoken(WEATHER, "awb")) * 0.02))
        await whispering.finish()
    for voice in ("slt", "rms", "slt"):  # each a stranger, on the decoder that heard the whispering
        assert (await hear(engine, HEAR, voice)) == "can you hear me now"


async def test_the_mean_of_a_new_voice_is_its_own():
    pcm = say("Please tell me a story about a dragon.")
    hearing = Hearing({"fwdflat": False})
    hearing.answer(BEGIN, b"")
    hearing.answer(AUDIO, pcm)
    _, answer = hearing.answer(END, b"")
    whole = pocketsphinx.Decoder(pocketsphinx.Config(loglevel="FATAL", cmn="batch"))
    whole.start_utt()
    whole.process_raw(pcm, full_utt=True)
    whole.end_utt()
    ours, theirs = ([float(x) for x in text.split(",")] for text in (answer.split("\n")[0], whole.get_cmn()))
    assert ours == pytest.approx(theirs, abs=0.6)
    assert abs(ours[0] - 40) > 3  # which is where it started


async def test_a_human_voice_is_understood_from_its_first_words(engine):
    if (pcm := human()) is None:
        pytest.skip("the human recording is not at hand")
    recogniser = engine.open("en")
    await feed(recogniser, pcm)
    heard = (await recogniser.finish()).text
    await recogniser.close()
    said = "".join(c for c in JFK.lower() if c.isalpha() or c == " ")
    assert word_errors(said, heard) <= 9  # of 22; 19 without a mean of its own


async def test_nothing_said_is_an_empty_text(engine):
    recogniser = engine.open("en")
    assert (await recogniser.finish()).text == ""
    assert (await recogniser.peek()).text == ""
    await feed(recogniser, silence(600))
    assert (await recogniser.finish()).text == ""
    await recogniser.close()


async def test_reset_forgets_what_was_said(engine):
    recogniser = engine.open("en")
    await feed(recogniser, spoken(WEATHER))
    await recogniser.reset()
    await feed(recogniser, spoken(HEAR))
    assert (await recogniser.finish()).text == "can you hear me now"
    await recogniser.close()


async def test_who_gives_up_waiting_gives_the_decoder_back(engine):
    for _ in range(3):  # more than there are decoders
        recogniser = engine.open("en")
        await feed(recogniser, spoken(WEATHER))
        waiting = asyncio.ensure_future(recogniser.finish())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    assert await hear(engine, HEAR) == "can you hear me now"
    assert sum(worker.free for worker in engine.pool.workers) == 2


async def test_closing_in_the_middle_gives_the_decoder_back(engine):
    for _ in range(5):
        recogniser = engine.open("en")
        await feed(recogniser, spoken(WEATHER)[:20_000])
        await recogniser.close()
    assert sum(worker.free for worker in engine.pool.workers) == 2
    assert await hear(engine, HEAR) == "can you hear me now"


async def test_a_killed_worker_costs_no_word(engine):
    (worker,) = engine.pool.workers
    pid, pcm = worker.pid, spoken(HEAR)
    first, second = engine.open("en"), engine.open("en")
    await feed(first, pcm[: len(pcm) // 2])
    await first.peek()
    await feed(second, spoken(WEATHER))
    os.kill(pid, signal.SIGKILL)
    await feed(first, pcm[len(pcm) // 2 :])
    heard = await asyncio.gather(first.finish(), second.finish())
    assert heard[0].text == "can you hear me now"
    assert "weather" in heard[1].text
    assert worker.pid != pid
    assert await gone(pid)


async def test_an_utterance_that_kills_every_worker_fails_and_the_next_is_heard(engine):
    (worker,) = engine.pool.workers
    recogniser = engine.open("en")
    for _ in range(2):
        await feed(recogniser, spoken(HEAR)[:20_000])
        await recogniser.peek()
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(STTError, match="twice"):
        await recogniser.finish()
    await feed(recogniser, spoken(HEAR))
    assert (await recogniser.finish()).text == "can you hear me now"
    await recogniser.close()


async def test_a_failing_feed_is_told_once(engine):
    recogniser = engine.open("en")
    await feed(recogniser, spoken(HEAR)[:20_000])
    recogniser._job.error = "pocketsphinx failed: for a test"
    with pytest.raises(STTError, match="for a test"):
        await recogniser.feed(silence(32))
    await feed(recogniser, spoken(HEAR))
    assert (await recogniser.finish()).text == "can you hear me now"
    await recogniser.close()
    assert sum(worker.free for worker in engine.pool.workers) == 2


async def test_stopping_leaves_no_process_and_tells_who_waits():
    before = asyncio.all_tasks()
    engine = load("stt", "pocketsphinx", {"workers": 2, "streams": 1})
    await engine.start()
    pids = [worker.pid for worker in engine.pool.workers]
    recogniser = engine.open("en")
    await feed(recogniser, spoken(WEATHER) * 4)
    waiting = asyncio.ensure_future(recogniser.finish())
    await asyncio.sleep(0)
    await engine.stop()
    with pytest.raises(STTError, match="stopped"):
        await waiting
    assert len(set(pids)) == 2
    assert all([await gone(pid) for pid in pids])
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


async def test_a_model_that_cannot_be_loaded_is_told_at_start():
    engine = load("stt", "pocketsphinx", {"workers": 1, "streams": 1, "hmm": "/nowhere"})
    with pytest.raises(EngineUnavailable, match="could not load"):
        await engine.start()
    assert engine.pool.workers[0].pid is None


async def test_the_server_process_does_not_load_it_and_workers_end_with_the_server():
    code = (
        "import asyncio, sys\n"
        "from server.pipelines.loading import load\n"
        "async def main():\n"
        "    engine = load('stt', 'pocketsphinx', {'workers': 1, 'streams': 1})\n"
        "    await engine.start()\n"
        "    print(engine.pool.workers[0].pid, 'pocketsphinx' in sys.modules, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    pid, imported = (await asyncio.wait_for(server.stdout.readline(), 30)).split()
    assert imported == b"False"
    assert os.getpgid(int(pid)) != os.getpgid(server.pid)  # Ctrl-C in the terminal does not reach it
    os.kill(int(pid), signal.SIGINT)  # and does nothing if it does
    await asyncio.sleep(0.1)
    os.kill(int(pid), 0)
    server.kill()
    assert await gone(int(pid))
    _, complaints = await server.communicate()
    assert complaints == b""


async def test_other_languages_are_refused(engine):
    with pytest.raises(ConfigError, match="English only"):
        engine.open("de")


async def test_strange_options_are_refused():
    with pytest.raises(ConfigError, match="streams"):
        load("stt", "pocketsphinx", {"streams": 0})
