"""The clients of the chunked model and of the conversation against real servers, and on a line that drops."""

import asyncio
from contextlib import aclosing

import pytest
from websockets.asyncio.server import ServerConnection, serve

from server import events as e
from server.clients import Answers, ConnectionLost, Conversation, Refused
from server.clients.answers import FIRST, SENTENCE, Pause
from server.clients.conversation import read
from server.clients.link import Link
from tests.fakes import FakeLLM, words
from tests.line import ASK, TEXT, parley, services
from tests.services import until

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
        with pytest.raises(Refused, match="No slots available") as refused:
            async for _ in third.chunk():
                pass
        assert (refused.value.code, refused.value.retry_after) == ("no_slots", 1)
        async with asyncio.timeout(1):
            assert [delta async for delta in third.chunk()] == []
            assert (await third.end()).requests == 0
        assert set(answers._open) == {answer.id for answer in kept}
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


async def test_an_answer_that_could_not_be_asked_for_leaves_nothing_behind() -> None:
    async with services() as (line, _), Answers(f"ws://127.0.0.1:{line.port}/ws/llm", attempts=1) as answers:
        line.away = True
        line.cut()
        await asyncio.sleep(0.05)
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await answers.start(ASK)
        assert not answers._open


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
        await talk.send("session.update", instructions="Whisper.", output_rate=8_000)
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
        async for event in talk:
            if isinstance(event, e.SessionUpdated):
                break
        assert event.output_rate == 8_000  # asked for again
        await talk.send("history.get")
        async for event in talk:
            if isinstance(event, e.History):
                break
        assert "Remember me?" in str(event.messages)


async def test_what_was_set_piece_by_piece_holds_after_the_line_dropped() -> None:
    async with parley() as line, Conversation(f"ws://127.0.0.1:{line.port}/ws") as talk:
        await talk.send("session.update", turn={"mode": "manual"}, characters=["ada", "finn"])
        await talk.send("session.update", turn={"silence_ms": 300}, character="finn")
        updated: list[e.SessionUpdated] = []
        async for event in talk:
            if isinstance(event, e.SessionUpdated):
                updated.append(event)
                if len(updated) == 3:
                    break
                if len(updated) == 2:
                    line.cut()
    assert updated[2].turn == updated[1].turn == updated[0].turn | {"silence_ms": 300}
    assert updated[2].characters == updated[1].characters == updated[0].characters[1:]


@pytest.mark.parametrize(
    ("close", "reason", "code", "message"),
    [
        (1008, "who are you", "refused", "who are you"),
        (1009, "", "refused", "closed with 1009"),
        (1013, "full", "busy", "full"),
        (1013, "", "busy", "closed with 1013"),
    ],
)
async def test_a_server_that_closes_for_a_reason_has_refused(close: int, reason: str, code: str, message: str) -> None:
    async def serve_nobody(socket: ServerConnection) -> None:
        await socket.close(close, reason)

    async with serve(serve_nobody, "127.0.0.1", 0) as server, asyncio.timeout(5):
        link = Link(lambda: f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(Refused) as refused:
            await link.receive()
        await link.close()
    assert (refused.value.code, str(refused.value)) == (code, message)


@pytest.mark.parametrize(("close", "told"), [(1011, r"\(1011 oops\)"), (1012, r"\(1012 oops\)")])
async def test_a_server_that_fails_is_a_lost_connection(close: int, told: str) -> None:
    async def fail(socket: ServerConnection) -> None:
        await socket.close(close, "oops")

    async with serve(fail, "127.0.0.1", 0) as server, asyncio.timeout(5):
        link = Link(lambda: f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ConnectionLost, match=told):
            await link.receive()
        assert not link.open


async def test_a_server_that_restarts_is_waited_for() -> None:
    began: list[float] = []

    async def restarts(socket: ServerConnection) -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) < 3:  # the old one, that still listens
            await socket.send('{"type": "error", "code": "restart", "message": "in a moment", "fatal": true}')
            return await socket.close(1012)
        await socket.send('{"type": "pong"}')
        return await socket.wait_closed()

    async with serve(restarts, "127.0.0.1", 0) as server, asyncio.timeout(5):
        port = next(iter(server.sockets)).getsockname()[1]
        async with Conversation(f"ws://127.0.0.1:{port}/ws") as talk:
            assert await anext(talk) == e.Pong()
    assert began[2] - began[1] > 0.09  # and not asked over and over


async def test_a_conversation_that_was_refused_can_be_asked_for_again() -> None:
    async with parley(sessions=1) as line, Conversation(f"ws://127.0.0.1:{line.port}/ws", greet="") as first:
        await anext(first)
        async with Conversation(f"ws://127.0.0.1:{line.port}/ws") as talk:
            with pytest.raises(Refused) as refused:
                await anext(talk)
            assert (refused.value.code, refused.value.retry_after) == ("full", 5)
            await first.__aexit__()
            while (told := await _told(talk)) == "full":
                pass
            assert told == "session.created"  # and not the close of a connection that is over


async def _told(talk: Conversation) -> str:
    """What kind of event comes next, or the code we are refused with."""
    try:
        return (await anext(talk)).type
    except Refused as refused:
        return refused.code


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
