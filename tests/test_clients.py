"""The Python clients against real servers: what they give, and what happens when the line drops."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from server import events as e
from server.app import create_app
from server.clients import Answers, ConnectionLost, Conversation, HTTPSpeech, Refused, Speech
from server.clients.answers import FIRST, SENTENCE, Pause
from server.clients.conversation import read
from server.clients.speech import Cancelled, Complete, Created, Done, Failed, Lost, Words
from server.http import adaptive
from server.http import speech as speech_http
from server.pipelines.studio import Studio
from server.serve import Server, build
from server.settings import ServerSettings
from server.settings import read as read_settings
from server.ws import chunked_llm
from server.ws import speech as speech_ws
from tests import fakes
from tests.fakes import FakeLLM, FakeTTS, words
from tests.services import serving, until

TEXT = "Good evening to you. It is late. Sleep well."
ASK = [{"role": "user", "content": "Hello?"}]


class Line:
    """A TCP relay before a server, so that connections can be cut and the server can seem to be away."""

    def __init__(self, port: int) -> None:
        self._port, self.port, self.away = port, 0, False
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Line":
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.away:
            return writer.transport.abort()
        far_reader, far = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, far}
        await asyncio.gather(_pump(reader, far), _pump(far_reader, writer))
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


@asynccontextmanager
async def services(
    tts: FakeTTS | None = None, llm: FakeLLM | None = None, **options: object
) -> AsyncIterator[tuple[Line, Studio]]:
    studio = Studio({"fake": tts or FakeTTS(speed=10)}, waiting=1)
    routes = [
        *speech_http.routes(studio), *adaptive.routes(studio), *speech_ws.routes(studio),
        *chunked_llm.routes(llm or FakeLLM(TEXT), slots=2),
    ]  # fmt: skip
    async with serving(routes) as url, Line(int(url.rpartition(":")[2])) as line, asyncio.timeout(20):
        yield line, studio


@asynccontextmanager
async def parley(**server: object) -> AsyncIterator[Line]:
    settings = read_settings().model_copy(update={"server": ServerSettings(port=0, **server)})  # type: ignore[arg-type]
    running: Server = build(settings, create_app(settings, fakes.rack(llm=FakeLLM("Well hello there. How are you?"))))
    running.config.load()
    running.lifespan = running.config.lifespan_class(running.config)
    await running.startup()
    try:
        async with Line(running.port) as line, asyncio.timeout(20):
            yield line
    finally:
        await running.shutdown()


# speech


async def test_speech_says_what_it_is_given_and_tells_when_each_word_sounds() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream", words=True) as speech:
        await speech.say("one two")
        await speech.say("three")
        await speech.close()
        events = []
        async for event in speech:
            events.append(event)
            if isinstance(event, Done):
                break
    kinds = [type(event) for event in events if not isinstance(event, bytes)]
    assert kinds[0] is Created
    assert kinds[-1] is Done
    assert kinds.count(Complete) == 2
    assert words(b"".join(event for event in events if isinstance(event, bytes))) == ["one", "two", "three"]
    told = [word for event in events if isinstance(event, Words) for word in event.words]
    assert [word.word for word in told] == ["one", "two", "three"]
    assert told[0].start_ms < told[1].start_ms < told[2].start_ms


async def test_speech_is_cut_off_and_goes_on() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        await speech.say("word " * 100)
        heard, cancelled = b"", False
        async for event in speech:
            if isinstance(event, bytes) and not heard and not cancelled:
                await speech.cancel()
            if isinstance(event, Cancelled):
                cancelled, heard = True, b""
                await speech.say("next")
                await speech.close()
            elif isinstance(event, bytes):
                heard += event
            elif isinstance(event, Done):
                break
        assert words(heard) == ["next"]


async def test_another_voice_and_a_voice_that_does_not_exist() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        assert isinstance(await anext(speech), Created)
        await speech.use(voice="nobody")
        failed = await anext(speech)
        assert isinstance(failed, Failed)
        assert "nobody" in failed.message
        assert failed.fatal
        await speech.use(voice="aria")
        assert isinstance(await anext(speech), Created)


async def test_a_lost_line_tells_what_was_not_said_and_is_opened_again() -> None:
    async with services(FakeTTS(speed=4)) as (line, studio):
        async with Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream", voice="aria") as speech:
            await speech.say("one two")
            while not isinstance(await anext(speech), Complete):
                pass
            await speech.say("three four five six seven eight nine ten")
            await speech.say("eleven")
            await anext(speech)
            line.cut()
            while not isinstance(event := await anext(speech), Lost):
                pass
            assert event.unsaid == ("three four five six seven eight nine ten", "eleven")
            assert isinstance(await anext(speech), Created)  # in the same voice: it was asked for again
            await speech.say("twelve")
            while not isinstance(await anext(speech), Complete):
                pass
        await until(lambda: studio.default.engine.open_now == 0)  # type: ignore[attr-defined]


async def test_a_server_that_is_away_for_a_moment_is_waited_for_and_one_that_stays_away_is_told() -> None:
    async with services() as (line, _):
        url = f"ws://127.0.0.1:{line.port}/ws/tts/stream"
        line.away = True
        asyncio.get_running_loop().call_later(0.3, setattr, line, "away", False)
        async with Speech(url) as speech:
            assert isinstance(await anext(speech), Created)
        line.away = True
        with pytest.raises(ConnectionLost, match="no connection to"):
            async with Speech(url, attempts=2):
                pass


async def test_a_busy_server_says_when_to_come_back() -> None:
    engine = FakeTTS()
    engine.streams = 1
    async with services(engine) as (line, studio):
        admission = studio.default.admission
        async with admission.stream("x") as hog, hog.turn(), admission.stream("y") as waiting:
            place = asyncio.ensure_future(waiting.turn().__aenter__())
            await until(lambda: admission.queued == 1)
            async with Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
                await speech.say("hello")
                with pytest.raises(Refused) as refused:
                    async for _ in speech:
                        pass
                assert refused.value.code == "engine_busy"
                assert refused.value.retry_after
            async with HTTPSpeech(f"http://127.0.0.1:{line.port}") as http:
                with pytest.raises(Refused) as refused:
                    await http.whole("hello")
                assert (refused.value.code, refused.value.retry_after) == ("engine_busy", 1)
            place.cancel()


# speech over HTTP


async def test_http_speech_whole_in_chunks_and_adaptive() -> None:
    async with services() as (line, _), HTTPSpeech(f"http://127.0.0.1:{line.port}") as http:
        pcm, rate = await http.whole("one two")
        assert (words(pcm), rate) == (["one", "two"], 16_000)
        async with aclosing(http.stream("one two three", preset="aggressive")) as chunks:
            assert words(b"".join([chunk async for chunk in chunks])) == ["one", "two", "three"]
        async with http.adaptive() as stream:
            await stream.append("one two. ")
            await stream.append("three.")
            assert (await stream.status())["state"] == "created"
            await stream.close()
            async with aclosing(stream.audio()) as chunks:
                assert words(b"".join([chunk async for chunk in chunks])) == ["one", "two", "three"]
        async with http.adaptive() as stream:
            await stream.append("one two. three.")
            await stream.close()
            await _told(stream.events(), ["one", "two", "three"])
        await _told(http.events("one two. three."), ["one", "two", "three"])


async def _told(events: AsyncGenerator[bytes | Words, None], expected: list[str]) -> None:
    pcm, told = b"", list[str]()
    async with aclosing(events) as source:
        async for event in source:
            if isinstance(event, Words):
                told += [word.word.strip(".") for word in event.words]
            else:
                pcm += event
    assert words(pcm) == told == expected


async def test_leaving_an_adaptive_stream_cancels_it_and_errors_are_typed() -> None:
    async with services() as (line, studio), HTTPSpeech(f"http://127.0.0.1:{line.port}") as http:
        async with http.adaptive() as stream:
            await stream.append("word " * 100)
            async with aclosing(stream.audio()) as chunks:
                await anext(chunks)
        await until(lambda: studio.default.engine.open_now == 0)  # type: ignore[attr-defined]
        with pytest.raises(Refused, match="not found"):
            await stream.append("more")
        with pytest.raises(Refused, match="Unknown voice"):
            await http.whole("x", voice="nobody")
        async with http.adaptive() as stream:
            line.away = True
            line.cut()
            with pytest.raises(ConnectionLost):
                await stream.append("more")
        with pytest.raises(ConnectionLost):
            await http.whole("x")


# answers


async def test_an_answer_in_chunks() -> None:
    async with services() as (line, _), Answers(f"ws://127.0.0.1:{line.port}/ws/llm") as answers:
        answer = await answers.start(ASK, Pause(max_tokens=2))
        assert "".join([delta async for delta in answer.chunk()]) == "Good evening "
        assert (answer.last.reason, answer.done) == ("max_tokens", False)
        assert "".join([delta async for delta in answer.chunk(SENTENCE)]).strip() == "to you."
        assert answer.last.reason == "sentence_boundary"
        rest = [delta async for delta in answer.flow()]
        assert answer.text.strip() == TEXT
        assert answer.done
        assert rest
        bill = await answer.end()
        assert bill.tokens >= len(TEXT.split())
        assert await answer.end() == bill


async def test_answers_at_the_same_time_and_one_of_them_cancelled() -> None:
    llm = FakeLLM("word " * 200, TEXT, delay=0.02, first=0)
    async with services(llm=llm) as (line, _), Answers(f"ws://127.0.0.1:{line.port}/ws/llm") as answers:
        long = await answers.start(ASK, Pause())
        short = await answers.start(ASK, FIRST)
        async with aclosing(long.chunk()) as deltas:
            await anext(deltas)
        assert "".join([delta async for delta in short.flow()]).strip() == TEXT
        bill = await long.cancel()
        assert long.done
        assert long.text.count("word") == bill.tokens < 60
        assert [delta async for delta in long.chunk()] == []
        await short.end()
        assert llm.open_now == 0


async def test_what_the_server_refuses_is_raised() -> None:
    async with services() as (line, _), Answers(f"ws://127.0.0.1:{line.port}/ws/llm") as answers:
        kept = [await answers.start(ASK, FIRST) for _ in range(2)]
        third = await answers.start(ASK)
        with pytest.raises(Refused, match="No slots available"):
            async for _ in third.chunk():
                pass
        await kept[0].cancel()
        fourth = await answers.start(ASK)
        assert [delta async for delta in fourth.flow()]


async def test_a_lost_line_ends_the_answers_on_it_and_the_next_begins_on_a_new_one() -> None:
    llm = FakeLLM("word " * 200, TEXT, delay=0.02)
    async with services(llm=llm) as (line, _), Answers(f"ws://127.0.0.1:{line.port}/ws/llm") as answers:
        answer = await answers.start(ASK, Pause())
        async with aclosing(answer.chunk()) as deltas:
            await anext(deltas)
            line.cut()
            with pytest.raises(ConnectionLost):
                [delta async for delta in deltas]
        assert answer.text.startswith("word")
        assert answer.done
        await until(lambda: llm.open_now == 0)  # the model has been told to stop
        again = await answers.start(ASK)
        assert "".join([delta async for delta in again.flow()]).strip() == TEXT
        assert (await answer.end()).tokens == 0  # the new connection is not asked about it
        assert (await again.end()).tokens == len(TEXT.split())


# the conversation


async def test_a_typed_turn_is_answered_with_typed_events_and_audio() -> None:
    async with parley() as line, Conversation(f"ws://127.0.0.1:{line.port}/ws") as talk:
        await talk.write("Hello?")
        heard, seen = b"", []
        async for event in talk:
            seen.append(event)
            if isinstance(event, e.Audio):
                assert event.start_ms == pytest.approx(len(heard) / 2 / 16_000 * 1000)
                heard += event.data
            if isinstance(event, e.ReplyDone):
                break
    assert isinstance(seen[0], e.SessionCreated)
    assert talk.session == seen[0].session
    assert words(heard) == ["well", "hello", "there", "how", "are", "you"]


async def test_a_conversation_is_taken_up_again_after_the_line_dropped() -> None:
    async with parley() as line, Conversation(f"ws://127.0.0.1:{line.port}/ws") as talk:
        await talk.send("session.update", instructions="Whisper.")
        await talk.write("Remember me?")
        async for event in talk:
            if isinstance(event, e.ReplyDone):
                break
        line.cut()
        await talk.hear(bytes(640))  # lost, and no error
        async for event in talk:
            if isinstance(event, e.SessionCreated):
                break
        assert event.resumed
        await talk.send("history.get")
        async for event in talk:
            if isinstance(event, e.History):
                break
        assert "Remember me?" in str(event.messages)


async def test_being_turned_away_is_an_exception_with_its_code() -> None:
    async with parley(token="secret") as line:
        url = f"ws://127.0.0.1:{line.port}/ws"
        with pytest.raises(Refused) as refused:
            async with Conversation(url) as talk:
                await anext(talk)
        assert refused.value.code == "unauthorized"
        async with Conversation(url, token="secret") as talk:
            assert isinstance(await anext(talk), e.SessionCreated)


def test_every_event_survives_its_way_over_the_wire() -> None:
    metrics = e.TurnMetrics(3, 4, {"first_token": 5.0})
    for event in (e.ReplyDone(1, "x", 2.0), e.Error("c", "m"), metrics, e.ReplyStarted(1, 2, "ada")):
        assert read(event.body()) == event
    assert read({"type": "of a later version"}) is None
    assert read(e.Pong().body() | {"new": 1}) == e.Pong()
