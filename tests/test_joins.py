"""Segment boundaries: no sample repeated, none lost, no click. Properties on made-up sound, seams on real speech."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import EngineUnavailable
from server.pipelines.engines import Voice
from server.pipelines.joins import Joiner, Seams, correlation, crossfade, fade_out, silence_after, slip

RATE = 16_000
PLAIN = Seams(overlap_ms=0, fade_ms=0, lead_ms=1e9, pause_ms=1e9)  # joins that change nothing
TEXTS = ["Ask not what your country can do for you,", "ask what you can do for your country.", "Sixty fat cats sat."]


def pcm(wave: np.ndarray) -> bytes:
    return np.clip(np.rint(wave), -32768, 32767).astype("<i2").tobytes()


def wave(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(float)


def tone(ms: float, hz: float = 220, level: float = 8000, phase: float = 0.0) -> bytes:
    return pcm(level * np.sin(2 * np.pi * hz * np.arange(int(RATE * ms / 1000)) / RATE + phase))


def silence(ms: float) -> bytes:
    return bytes(int(RATE * ms / 1000) * 2)


def joined(segments: list[bytes], seams: Seams | None = None, piece: int = 1280) -> bytes:
    joiner, out = Joiner(RATE, seams), b""
    for number, segment in enumerate(segments):
        for at in range(0, len(segment), piece):
            out += joiner.push(segment[at : at + piece])
        if number < len(segments) - 1:
            out += joiner.cut()
    out += joiner.finish()
    assert len(out) == joiner.made
    return out


@pytest.fixture(scope="module")
def speech() -> list[bytes]:
    """Three segments of real speech, as an engine gives them: with silence before and after."""
    from server.pipelines.tts.flite import create

    async def speak() -> list[bytes]:
        engine = create()
        await engine.start()
        made = []
        for text in TEXTS:
            async with aclosing(engine.open(Voice()).speak(text)) as pieces:
                made.append(b"".join([piece.pcm async for piece in pieces]))
        await engine.stop()
        return made

    try:
        return asyncio.run(speak())
    except EngineUnavailable as error:
        pytest.skip(str(error))


# crossfades


def test_a_sound_crossfaded_with_itself_is_unchanged() -> None:
    assert crossfade(tone(20), tone(20)) == tone(20)
    assert crossfade(silence(20), silence(20)) == silence(20)


def test_like_sounds_keep_their_amplitude_and_unlike_ones_their_power() -> None:
    noise = np.random.default_rng(1).normal(0, 3000, (2, 16_000))
    power = wave(crossfade(pcm(noise[0]), pcm(noise[1])))
    middle = np.sqrt((power[6000:10_000] ** 2).mean())
    assert 2800 < middle < 3200  # linear weights would dip to 2100
    alike = wave(crossfade(tone(1000), tone(1000, level=7000)))
    assert np.abs(alike).max() <= 8000  # equal power would swell to 10 600


def test_a_crossfade_begins_as_the_old_and_ends_as_the_new() -> None:
    mixed = wave(crossfade(tone(20, 200), tone(20, 310, phase=1)))
    assert abs(mixed[0] - wave(tone(20, 200))[0]) < 100
    assert abs(mixed[-1] - wave(tone(20, 310, phase=1))[-1]) < 100


def test_fade_out_ends_in_exactly_zero_and_starts_at_full_level() -> None:
    faded = wave(fade_out(tone(20, phase=1.5)))
    assert faded[-1] == 0
    assert abs(faded[0] - wave(tone(20, phase=1.5))[0]) < 10
    assert fade_out(b"") == b""


def test_correlation_of_a_constant_is_no_number_of_its_own() -> None:
    assert correlation(np.zeros(10), np.arange(10.0)) == 0


@given(st.integers(-20, 20))
def test_the_slip_of_a_second_rendering_is_found(lag: int) -> None:
    noise = pcm(np.random.default_rng(3).normal(0, 3000, 1200))
    old = noise[100 * 2 : 900 * 2]
    new = noise[(100 - lag) * 2 : (900 - lag) * 2]
    assert slip(old, new, 24) == lag


def test_unrelated_sounds_have_no_slip() -> None:
    noise = np.random.default_rng(4).normal(0, 3000, (2, 800))
    assert slip(pcm(noise[0]), pcm(noise[1]), 24) == 0


# the joiner


@given(st.lists(st.binary(max_size=4000).map(lambda b: b[: len(b) // 2 * 2]), max_size=8))
@settings(deadline=None)
def test_without_trimming_what_goes_in_comes_out_however_it_is_cut(pieces: list[bytes]) -> None:
    joiner = Joiner(RATE, PLAIN)
    out = b"".join(joiner.push(piece) for piece in pieces) + joiner.finish()
    assert out == b"".join(pieces)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=6), st.integers(100, 3000))
@settings(deadline=None)
def test_segments_lose_nothing_but_their_overlaps(lengths: list[int], piece: int) -> None:
    rng = np.random.default_rng(sum(lengths))
    segments = [pcm(rng.normal(0, 3000, n)) for n in lengths]
    out = joined(segments, Seams(overlap_ms=10), piece * 2)
    assert len(out) // 2 == sum(lengths) - lost(lengths, int(RATE * 0.010))


def lost(lengths: list[int], overlap: int) -> int:
    """Samples that sound together with others: at each seam `overlap`, or all of what is there."""
    total, gone = 0, 0
    for n in lengths:
        shared = min(overlap, n, total)
        gone += shared
        total += n - shared
    return gone


@pytest.mark.parametrize("overlap_ms", [0, 12, 40, 80])
def test_pieces_that_render_their_context_again_make_the_original(speech: list[bytes], overlap_ms: float) -> None:
    original = b"".join(speech)
    joiner, out, again = Joiner(RATE, replace(PLAIN, overlap_ms=overlap_ms)), b"", 640
    for at in range(0, len(original), 4096):
        context = min(again, at // 2)
        out += joiner.push(original[at - 2 * context : at + 4096], context)
    assert out + joiner.finish() == original


def test_context_rendered_a_little_late_or_early_is_laid_where_it_belongs(speech: list[bytes]) -> None:
    original = speech[0]
    joiner, out = Joiner(RATE, Seams(overlap_ms=40, fade_ms=0, lead_ms=1e9, pause_ms=1e9)), b""
    offsets = [0, 9, -7, 15, -12, 4]
    for number, at in enumerate(range(0, len(original), 4096)):
        context, late = min(640, at // 2), offsets[number % 6]
        begin = max(at - 2 * context - 2 * late, 0)
        out += joiner.push(original[begin : at + 4096], context)
    out += joiner.finish()
    difference = np.abs(wave(out) - wave(original)[: len(out) // 2])
    assert len(out) == len(original)
    assert difference.max() <= 1


def test_only_the_end_is_faded(speech: list[bytes]) -> None:
    out = joined([speech[0]], Seams(lead_ms=1e9, pause_ms=1e9, fade_ms=20))
    body = len(out) - int(RATE * 0.020) * 2
    assert out[:body] == speech[0][:body]
    assert out[-2:] == b"\0\0"


def test_silence_between_segments_is_cut_to_the_pause() -> None:
    segments = [tone(300) + silence(400), silence(350) + tone(300)]
    out = joined(segments, Seams(overlap_ms=10, pause_ms=120, lead_ms=25))
    loud = np.flatnonzero(np.abs(wave(out)) > 33)
    gap = np.diff(loud).max() / RATE * 1000
    assert 120 + 25 - 10 - 10 <= gap <= 120 + 25 + 10


def test_a_pause_within_a_segment_stays_as_it_is() -> None:
    segment = tone(300) + silence(2000) + tone(300)
    out = joined([segment], Seams(lead_ms=1e9, fade_ms=0))
    assert out == segment


def test_at_most_the_hold_of_a_silence_is_kept_back() -> None:
    joiner = Joiner(RATE, Seams(hold_ms=600))
    given_out = len(joiner.push(tone(300)))
    for _ in range(50):
        given_out += len(joiner.push(silence(100)))
        assert joiner.made - given_out <= (600 + 20) / 1000 * RATE * 2 + 2


def test_words_can_be_placed_by_the_origin_of_their_segment() -> None:
    """`origin` says where a segment's first sample would lie; sound found there proves it."""
    joiner, out = Joiner(RATE, Seams(overlap_ms=10, lead_ms=25, pause_ms=50)), b""
    out += joiner.push(silence(100) + tone(200) + silence(300))
    first = joiner.origin
    out += joiner.cut()
    assert joiner.origin == first  # of the segment that just ended
    out += joiner.push(silence(200))
    assert joiner.origin is None  # not known before it sounds
    out += joiner.push(tone(200) + silence(300))
    second = joiner.origin
    out += joiner.finish()
    assert first is not None
    assert second is not None
    heard = np.abs(wave(out)) > 500
    for origin, lead in ((first, 100), (second, 200)):
        onset = origin // 2 + int(RATE * lead / 1000)
        assert heard[onset : onset + 40].any()
        assert not heard[onset - 200 : onset - 2].any()


def test_an_empty_stream_ends_empty() -> None:
    assert Joiner(RATE).finish() == b""
    joiner = Joiner(RATE)
    assert joiner.cut() + joiner.cut() + joiner.finish() == b""


def test_a_segment_of_pure_silence_is_no_trouble() -> None:
    out = joined([tone(200), silence(3000), tone(200)], Seams(pause_ms=100))
    assert len(out) < (200 + 100 + 3000 + 200) / 1000 * RATE * 2


# clicks


def steps(data: bytes) -> np.ndarray:
    return np.abs(np.diff(wave(data)))


def seam_places(speech: list[bytes], seams: Seams) -> list[int]:
    """Samples in the joined stream where one segment takes over from another, and its end."""
    joiner, places = Joiner(RATE, seams), []
    for segment in speech:
        if joiner.made:
            joiner.cut()
            places.append(joiner.made // 2)
        joiner.push(segment)
    joiner.finish()
    return [*places, joiner.made // 2]


def shaken(segments: list[bytes], seams: Seams) -> list[float]:
    """At every seam, the largest step against the largest that speech itself makes there: 1 is unheard."""
    out, places = joined(segments, seams), seam_places(segments, seams)
    jumps, width, found = steps(out), int(RATE * 0.012), []
    for place, old, new in zip(places, segments, segments[1:], strict=False):
        within = jumps[place - width - 1 : place + 2].max()
        own = max(steps(old)[-2 * width - 320 :].max(), steps(new)[: 2 * width + 320].max())
        loudness = max(np.abs(wave(old)[-width:]).max(), np.abs(wave(new)[:width]).max())
        found.append(float(within / (own * 2**0.5 + loudness * np.pi / width)))
    return found


@pytest.mark.parametrize("cut_ms", [0, 37, 121, 333])
def test_no_seam_clicks_even_where_speech_is_cut_in_the_middle_of_a_vowel(speech: list[bytes], cut_ms: int) -> None:
    """The step from sample to sample at a seam is no larger than what speech makes around it."""
    bytes_cut = int(RATE * cut_ms / 1000) * 2
    segments = [segment[8000 : len(segment) - 8000 - bytes_cut] for segment in speech] if cut_ms else speech
    assert len(shaken(segments, Seams())) == 2
    assert max(shaken(segments, Seams())) <= 1


def test_butting_speech_together_does_click(speech: list[bytes]) -> None:
    """So that the test above can fail."""
    high, low = int(wave(speech[0]).argmax()) * 2, int(wave(speech[1]).argmin()) * 2
    ends = [speech[0][: high + 2], speech[1][low:]]
    assert max(shaken(ends, PLAIN)) > 2
    assert max(shaken(ends, replace(PLAIN, overlap_ms=12))) <= 1


def test_the_end_of_speech_cut_off_is_faded_not_clicked(speech: list[bytes]) -> None:
    middle = speech[0][: len(speech[0]) // 2]
    out = joined([middle])
    assert abs(wave(middle)[-1]) > 100  # it was cut where it sounds
    assert wave(out)[-1] == 0
    assert steps(out)[-320:].max() <= steps(middle).max()


def test_trailing_silence_is_found_to_the_window(speech: list[bytes]) -> None:
    assert silence_after(tone(100) + silence(200), RATE, 33) == pytest.approx(len(silence(200)), abs=2 * 80)
    assert silence_after(tone(100, phase=1), RATE, 33) == 0
