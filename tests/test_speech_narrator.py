"""Texts read one after the other by the real engines: seamless, whole, with words where they sound."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
import pytest

from server.audio import milliseconds
from server.errors import ConfigError
from server.pipelines import narrator
from server.pipelines.engines import Speech, Voice
from server.pipelines.narrator import DEFAULT, PORTION, PRESETS, Chunks, Narrator, pause_after, plain, sentences_of
from server.pipelines.sentences import Splitter
from server.pipelines.studio import CUSTOMARY, Studio
from server.pipelines.tts import espeak, flite

TEXT = "Good evening. Dr. Smith paid 3.14 dollars, “for it”. Was it worth it?"


@pytest.fixture(params=["espeak", "flite"])
async def studio(request: pytest.FixtureRequest) -> AsyncIterator[Studio]:
    engine = {"espeak": espeak, "flite": flite}[request.param].create()
    await engine.start()
    yield Studio({request.param: engine})
    await engine.stop()


async def read(narrator: Narrator, text: str) -> list[Speech]:
    async with aclosing(narrator.say(text)) as pieces:
        return [piece async for piece in pieces]


def pcm(pieces: list[Speech]) -> bytes:
    return b"".join(piece.pcm for piece in pieces)


async def test_every_word_of_every_text_is_told_once_and_sounds_where_it_is_told(studio: Studio) -> None:
    async with studio.narrator(*studio.find()) as narrator:
        first, second = await read(narrator, TEXT), await read(narrator, "And then home.")
        whole = pcm(first) + pcm(second) + narrator.finish().pcm
    words = [word for piece in first for word in piece.words]
    assert [TEXT[w.start : w.end].strip(".,“”?") for w in words] == [
        "Good", "evening", "Dr", "Smith", "paid", "3.14", "dollars", "for", "it", "Was", "it", "worth", "it",
    ]  # fmt: skip
    words += [word for piece in second for word in piece.words]
    assert all(a.start_ms < a.end_ms <= b.start_ms + 12.1 for a, b in itertools.pairwise(words))
    assert milliseconds(whole, narrator.rate) == pytest.approx(narrator.made_ms)
    sound = np.abs(np.frombuffer(whole, "<i2").astype(float))
    for word in words:
        begin, end = (int(ms * narrator.rate / 1000) for ms in (word.start_ms, word.end_ms))
        assert sound[begin:end].max() > 500
    assert words[-1].end_ms <= narrator.made_ms + 1


async def test_sentences_are_parted_by_a_pause_that_is_short(studio: Studio) -> None:
    async with studio.narrator(*studio.find()) as narrator:
        whole = pcm(await read(narrator, "One. Two. Three.")) + narrator.finish().pcm
    loud = np.flatnonzero(np.abs(np.frombuffer(whole, "<i2").astype(int)) > 200)
    assert 60 < np.diff(loud).max() / narrator.rate * 1000 < 450
    assert loud[0] / narrator.rate < 0.06  # nobody waits for silence
    assert whole[-2:] == b"\0\0"


async def test_another_rate_sounds_as_long(studio: Studio) -> None:
    lengths = {}
    for rate in (8_000, 24_000, 48_000):
        async with studio.narrator(*studio.find(), rate=rate) as narrator:
            whole = pcm(await read(narrator, TEXT)) + narrator.finish().pcm
            lengths[rate] = milliseconds(whole, rate)
            assert narrator.rate == rate
    # No engine is the same every time: flite's hiss may or may not pass for silence, and a pause be trimmed or not.
    assert max(lengths.values()) - min(lengths.values()) < 250


async def test_text_with_nothing_to_say_makes_nothing(studio: Studio) -> None:
    async with studio.narrator(*studio.find()) as narrator:
        assert [await read(narrator, text) for text in ("", "   ", "🎉🎉", "...")] == [[], [], [], []]
        assert narrator.finish().pcm == b""
        assert await read(narrator, "Now.")


async def test_stopping_in_the_middle_frees_the_engine(studio: Studio) -> None:
    admission = studio.default.admission
    async with studio.narrator(*studio.find()) as narrator:
        async with aclosing(narrator.say("word " * 300)) as pieces:
            await anext(pieces)
        assert admission.running == 0
    async with studio.narrator(*studio.find()) as narrator, asyncio.timeout(5):
        assert await read(narrator, "Next.")


async def test_a_reader_that_dawdles_holds_no_place(studio: Studio) -> None:
    async with studio.narrator(*studio.find()) as narrator, aclosing(narrator.say(TEXT)) as pieces:
        async for _ in pieces:
            assert studio.default.admission.running == 0


async def test_every_customary_voice_speaks(studio: Studio) -> None:
    for name in CUSTOMARY:
        async with studio.narrator(*studio.find(name.upper())) as narrator:
            assert await read(narrator, "Hi.")


async def test_unknown_voices_and_languages_are_named(studio: Studio) -> None:
    with pytest.raises(ConfigError, match=r"Unknown voice 'Nobody'. Available: \[.*'aria'"):
        studio.find("Nobody")
    with pytest.raises(ConfigError, match=r"Unknown language 'xx'. Available: \["):
        studio.find("aria", language="xx")


async def test_a_cast_is_found_by_name_and_keeps_its_voice(studio: Studio) -> None:
    other = flite.create()
    cast = {"Mira": Voice(name="awb", engine="flite", speed=1.1)}
    company = Studio({"espeak": studio.default.engine, "flite": other}, cast)
    booth, voice = company.find("mira", speed=1.3, instructions="softly", language="en")
    assert booth.engine is other
    assert (voice.name, voice.speed, voice.instructions) == ("awb", 1.3, "softly")
    assert company.find("slt", model="flite")[0].engine is other
    assert company.find("aria", model="tts-1")[0].name == "espeak"
    assert {"mira", "aria"} <= {entry["id"] for entry in company.catalogue()}


def test_what_a_client_leaves_empty_is_the_characters_own() -> None:
    mira = Voice(name="awb", speed=1.1, language="de", instructions="softly")
    company = Studio({"instant": Instant()}, {"mira": mira})  # type: ignore[dict-item]
    assert company.find("mira", language="", speed=None, instructions="")[1] == mira


def test_plain_text_is_as_long_as_it_was() -> None:
    text = "“It’s fine” — she said 🎉 twice"
    assert plain(text) == '"It\'s fine" - she said   twice'
    assert len(plain(text)) == len(text)


def test_sentences_stand_at_their_offsets() -> None:
    text = "  One.  Dr. Two and 3.14!\nThree"
    assert list(sentences_of(text)) == [(2, "One."), (8, "Dr. Two and 3.14!"), (26, "Three")]


def test_a_long_text_is_looked_at_a_portion_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever reads half an hour of text keeps nobody waiting; and what is found is the same."""
    seen = []

    class Watched(Splitter):
        def push(self, delta: str) -> list[str]:
            seen.append(len(delta))
            return super().push(delta)

    monkeypatch.setattr(narrator, "Splitter", Watched)
    text = "It was late, and Dr. Two paid 3.14 for it. Nobody spoke! " * 1_000
    found = sentences_of(text)
    assert next(found) == (0, "It was late, and Dr. Two paid 3.14 for it.")
    assert sum(seen) <= PORTION
    rest = list(found)
    assert len(rest) == 1_999
    assert all(text[at:].startswith(sentence) for at, sentence in rest)
    assert max(seen) <= PORTION


def test_the_pause_follows_the_mark() -> None:
    assert pause_after('the end."') > pause_after("first,") > pause_after("and so")


@pytest.mark.parametrize("preset", [*PRESETS.values(), DEFAULT])
def test_chunks_are_of_the_sizes_asked_for(preset: object) -> None:
    chunks = Chunks.of(preset, 22_050)  # type: ignore[arg-type]
    got = [*chunks.push(bytes(100_001)), *chunks.push(bytes(99_999)), *chunks.flush()]
    assert sum(map(len, got)) == 200_000
    assert len(got[0]) == preset.first * 1024 * 2  # type: ignore[attr-defined]
    assert {len(c) for c in got[1:-1]} == {preset.later * 1024 * 2}  # type: ignore[attr-defined]
    assert chunks.flush() == []


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("Good evening, and welcome to the news. Next.", ["Good evening,", "and welcome to the news.", "Next."]),
        ("Well, that is, as they say, that.", ["Well, that is,", "as they say, that."]),
        ("Dr. Smith, who paid 1,000 dollars, left.", ["Dr. Smith,", "who paid 1,000 dollars, left."]),
        ("No clause here. Next, then.", ["No clause here.", "Next, then."]),
        ("Only this, ...", ["Only this, ..."]),
        ("He paid 3.50, and left, too.", ["He paid 3.50,", "and left, too."]),
        ("One. Two words, then three.", ["One.", "Two words, then three."]),
        ("", []),
    ],
)
def test_in_a_hurry_the_first_clause_stands_alone(text: str, cut: list[str]) -> None:
    found = list(sentences_of(text, eager=True))
    assert [sentence for _, sentence in found] == cut
    assert all(text[at : at + len(sentence)] == sentence for at, sentence in found)


async def test_hurry_is_only_for_a_listener_who_hears_nothing(studio: Studio) -> None:
    said: list[str] = []
    async with studio.narrator(*studio.find()) as narrator:
        speak = narrator._speaker.speak
        narrator._speaker.speak = lambda text: said.append(text) or speak(text)  # type: ignore[method-assign]
        for _ in range(2):
            async with aclosing(narrator.say("Good evening, dear friends of ours.", eager=True)) as pieces:
                assert [piece async for piece in pieces]
    assert said == ["Good evening,", "dear friends of ours.", "Good evening, dear friends of ours."]


async def test_a_listener_who_has_heard_everything_hears_nothing_again(studio: Studio) -> None:
    async with studio.narrator(*studio.find()) as narrator:
        await read(narrator, "Good evening.")
        listener = narrator._stream.listener
        assert await read(narrator, "Go on.")
        assert narrator._stream.listener is listener
        listener.dry_at = 0.0  # all of it has sounded
        assert await read(narrator, "And now this.")
        assert narrator._stream.listener is not listener


class Instant:
    """An engine all of whose pieces are there at once."""

    rate, streams = 16_000, 1

    def open(self, voice: Voice) -> "Instant":
        return self

    def voices(self) -> list[str]:
        return []

    async def speak(self, text: str) -> AsyncIterator[Speech]:
        for _ in range(500):
            yield Speech(b"\x10\x10" * 1_600)

    async def close(self) -> None: ...


async def test_an_engine_far_ahead_lets_others_run() -> None:
    company = Studio({"instant": Instant()})  # type: ignore[dict-item]
    async with company.narrator(*company.find()) as narrator:
        reading, steps = asyncio.ensure_future(read(narrator, "So.")), 0
        while not reading.done():
            await asyncio.sleep(0)
            steps += 1
    assert steps >= 500
