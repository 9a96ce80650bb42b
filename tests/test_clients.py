"""The clients of the voices against real servers: what they give, and what happens when the line drops."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from server.clients import ConnectionLost, HTTPSpeech, Refused, Speech
from server.clients.speech import Cancelled, Complete, Created, Done, Failed, Lost, Words
from tests.fakes import FakeTTS, words
from tests.line import services
from tests.services import until

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


async def test_what_is_not_said_is_not_missed_when_the_line_drops() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        for text in ("\U0001f44d", "one two", "word " * 100):
            await speech.say(text)
        async for event in speech:
            if isinstance(event, Complete):
                line.cut()
            if isinstance(event, Lost):
                break
    assert event == Lost(("word " * 100,))


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


async def until_complete(speech: Speech) -> list[object]:
    """Everything but audio, up to the end of a text."""
    told: list[object] = []
    while not (told and isinstance(told[-1], Complete)):
        if not isinstance(event := await anext(speech), bytes):
            told.append(event)
    return told


async def test_a_loss_while_nobody_reads_is_told_to_the_next_who_does() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        await speech.say("one")
        await until_complete(speech)
        await speech.say("two")
        line.cut()
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionLost):
            await speech.say("three")
        await speech.say("four")
        told = await until_complete(speech)
        assert told[0] == Lost(("two", "three"))
        assert isinstance(told[1], Created)


async def test_a_cancel_on_a_lost_line_is_silence_and_no_failure() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        await speech.say("word " * 50)
        await anext(speech)
        line.cut()
        await asyncio.sleep(0.1)
        await speech.cancel()
        await speech.say("next")
        told = await until_complete(speech)
        assert told[0] == Lost(())
        assert not any(isinstance(event, Cancelled) for event in told)


async def test_another_voice_asked_for_on_a_lost_line_is_that_of_the_next() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        await speech.say("one")
        await until_complete(speech)
        line.cut()
        await asyncio.sleep(0.1)
        await speech.close()
        await speech.use(sample_rate=8_000)
        await speech.say("two")
        told = await until_complete(speech)
        assert told[0] == Lost(())
        assert isinstance(told[1], Created)
        assert told[1].sample_rate == 8_000
        assert not any(isinstance(event, Done) for event in told)


async def test_what_is_unsaid_is_kept_count_of_through_failures_and_changes_of_voice() -> None:
    async with services() as (line, _), Speech(f"ws://127.0.0.1:{line.port}/ws/tts/stream") as speech:
        await speech.say("EXPLODE")
        while not isinstance(await anext(speech), Failed):
            pass
        await speech.say("one")
        await until_complete(speech)
        await speech.say("two")
        await speech.close()
        await speech.say("never, since another voice is asked for")
        await speech.use(voice="aria")
        await speech.say("three " * 50)
        await until_complete(speech)
        line.cut()
        while not isinstance(event := await anext(speech), Lost):
            pass
        assert event.unsaid == ("three " * 50,)


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
                assert isinstance(event := await anext(speech), Lost)  # on a new connection, without further ado
                assert event.unsaid == ("hello",)
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
