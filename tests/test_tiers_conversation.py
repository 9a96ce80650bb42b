"""The conversation over tokens: a voice that is made elsewhere, and a client that decodes for itself."""

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.asyncio.client import connect

from server.pipelines.codec._tokens import from_wire
from server.pipelines.loading import load
from tests.fake_codec import FakeNetwork, fake_codec
from tests.tiers_app import application, parley, serving, until
from tests.tones import ToneTTS, heard, pitches, prose

TEXT = "Seven kettles on the harbor wall, and a lantern beyond the meadow."


class Client:
    """A client on msgpack."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.told: list[dict[str, Any]] = []

    async def send(self, type: str, **fields: Any) -> None:
        await self._socket.send(msgpack.packb({"type": type, **fields}))

    async def until(self, type: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                self.told.append(msgpack.unpackb(await self._socket.recv()))
                if self.told[-1]["type"] == type:
                    return self.told[-1]

    def of(self, type: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["type"] == type]


@asynccontextmanager
async def client(url: str, query: str = "", subprotocol: str = "parley.msgpack.v1") -> Any:
    async with connect(f"{url.replace('http', 'ws')}/ws{query}", subprotocols=[subprotocol]) as socket:
        yield Client(socket)


async def decoded(codec: Any, audio: list[dict[str, Any]]) -> bytes:
    """What a client makes of its messages: the voice is in the first."""
    embedding = audio[0]["embedding"]
    return b"".join([await codec.decode(from_wire({"embedding": embedding} | message)) for message in audio])


def spoken(pcm: bytes) -> list[int]:
    return [pitch for pitch in heard(pcm) if pitch >= 0]


async def test_a_client_may_have_tokens_and_decode_them_itself() -> None:
    codec, own = fake_codec(), fake_codec()
    async with serving(application(ToneTTS(), codec)) as url, client(url, "?audio=linacodec_tokens") as talk:
        text = f"{TEXT} {prose(60)}"
        await talk.send("say", text=text)
        done = await talk.until("reply.done")
        (told,) = talk.of("reply.audio")
        assert (told["format"], told["rate"]) == ("linacodec_tokens", 48_000)
        audio = talk.of("audio")
        assert len(audio) > 1
        assert [("embedding" in message) for message in audio] == [True] + [False] * (len(audio) - 1)
        assert not any("data" in message for message in audio)
        pcm = await decoded(own, audio)
        assert done["audio_ms"] == pytest.approx(len(pcm) / 96, abs=1)
        starts = [message["start_ms"] for message in audio]
        lengths = [message["num_samples"] / 48 for message in audio]
        assert starts == pytest.approx(np.cumsum([0, *lengths])[:-1], abs=1)
        assert spoken(pcm)[:8] == pitches(text)[:8]
        sent = sum(len(msgpack.packb(message)) for message in audio)
        assert sent < len(pcm) / 60
    await own.stop()


async def test_an_interruption_ends_the_tokens_and_the_history_holds_what_was_heard() -> None:
    codec = fake_codec()
    async with serving(application(ToneTTS(), codec)) as url, client(url, "?audio=linacodec_tokens") as talk:
        await talk.send("say", text=prose(2_000))
        reply = (await talk.until("audio"))["reply"]
        await talk.send("playback", reply=reply, ms=480)
        await talk.send("reply.interrupt")
        cut = await talk.until("reply.interrupted")
        assert 0 < len(cut["heard"].split()) < 10
        await talk.send("ping")
        await talk.until("pong")
        after = talk.told[talk.told.index(cut) :]
        assert not [event for event in after if event["type"] == "audio"]
        await talk.send("history.get")
        history = await talk.until("history")
        assert history["messages"][-1]["text"] == cut["heard"]


@pytest.mark.parametrize(
    ("with_codec", "subprotocol", "says"),
    [(False, "parley.msgpack.v1", "no codec"), (True, "parley.v1", "parley.msgpack.v1")],
)
async def test_tokens_that_cannot_be_had_are_refused(with_codec: bool, subprotocol: str, says: str) -> None:
    codec = fake_codec() if with_codec else None
    async with (
        serving(application(ToneTTS(), codec)) as url,
        connect(f"{url.replace('http', 'ws')}/ws?audio=linacodec_tokens", subprotocols=[subprotocol]) as socket,
    ):
        frame = await socket.recv()
        assert says.encode() in (frame if isinstance(frame, bytes) else frame.encode())
        await socket.wait_closed()
        assert socket.close_code == 1008


async def test_a_codec_that_fails_ends_the_reply_and_the_conversation_goes_on() -> None:
    network = FakeNetwork()
    codec = fake_codec(network)

    def broken(samples: Any) -> Any:
        raise RuntimeError("device lost")

    async with serving(application(ToneTTS(), codec)) as url, client(url, "?audio=linacodec_tokens") as talk:
        network.encode = broken  # type: ignore[method-assign]
        await talk.send("say", text=TEXT)
        error = await talk.until("error")
        assert (error["code"], error["fatal"]) == ("codec_failed", False)
        del network.encode  # type: ignore[attr-defined]
        await talk.send("say", text=TEXT)
        await talk.until("reply.done")
        assert talk.of("audio")


async def test_a_conversation_is_voiced_elsewhere_over_tokens() -> None:
    far, near, tts = fake_codec(), fake_codec(), ToneTTS()
    async with parley(tts, far) as back:
        engine = load("tts", "remote", {"url": back})
        app = application(engine, near)
        async with serving(app) as url, client(url) as talk:
            await talk.send("session.update", output_rate=48_000)
            await talk.send("say", text=TEXT)
            await talk.until("reply.done")
            pcm = b"".join(message["data"] for message in talk.of("audio"))
            assert spoken(pcm) == pitches(TEXT)
            assert near.worker.decoded >= 1

            # cut in: the voice elsewhere stops
            tts.delay = 0.05
            await talk.send("say", text=prose(6_000))
            await talk.until("audio")
            await talk.send("reply.interrupt")
            await talk.until("reply.interrupted")
            await until(lambda: tts.open_now == 0)

            # the back end fails: the reply is lost, the conversation is not
            await talk.send("say", text="Then EXPLODE now.")
            error = await talk.until("error")
            assert (error["code"], error["fatal"]) == ("upstream_failed", False)
            tts.delay = 0.0
            await talk.send("say", text="All is well.")
            await talk.until("reply.done")
    await far.stop()


async def test_tokens_and_pcm_say_the_same_beside_each_other() -> None:
    codec, own = fake_codec(), fake_codec()
    app = application(ToneTTS(), codec)
    async with serving(app) as url, client(url, "?audio=linacodec_tokens") as tokens, client(url) as plain:
        for talk in (tokens, plain):
            await talk.send("session.update", output_rate=48_000)
            await talk.send("say", text=TEXT)
        await asyncio.gather(tokens.until("reply.done"), plain.until("reply.done"))
        pcm = b"".join(message["data"] for message in plain.of("audio"))
        assert spoken(pcm) == pitches(TEXT)
        assert len(await decoded(own, tokens.of("audio"))) == len(pcm)
    await own.stop()
