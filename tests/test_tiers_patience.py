"""How long is waited for a service, on the virtual clock; and what of it is forwarded."""

import asyncio
from contextlib import aclosing

import pytest

from server.audio import Resampler
from server.errors import UpstreamError
from server.pipelines.tiers.chunks import Audio
from server.pipelines.tiers.relay import Relay, Wanted
from server.pipelines.tiers.services import Service, TierRules
from tests.fake_codec import tone
from tests.virtual_time import run


class Slow:
    """A back end whose chunks come after so many seconds each."""

    def __init__(self, *waits: float) -> None:
        self.waits, self.closed = waits, False

    def check(self, request): ...

    async def audio(self, request):
        try:
            for wait in self.waits:
                await asyncio.sleep(wait)
                yield Audio(bytes(9_600), 48_000)
        finally:
            self.closed = True


def listen(back, pause=0.0, stream=True, **rules):
    """What a listener gets who takes `pause` seconds over each piece: pieces, error, seconds."""
    relay = Relay(TierRules(services={"local": Service(kind="local")}, **rules), None, None, back)

    async def go():
        pieces, error = 0, None
        begin = asyncio.get_running_loop().time()
        try:
            async with aclosing(relay.pcm(Wanted("Hi.", "a", "local", stream))) as heard:
                async for pcm in heard:
                    pieces += bool(pcm)
                    await asyncio.sleep(pause)
        except UpstreamError as raised:
            error = raised
        return pieces, error, asyncio.get_running_loop().time() - begin

    return run(go())


def test_a_long_chunk_is_heard_second_by_second_and_without_a_seam():
    sound = tone(330, 4.5, 22_050)

    class Long(Slow):
        async def audio(self, request):
            yield Audio(sound, 22_050)

    relay = Relay(TierRules(services={"local": Service(kind="local")}), None, None, Long())

    async def go():
        async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
            return [pcm async for pcm in stream]

    pieces = asyncio.run(go())
    assert len(pieces) >= 5
    assert max(map(len, pieces)) <= 2 * 96_000
    whole = Resampler(22_050, 48_000)
    assert b"".join(pieces) == whole.push(sound) + whole.push(b"", last=True)


def test_a_rate_that_changes_on_the_way_loses_not_one_sample():
    class Changing(Slow):
        async def audio(self, request):
            for rate in (24_000, 48_000, 24_000, 16_000):
                yield Audio(tone(300, 0.5, rate), rate)

    relay = Relay(TierRules(services={"local": Service(kind="local")}), None, None, Changing())

    async def go():
        async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
            return b"".join([pcm async for pcm in stream])

    assert len(asyncio.run(go())) == 4 * 48_000


def test_chunks_in_time_are_heard():
    assert listen(Slow(4, 4, 4))[:2] == (3, None)


def test_a_chunk_that_takes_too_long_ends_it():
    back = Slow(1, 6)
    pieces, error, seconds = listen(back)
    assert (pieces, error.code, error.status) == (1, "upstream_timeout", 504)
    assert "no chunk came after 5 s" in str(error)
    assert seconds == pytest.approx(6)
    assert back.closed


def test_all_of_it_has_a_limit_too():
    pieces, error, seconds = listen(Slow(*[4] * 20))
    assert (pieces, error.code) == (7, "upstream_timeout")
    assert seconds == pytest.approx(30, abs=0.1)
    assert "not complete" in str(error)


def test_a_listener_who_reads_slowly_is_not_cut_off():
    pieces, error, seconds = listen(Slow(*[1] * 20), pause=10)
    assert (pieces, error) == (20, None)
    assert seconds > 190


def test_a_batch_has_only_the_limit_of_all_of_it():
    assert listen(Slow(12, 12), stream=False)[:2] == (2, None)
    pieces, error, _ = listen(Slow(12, 12, 12), stream=False)
    assert (pieces, error.code) == (2, "upstream_timeout")


def test_a_first_chunk_may_have_its_own_limit():
    service = Service(kind="local", first_timeout_s=20)
    relay = Relay(TierRules(services={"local": service}), None, None, Slow(15, 1))

    async def go():
        async with aclosing(relay.pcm(Wanted("Hi.", "a", "local"))) as stream:
            return [pcm async for pcm in stream if pcm]

    assert len(run(go())) == 2
