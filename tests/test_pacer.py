"""The pacer on the virtual clock."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest

from server.pipelines.pacer import Pacer
from tests.virtual_time import run


def paced(body: Callable[[Pacer, Callable[[], float]], Awaitable[None]], lead: float = 300) -> None:
    async def main() -> None:
        clock = asyncio.get_running_loop().time
        await body(Pacer(lead, clock), clock)

    run(main())


async def sent_within(pacer: Pacer, seconds: float) -> float:
    """How much has left when as much as possible was sent for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                await pacer.wait(20)
    return pacer.sent_ms


def test_most_of_the_lead_leaves_at_once_and_then_real_time():
    async def body(pacer, clock):
        times = []
        for _ in range(50):
            await pacer.wait(20)
            times.append(clock())
        assert times[9] == 0  # 200 of 300 ms
        assert times[10] == pytest.approx(0.02, abs=0.001)
        assert times[49] == pytest.approx((50 - 10) * 0.02, abs=0.001)

    paced(body)


def test_a_short_lead_leaves_something_ahead_of_the_listener_all_the_same():
    async def body(pacer, clock):
        for _ in range(20):
            await pacer.wait(20)
            assert 40 <= pacer.sent_ms - clock() * 1000 <= 100 or pacer.sent_ms == 20

    paced(body, lead=100)


@pytest.mark.parametrize("age", [0.0, 0.05, 0.1])
def test_a_listener_who_acknowledges_now_and_then_is_served_evenly(age: float):
    async def body(pacer, clock):
        async def listener() -> None:
            while True:
                await asyncio.sleep(0.05)
                pacer.played(max(0.0, min(pacer.sent_ms, (clock() - age) * 1000)))

        playing = asyncio.create_task(listener())
        times = []
        for _ in range(200):
            await pacer.wait(20)
            times.append(clock())
        playing.cancel()
        gaps = [two - one for one, two in pairwise(times)]
        assert max(gaps[:30]) <= 0.06 + age  # once, when it is learnt how far away the listener is
        assert max(gaps[30:]) <= 0.06

    paced(body)


def test_the_lead_is_never_passed_whatever_the_listener_says():
    async def body(pacer, clock):
        chance, acked, said = random.Random(7), 0.0, False
        for _ in range(600):
            waiting = asyncio.ensure_future(pacer.wait(20))
            while not waiting.done():
                await asyncio.sleep(0.01)
                if chance.random() < 0.1:
                    acked = min(pacer.sent_ms, acked + chance.uniform(0, 40))
                    pacer.played(acked)
                    said = True
            if said:
                assert pacer.sent_ms <= acked + 300

    paced(body)


def test_a_listener_who_never_tells_is_served_on_after_a_pause():
    async def body(pacer, clock):
        for _ in range(20):
            await pacer.wait(20)
        pacer.pause()
        await asyncio.sleep(1)
        pacer.resume()
        resumed = clock()
        for _ in range(20):
            await pacer.wait(20)
        assert clock() - resumed == pytest.approx(0.4, abs=0.05)

    paced(body)


def test_lateness_does_not_add_up():
    async def body(pacer, clock):
        for _ in range(100):
            await pacer.wait(20)
            await asyncio.sleep(0.005)  # the way out takes its time
        assert clock() == pytest.approx(100 * 0.02 - 0.2, abs=0.03)

    paced(body)


def test_an_underrun_begins_anew():
    async def body(pacer, clock):
        await pacer.wait(100)
        await asyncio.sleep(5)
        assert pacer.heard_ms() == 100
        await pacer.wait(100)
        await asyncio.sleep(0.05)
        assert pacer.heard_ms() == pytest.approx(150)

    paced(body)


def test_nothing_is_heard_while_paused():
    async def body(pacer, clock):
        await pacer.wait(200)
        await asyncio.sleep(0.1)
        pacer.pause()
        await asyncio.sleep(10)
        assert pacer.heard_ms() == pytest.approx(100)
        waiting = asyncio.ensure_future(pacer.wait(20))
        await asyncio.sleep(1)
        assert not waiting.done()
        pacer.resume()
        await waiting
        await asyncio.sleep(0.05)
        assert pacer.heard_ms() == pytest.approx(150)

    paced(body)


def test_the_listeners_word_counts_more_than_the_clock():
    async def body(pacer, clock):
        await pacer.wait(300)
        await asyncio.sleep(0.2)
        pacer.played(50)
        assert pacer.heard_ms() == 50
        before = clock()
        await pacer.wait(40)
        assert clock() - before == pytest.approx(0.09, abs=0.001)

    paced(body)


def test_a_listener_who_stalls_is_not_sent_more():
    async def body(pacer, clock):
        for at in range(10):
            await pacer.wait(20)
            pacer.played(at * 20)
        assert await sent_within(pacer, 2.5) == 180 + 300  # no acknowledgement any more

    paced(body)


def test_the_silence_of_a_pause_is_no_reason_to_distrust_the_listener():
    async def body(pacer, clock):
        await pacer.wait(200)
        pacer.played(100)
        pacer.pause()
        await asyncio.sleep(60)
        pacer.resume()
        assert await sent_within(pacer, 5) == 100 + 300

    paced(body)


def test_heard_out_has_patience_with_a_pause():
    async def body(pacer, clock):
        await pacer.wait(300)
        over = asyncio.ensure_future(pacer.heard_out(patience_s=1))
        await asyncio.sleep(0)  # it looks first
        await asyncio.sleep(0.1)
        pacer.pause()
        await asyncio.sleep(10)
        assert not over.done()
        pacer.resume()
        await over
        assert clock() == pytest.approx(10.3, abs=0.02)

    paced(body)


def test_a_listener_who_claims_too_much_is_taken_at_what_was_sent():
    async def body(pacer, clock):
        await pacer.wait(100)
        pacer.played(60_000)
        assert await sent_within(pacer, 2.5) == 100 + 300

    paced(body)


def test_one_who_never_says_a_word_again_goes_by_the_clock():
    async def body(pacer, clock):
        await pacer.wait(20)
        pacer.played(5)
        async with asyncio.timeout(20):
            for _ in range(100):
                await pacer.wait(20)

    paced(body)


def test_heard_out_ends_when_all_has_sounded():
    async def body(pacer, clock):
        await pacer.wait(250)
        await pacer.heard_out()
        assert clock() == pytest.approx(0.25, abs=0.01)

    paced(body)


def test_heard_out_gives_up_on_a_listener_who_stopped():
    async def body(pacer, clock):
        await pacer.wait(5_000)
        pacer.played(100)
        await pacer.heard_out(patience_s=1)
        assert clock() < 3

    paced(body)


def test_nobody_hears_more_than_was_sent():
    async def body(pacer, clock):
        await pacer.wait(100)
        pacer.played(5_000)
        assert pacer.heard_ms() == 100

    paced(body)
