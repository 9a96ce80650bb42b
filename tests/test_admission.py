"""Who may use an engine, and when: the queue's order, its bounds, and that no place is ever lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import EngineBusy
from server.pipelines.admission import Admission, Listener, Need
from tests.virtual_time import run


async def speak(admission: Admission, log: list[str], name: str, client: str, pieces: int = 1, ms: float = 100) -> None:
    """A stream of `pieces`, each taking 0.1 s of the engine and giving the listener `ms`."""
    async with admission.stream(client) as stream:
        for _ in range(pieces):
            async with stream.turn():
                await asyncio.sleep(0.1)
            stream.sent(ms)
            log.append(name)


def test_a_listener_is_ahead_by_what_was_sent_and_has_not_sounded() -> None:
    listener = Listener()
    assert listener.ahead_ms(5) == 0
    listener.sent(1000, now=5.0)
    listener.sent(500, now=5.2)
    assert listener.ahead_ms(5.2) == pytest.approx(1300)
    assert listener.ahead_ms(9) == 0
    listener.sent(100, now=9.0)  # after running dry it plays on from now
    assert listener.ahead_ms(9.05) == pytest.approx(50)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5000)), max_size=20))
def test_a_listener_is_never_ahead_of_what_was_sent(steps: list[tuple[float, float]]) -> None:
    listener, now = Listener(), 0.0
    for wait, ms in steps:
        now += wait
        listener.sent(ms, now)
        assert -1e-6 <= listener.ahead_ms(now) <= listener.sent_ms + 1e-6


def test_as_many_at_once_as_the_engine_carries_and_no_more() -> None:
    async def scene() -> None:
        admission, most = Admission(3), 0

        async def one() -> None:
            nonlocal most
            async with admission.stream() as stream, stream.turn():
                most = max(most, admission.running)
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(one())
        assert most == 3
        assert admission.running == admission.queued == 0
        assert asyncio.get_running_loop().time() == pytest.approx(0.4)

    run(scene())


def test_a_stream_with_nothing_to_play_goes_before_one_that_is_ahead() -> None:
    async def scene() -> list[str]:
        admission, log = Admission(1), []
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(admission, log, "early", "a", pieces=4, ms=2000))
            await asyncio.sleep(0.05)
            group.create_task(speak(admission, log, "late", "b", pieces=1))
        return log

    assert run(scene()) == ["early", "late", "early", "early", "early"]


def test_a_stream_about_to_run_dry_goes_before_a_newcomer() -> None:
    async def scene() -> list[str]:
        admission, log = Admission(1), []
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(admission, log, "live", "a", pieces=4, ms=110))
            await asyncio.sleep(0.05)
            group.create_task(speak(admission, log, "new", "b"))
        return log

    assert run(scene()) == ["live", "live", "live", "live", "new"]


@pytest.mark.parametrize("clients", ["aaa", "abc"])
def test_a_first_sound_that_takes_several_turns_is_finished_before_the_next_is_begun(clients: str) -> None:
    """Else all would be heard as late as the last."""

    async def scene() -> list[str]:
        admission, log = Admission(1), []

        async def first(name: str, client: str) -> None:
            async with admission.stream(client) as stream:
                for _ in range(3):  # the engine begins with silence
                    async with stream.turn():
                        await asyncio.sleep(0.1)
                stream.sent(300)
                log.append(f"{name} {asyncio.get_running_loop().time():.1f}")

        async with asyncio.TaskGroup() as group:
            for name, client in zip("123", clients, strict=True):
                group.create_task(first(name, client))
        return log

    assert run(scene()) == ["1 0.3", "2 0.6", "3 0.9"]


def test_among_those_ahead_the_one_with_least_goes_first() -> None:
    async def scene() -> list[str]:
        admission, log = Admission(1), []
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(admission, log, "far", "a", pieces=2, ms=9000))
            group.create_task(speak(admission, log, "near", "b", pieces=2, ms=900))
        return log

    assert run(scene()) == ["far", "near", "near", "far"]


def test_a_client_with_many_requests_does_not_keep_another_waiting() -> None:
    async def scene() -> list[str]:
        admission, log = Admission(1), []
        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(speak(admission, log, f"greedy{number}", "greedy"))
            await asyncio.sleep(0.05)
            group.create_task(speak(admission, log, "modest", "modest"))
        return log

    assert run(scene()) == ["greedy0", "modest", "greedy1", "greedy2", "greedy3", "greedy4"]


def test_beyond_the_queue_a_stream_is_refused_and_told_when_to_come_back() -> None:
    async def scene() -> None:
        admission, log = Admission(1, waiting=2), []
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(speak(admission, log, str(number), str(number)))
            await asyncio.sleep(0)
            with pytest.raises(EngineBusy) as refused:
                await speak(admission, log, "one too many", "x")
            assert refused.value.retry_after >= 1
        assert log == ["0", "1", "2"]
        assert admission.refused == 1
        await speak(admission, log, "later", "x")  # and is welcome again

    run(scene())


def test_waiting_has_an_end() -> None:
    async def scene() -> None:
        admission = Admission(1, patience_s=10)
        async with admission.stream() as hog, hog.turn():
            with pytest.raises(EngineBusy):
                await speak(admission, [], "patient", "b")
            assert asyncio.get_running_loop().time() == pytest.approx(10)
            assert admission.queued == 0
        await speak(admission, [], "next", "c")

    run(scene())


def test_a_stream_once_admitted_is_never_refused() -> None:
    async def scene() -> None:
        admission, log = Admission(1, waiting=0, patience_s=0.01), []
        async with admission.stream("a") as first, admission.stream("b") as second:
            async with first.turn():
                pass
            async with second.turn():
                waiting = asyncio.ensure_future(first.turn().__aenter__())
                await asyncio.sleep(60)
                assert not waiting.done()
            await waiting
            log.append("in")
        assert log == ["in"]

    run(scene())


def test_new_words_to_a_listener_who_heard_everything_wait_like_a_first_audio() -> None:
    async def scene() -> None:
        admission = Admission(1)
        async with admission.stream() as stream:
            stream.sent(1000)
            await asyncio.sleep(0.9)
            stream.begin()
            assert stream.need(admission.clock()) is Need.DUE
            await asyncio.sleep(1)
            stream.begin()
            assert stream.need(admission.clock()) is Need.FIRST

    run(scene())


@pytest.mark.parametrize("moment", ["waiting", "just let in"])
def test_cancelling_a_waiting_stream_leaves_its_place_to_the_next(moment: str) -> None:
    async def scene() -> list[str]:
        admission, log = Admission(1), []
        async with AsyncExitStack() as hold:
            stream = await hold.enter_async_context(admission.stream("a"))
            await hold.enter_async_context(stream.turn())
            leaver = asyncio.create_task(speak(admission, log, "leaver", "b"))
            await asyncio.sleep(0.05)
            stayer = asyncio.create_task(speak(admission, log, "stayer", "c"))
            await asyncio.sleep(0.05)
            if moment == "waiting":
                leaver.cancel()
                await asyncio.wait([leaver])
        await asyncio.sleep(0)
        leaver.cancel()  # in the other case its place has been given to it, and it has not run since
        await asyncio.wait([leaver, stayer])
        assert leaver.cancelled()
        assert admission.running == admission.queued == 0
        return log

    assert run(scene()) == ["stayer"]


def test_an_engine_that_fails_gives_its_place_back() -> None:
    async def scene() -> None:
        admission = Admission(1)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                async with admission.stream() as stream, stream.turn():
                    raise ValueError("broken")
        assert admission.running == 0

    run(scene())


def test_nothing_is_remembered_of_clients_that_left() -> None:
    async def scene() -> None:
        admission = Admission(2, waiting=50)
        await asyncio.gather(*(speak(admission, [], str(n), f"client{n}") for n in range(50)))
        assert not admission._served
        assert not admission._open

    run(scene())


def test_streams_that_have_left_take_no_places() -> None:
    async def scene() -> None:
        admission, log = Admission(2, at_once=1, waiting=0), []
        for number in range(5):
            await speak(admission, log, str(number), "a")
        async with asyncio.TaskGroup() as group, admission.stream("a") as first, first.turn():
            group.create_task(speak(admission, log, "welcome", "b"))  # one of two is here
            await asyncio.sleep(1)
        assert log[-1] == "welcome"
        assert admission.refused == 0

    run(scene())


async def realtime(admission: Admission, streams: int, factor: float) -> AsyncIterator[float]:
    """Pauses heard, in ms, over `streams` streams of 40 pieces, each 400 ms long and made in 400 / `factor` ms."""
    pauses = []

    async def one(client: str) -> None:
        dry = 0.0
        async with admission.stream(client) as stream:
            for number in range(40):
                async with stream.turn():
                    await asyncio.sleep(0.4 / factor)
                now = admission.clock()
                if number and now > dry:
                    pauses.append((now - dry) * 1000)
                dry = max(dry, now) + 0.4
                stream.sent(400)

    async with asyncio.TaskGroup() as group:
        for number in range(streams):
            group.create_task(one(str(number)))
    for pause in pauses:
        yield pause


def test_streams_within_the_engine_s_capacity_never_run_dry_whatever_their_order() -> None:
    async def scene() -> list[float]:
        return [pause async for pause in realtime(Admission(1), streams=4, factor=5)]

    assert run(scene()) == []


def test_who_has_plenty_keeps_off_while_another_makes_its_first_sound() -> None:
    async def scene() -> list[str]:
        admission, log = Admission(8), []
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(admission, log, "rich", "a", pieces=3, ms=5000))
            await asyncio.sleep(0.05)
            group.create_task(speak(admission, log, "new", "b"))  # until 0.15, though "rich" could go on at 0.1
        return log

    assert run(scene()) == ["rich", "new", "rich", "rich"]


def test_who_keeps_off_goes_on_before_the_listener_runs_dry() -> None:
    async def scene() -> list[tuple[str, float]]:
        admission, log = Admission(3), []

        async def polite(name: str, ahead_ms: float) -> None:
            async with admission.stream(name) as stream:
                stream.sent(ahead_ms)
                async with stream.turn():
                    log.append((name, round(asyncio.get_running_loop().time(), 1)))

        async with asyncio.TaskGroup() as group, admission.stream("slow") as slow, slow.turn():
            group.create_task(polite("richer", 3_000))
            group.create_task(polite("rich", 1_800))
            await asyncio.sleep(5)  # its first sound takes so long
        return log

    assert run(scene()) == [("rich", 1.0), ("richer", 2.2)]


def test_fewer_turns_at_a_time_refuse_nobody_whom_the_engine_carries() -> None:
    async def scene() -> None:
        admission, log, most = Admission(6, at_once=2, waiting=1), [], 0

        async def watch() -> None:
            nonlocal most
            for _ in range(40):
                most = max(most, admission.running)
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            for number in range(7):
                group.create_task(speak(admission, log, str(number), str(number)))
        assert most == 2
        assert len(log) == 7
        assert admission.refused == 0

    run(scene())
