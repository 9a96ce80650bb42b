"""The whole server as `make run` starts it, over a real socket, with real speech: spoken by flite and by a human, heard
by Silero and pocketsphinx, answered by espeak-ng."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bench.sayings import HUMS
from server.audio import resample
from server.pipelines.stt import pocketsphinx
from tests import speech
from tests.wire import Client, connected, running

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[str]:
    async with running("--config", "configs/embedded.toml") as (address, _):
        yield address


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def overlap(heard: str, said: str) -> float:
    """The share of the words of `said` that are in `heard`."""
    return sum(word in words(heard) for word in words(said)) / len(words(said))


async def listening(client: Client) -> None:
    await client.until("session.created")
    await client.speak(speech.silence(300))


async def pause(client: Client, seconds: float) -> None:
    """The microphone hears the room."""
    await client.speak(speech.noise(seconds * 1000, 0.0005))


async def test_it_is_spoken_to_and_answers_aloud(server: str):
    async with connected(server) as client:
        await listening(client)
        await client.speak(speech.say("Tell me a joke please.") + speech.silence(1_200))
        final = await client.until("transcript.final")
        assert overlap(final["text"], "tell me a joke please") >= 0.6
        assert client.of("transcript.partial")
        done = await client.until("reply.done")
        assert done["audio_ms"] > 500
        rate = client.of("reply.audio")[0]["rate"]
        assert len(client.audio[done["reply"]]) / 2 / rate * 1000 == pytest.approx(done["audio_ms"], abs=1)


async def test_a_human_voice_is_understood(server: str):
    if (human := speech.human()) is None:
        pytest.skip("the human recording is not at hand (../shared/speech/jfk.wav)")
    async with connected(server) as client:
        await listening(client)
        await client.send("session.update", turn={"silence_ms": 1500})
        await client.speak(human + speech.silence(2_500))
        final = await client.until("transcript.final")
        said = (
            "and so my fellow americans ask not what your country can do for you ask what you can do for your country"
        )
        assert overlap(final["text"], said) >= 0.5


async def test_the_audio_of_a_reply_is_understood_again():
    """A server that speaks with flite: what it says aloud is what it says in text."""
    text = "the weather is very good today and we will go to the beach"
    speech.say("hello")  # skips where flite is not installed
    async with running(PARLEY_TTS_ENGINE="flite") as (address, _), connected(address) as client:
        await client.until("session.created")
        await client.send("say", text=text)
        done = await client.until("reply.done")
        spoken = resample(client.audio[done["reply"]], client.of("reply.audio")[0]["rate"], 16_000)
    stt = pocketsphinx.create(workers=1)
    await stt.start()
    try:
        recogniser = stt.open("en")
        await recogniser.feed(spoken + speech.silence(300))
        heard = (await recogniser.finish()).text
        await recogniser.close()
    finally:
        await stt.stop()
    assert done["text"] == text
    assert overlap(heard, text) >= 0.7


async def long_reply(client: Client) -> int:
    """Ask it aloud to talk for a while; so the recogniser has also heard the voice before."""
    for attempt in range(1, 4):
        await client.speak(speech.say("Please tell me a story.") + speech.silence(700))
        asked = await client.until("transcript.final", attempt)
        reply = (await client.until("reply.audio", attempt))["reply"]
        if "story" in asked["text"]:
            return reply
        await client.until("reply.done", attempt)
    raise AssertionError(f"it was not understood: {client.summary()}")


async def test_barge_in_with_real_speech(server: str):
    async with connected(server) as client:
        await listening(client)
        reply = await long_reply(client)
        await pause(client, 1.0)
        await client.speak(speech.say("Stop. What time is it?") + speech.silence(1_200))
        cut = await client.until("reply.interrupted")
        assert (cut["reply"], cut["reason"]) == (reply, "speech")
        assert cut["heard"]
        assert cut["unheard"]
        assert not [1 for at, of, _ in client.arrivals if of == reply and at > cut["_at"]]
        paused = client.of("reply.paused")[0]
        assert paused["_at"] <= cut["_at"]
        await client.when(lambda: [e for e in client.of("reply.started") if e["reply"] > reply])
        await client.send("history.get")
        history = (await client.until("history"))["messages"]
        assert [m["text"] for m in history if m.get("cut")] == [cut["heard"]]


async def test_a_cough_does_not_stop_it(server: str):
    async with connected(server) as client:
        await listening(client)
        reply = await long_reply(client)
        await pause(client, 0.8)
        await client.speak(speech.cough())
        await pause(client, 2.5)
        assert client.of("reply.interrupted") == []
        assert len(client.of("reply.resumed")) == len(client.of("reply.paused"))
        after = client.events[-1]["_at"] if client.of("reply.resumed") else 0
        assert [1 for at, of, _ in client.arrivals if of == reply and at >= after - 1]


@pytest.mark.parametrize("text", ["right", "okay", "I see"])
async def test_a_backchannel_does_not_stop_it(server: str, text: str):
    async with connected(server) as client:
        await listening(client)
        await long_reply(client)
        await pause(client, 0.8)
        await client.speak(speech.say(text))
        await pause(client, 2.0)
        assert client.of("reply.interrupted") == [], client.summary()
        assert client.of("reply.resumed")


@pytest.mark.parametrize("name", ["mm", "mm hmm"])
async def test_a_hum_does_not_stop_it(server: str, name: str):
    async with connected(server) as client:
        await listening(client)
        await long_reply(client)
        await pause(client, 0.8)
        await client.speak(HUMS[name](190))
        await pause(client, 2.0)
        assert client.of("reply.interrupted") == [], client.summary()
        assert client.of("reply.resumed")


async def test_twenty_typed_conversations_each_hear_their_own_reply(server: str):
    """Twenty sessions speak different texts at once; each hears the very audio one alone hears."""
    texts = [f"This is conversation number {i}, and nobody else's." for i in range(20)]

    async def one(text: str) -> tuple[int, list[str]]:
        async with connected(server) as client:
            await client.until("session.created")
            await client.send("say", text=text)
            done = await client.until("reply.done", patience=60)
            return round(done["audio_ms"]), [event["text"] for event in client.of("reply.sentence")]

    alone = await one(texts[7])
    together = await asyncio.gather(*(one(text) for text in texts))
    assert [sentences for _, sentences in together] == [[text] for text in texts]
    assert together[7][0] == pytest.approx(alone[0], abs=30)


async def test_four_spoken_conversations_at_once(server: str):
    said = ["tell me a joke", "what time is it", "tell me a story", "what is your name"]

    async def one(text: str, voice: str) -> str:
        async with connected(server) as client:
            await listening(client)
            await client.speak(speech.say(text, voice) + speech.silence(1_200))
            await client.until("reply.audio", patience=60)
            return str((await client.until("transcript.final"))["text"])

    heard = await asyncio.gather(*(one(text, voice) for text, voice in zip(said, ["slt", "rms"] * 2, strict=True)))
    for text, mine in zip(said, heard, strict=True):
        others = [overlap(mine, other) for other in said if other != text]
        assert overlap(mine, text) > max(others), (text, mine)
