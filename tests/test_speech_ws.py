"""`/ws/tts/stream` over a real socket with the real embedded engines: the reference's messages, and what is refused."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from server.audio import milliseconds
from server.pipelines.tts import espeak, flite
from server.ws import speech
from tests import services
from tests.services import serving
from tests.speech_ear import ear

pytestmark = pytest.mark.asyncio(loop_scope="module")
TEXT = "Good evening. It is half past nine, and the moon is up."


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def url() -> AsyncIterator[str]:
    async with (
        services.studio(espeak=espeak.create(), flite=flite.create()) as studio,
        serving(speech.routes(studio)) as address,
    ):
        yield address.replace("http", "ws") + "/ws/tts/stream"


# the reference's protocol


@pytest.mark.parametrize("mode", ["batch", "stream"])
async def test_a_stream_from_its_creation_to_done(url: str, mode: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="aria", language="en", default_mode=mode)
        created = await e.until("stream_created")
        assert created["stream_id"]
        await e.send("text", text=TEXT)
        first = await e.until("segment_complete")
        await e.send("text", text="And so to bed.", preset="aggressive")
        second = await e.until("segment_complete")
        await e.send("close")
        done = await e.until("done")
    assert e.types == ["stream_created", "segment_complete", "segment_complete", "done"]
    assert (first["segment"], second["segment"], done["segments_generated"]) == (1, 2, 2)
    assert done["total_audio_ms"] == pytest.approx(milliseconds(e.audio, created["sample_rate"]), abs=0.1)
    assert 0 <= done["total_audio_ms"] - first["audio_ms"] - second["audio_ms"] < 100
    assert np.abs(np.frombuffer(e.audio, "<i2").astype(int)).max() > 3000
    assert e.audio[-2:] == b"\0\0"


async def test_frames_are_of_the_sizes_the_mode_and_preset_say(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", model="espeak")
        await e.send("text", text=TEXT)
        await e.until("segment_complete")
        frames = [len(x) for x in e.events if isinstance(x, bytes)]
        assert set(frames[:-1]) == {4096}
        assert frames[-1] <= 4096
        e.events.clear()
        await e.send("text", text=TEXT, mode="stream", preset="balanced")
        await e.until("segment_complete")
        frames = [len(x) for x in e.events if isinstance(x, bytes)]
        assert frames[0] == 6 * 1024 * 2
        assert set(frames[1:-1]) == {10 * 1024 * 2}


async def test_text_without_a_stream_makes_one(url: str) -> None:
    async with ear(url) as e:
        await e.send("text", text="Hello.")
        await e.until("segment_complete")
        await e.send("cancel")
        await e.send("text", text="Again.")
        await e.until("segment_complete")
        await e.send("close")
        await e.until("done")
        await e.send("text", text="And again.")
        await e.until("segment_complete")
    assert e.types.count("stream_created") == 3


async def test_ping_blank_text_and_idle_words(url: str) -> None:
    async with ear(url) as e:
        await e.send("init")
        await e.until("stream_created")
        for blank in ("", "   ", "\n", "🎉 🎉"):
            await e.send("text", text=blank)
        await e.send("close")
        done = await e.until("done")
        assert (done["segments_generated"], done["total_audio_ms"]) == (0, 0)
        await e.send("close")
        await e.send("cancel")
        await e.send("ping")
        assert (await e.until("pong")) == {"type": "pong"}
    assert e.types == ["stream_created", "done", "pong"]


async def test_the_language_and_another_engine_are_heard(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="leo", language="de", sample_rate=16_000)
        assert (await e.until("stream_created"))["sample_rate"] == 16_000
        await e.send("init", model="flite", voice="awb")
        assert (await e.until("stream_created"))["sample_rate"] == 16_000
        await e.send("text", text="Hello.")
        assert (await e.until("segment_complete"))["audio_ms"] > 200


@pytest.mark.parametrize("model", ["espeak", "flite"])
async def test_word_timings_are_told_to_those_who_ask(url: str, model: str) -> None:
    async with ear(url) as e:
        await e.send("init", model=model, events=["words"])
        await e.send("text", text=TEXT)
        await e.until("segment_complete")
        await e.send("text", text="Good night.")
        complete = await e.until("segment_complete")
    told = [x for x in e.events if isinstance(x, dict) and x["type"] == "words"]
    first = [w for event in told if event["segment"] == 1 for w in event["words"]]
    second = [w for event in told if event["segment"] == 2 for w in event["words"]]
    assert [w["word"].strip(",.") for w in first] == TEXT.replace(".", "").replace(",", "").split()
    assert second[0]["word"] == "Good"
    assert first[-1]["end_ms"] <= second[0]["start_ms"] + 12.1
    assert complete["segment"] == 2


# what it mends


async def test_an_unknown_voice_or_language_is_an_error_at_once(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice="nobody")
        error = await e.until("error")
        assert "Unknown voice 'nobody'" in error["message"]
        assert error["fatal"] is True
        await e.send("text", text="Not in any voice.")
        assert (await e.until("error"))["message"] == error["message"]
        await e.send("init", language="xx")
        assert "Unknown language 'xx'" in (await e.until("error"))["message"]
        await e.send("init", voice="aria")
        await e.until("stream_created")
    assert e.types == ["error", "error", "error", "stream_created"]


@pytest.mark.parametrize(
    "frame", ["nonsense", b"\0\1\2\3", "[1]", '"x"', '{"type": "wat"}', '{"type": ["x"]}', "{}", '{"type": "text"}',
              '{"type": "text", "text": 5}', '{"type": "init", "speed": "fast"}', "[" * 50_000],
)  # fmt: skip
async def test_nonsense_is_an_error_and_nothing_else_changes(url: str, frame: str | bytes) -> None:
    async with ear(url) as e:
        await e.socket.send(frame)
        error = await e.until("error")
        assert error["code"] == "bad_message"
        assert error["fatal"] is False
        await e.send("text", text="Still here.")
        await e.until("segment_complete")


async def test_half_a_character_is_no_harm(url: str) -> None:
    async with ear(url) as e:
        await e.socket.send(r'{"type": "init", "voice": "\ud800"}')
        assert "Unknown voice '\ufffd'" in (await e.until("error"))["message"]
        await e.send("init", events=["words"])
        await e.socket.send(r'{"type": "text", "text": "Kind of\ud800the same."}')
        await e.until("segment_complete")
        said = " ".join(w["word"] for x in e.events if isinstance(x, dict) and "words" in x for w in x["words"])
        assert said.replace("\ufffd", " ").split() == ["Kind", "of", "the", "same"]


async def test_null_is_the_same_as_nothing(url: str) -> None:
    async with ear(url) as e:
        await e.send("init", voice=None, language=None, default_mode=None, speed=None, events=None)
        await e.send("text", text="Hello.", mode=None, preset=None)
        await e.until("segment_complete")
    assert e.types == ["stream_created", "segment_complete"]
