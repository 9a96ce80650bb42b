"""The synthesisers that run in process: espeak-ng and flite, each by its real library."""

import asyncio
import itertools
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from server.audio import milliseconds
from server.errors import ConfigError, EngineUnavailable, TTSError
from server.pipelines.engines import TTS, Speech, Voice, Word
from server.pipelines.loading import load
from server.pipelines.tts import _libespeak, _libflite, espeak, flite
from server.pipelines.tts._pieces import pieces
from server.pipelines.tts._words import Words
from tests.spoken import spoken

try:
    _libflite.library()
    NEED_FLITE = pytest.mark.skipif(False, reason="")
except EngineUnavailable as error:
    NEED_FLITE = pytest.mark.skipif(True, reason=str(error))
ENGINES = ["espeak", pytest.param("flite", marks=NEED_FLITE)]


@pytest.fixture(params=ENGINES)
async def tts(request: pytest.FixtureRequest) -> AsyncIterator[TTS]:
    engine: TTS = load("tts", request.param, {"workers": 1})
    await engine.start()
    yield engine
    await engine.stop()


def cut(text: str, words: list[Word]) -> list[str]:
    return [text[w.start : w.end] for w in words]


def loudness(pcm: bytes) -> float:
    return float(np.frombuffer(pcm, "<i2").astype(float).std())


async def test_it_speaks(tts: TTS) -> None:
    pcm, words = await spoken(tts.open(Voice()), "Hello there, how are you today?")
    assert 1200 < milliseconds(pcm, tts.rate) < 3500
    assert loudness(pcm) > 500
    assert words


async def test_words_are_timed_and_lie_where_they_are_in_the_text(tts: TTS) -> None:
    text = 'Hello, "Bob"! I paid $3.50 for it (once).'
    pcm, words = await spoken(tts.open(Voice()), text)
    assert [re.sub(r"\W", "", w) for w in cut(text, words)] == ["Hello", "Bob", "I", "paid", "350", "for", "it", "once"]
    assert all(w.start_ms < w.end_ms for w in words)
    assert all(a.end <= b.start and a.end_ms <= b.start_ms + 0.01 for a, b in itertools.pairwise(words))
    assert words[-1].end_ms <= milliseconds(pcm, tts.rate) + 0.01


async def test_a_word_sounds_when_its_timing_says(tts: TTS) -> None:
    """The pause before it is quiet, the word is not."""
    text = "One. Banana."
    pcm, words = await spoken(tts.open(Voice()), text)
    assert cut(text, words) == ["One", "Banana"]
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(float))

    def level(from_ms: float, to_ms: float) -> float:
        return float(samples[int(from_ms * tts.rate / 1000) : int(to_ms * tts.rate / 1000)].mean())

    begin = words[1].start_ms
    assert level(begin, begin + 250) > 5 * level(begin - 60, begin - 10)


async def test_a_long_text_is_one_utterance(tts: TTS) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 25
    pcm, words = await spoken(tts.open(Voice()), text)
    assert " ".join(cut(text, words)) == text.replace(".", "").strip()
    assert all(a.end <= b.start and a.end_ms <= b.start_ms + 0.01 for a, b in itertools.pairwise(words))
    assert abs(words[-1].end_ms - milliseconds(pcm, tts.rate)) < 1000


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "😀", "👨‍👩‍👧 🎉!", "—", "\n", "***"])
async def test_what_cannot_be_spoken_is_silence(tts: TTS, text: str) -> None:
    assert await spoken(tts.open(Voice()), text) == (b"", [])


async def test_accents_and_emoji_do_not_move_the_words(tts: TTS) -> None:
    text = "Café 😀 costs — naïve — “five” euros…"
    _, words = await spoken(tts.open(Voice()), text)
    assert cut(text, words) == ["Café", "costs", "naïve", "five", "euros"]


@pytest.mark.parametrize(
    "text", ["\x00one", "a" * 5000, "!" * 3000 + "one", "9" * 700, "日本語のテキスト one", "<speak>&one;"]
)
async def test_strange_texts_do_no_harm(tts: TTS, text: str) -> None:
    speaker = tts.open(Voice())
    async with aclosing(speaker.speak(text)) as speech:
        assert (await anext(speech)).pcm
    pcm, _ = await spoken(speaker, "Hello.")
    assert milliseconds(pcm, tts.rate) > 300


async def test_a_faster_voice_is_faster(tts: TTS) -> None:
    slow, _ = await spoken(tts.open(Voice(speed=0.8)), "The quick brown fox jumps over the lazy dog.")
    fast, _ = await spoken(tts.open(Voice(speed=1.6)), "The quick brown fox jumps over the lazy dog.")
    assert 1.5 < len(slow) / len(fast) < 2.5


async def test_an_unknown_voice_is_refused_with_the_names_of_those_there_are(tts: TTS) -> None:
    with pytest.raises(ConfigError) as told:
        tts.open(Voice(name="darth"))
    assert all(name in str(told.value) for name in ["darth", *list(tts.voices())[:3]])


async def test_an_option_that_makes_no_sense_is_refused_by_name(tts: TTS) -> None:
    with pytest.raises(ConfigError, match="pitch = 'high' is not a number"):
        tts.open(Voice(options={"pitch": "high"}))


async def test_closing_the_stream_frees_the_engine_for_the_next(tts: TTS) -> None:
    speaker = tts.open(Voice())
    whole, _ = await spoken(speaker, "Hello there.")
    for _ in range(5):
        async with aclosing(speaker.speak("This will never be said to its end. " * 100)) as speech:
            await anext(speech)
        again, _ = await spoken(speaker, "Hello there.")
        assert abs(len(again) - len(whole)) < 0.05 * len(whole)


async def test_a_listener_who_pauses_keeps_nobody_waiting(tts: TTS) -> None:
    """One worker, one listener who takes a single piece of a long text and then nothing."""
    async with aclosing(tts.open(Voice()).speak("And so on and so forth. " * 200)) as paused:
        await anext(paused)
        pcm, _ = await asyncio.wait_for(spoken(tts.open(Voice()), "I am not affected."), 10)
        assert milliseconds(pcm, tts.rate) > 500


async def test_voices_speak_at_once_without_mixing() -> None:
    engine: TTS = load("tts", "espeak", {"workers": 2})
    await engine.start()
    text = "The quick brown fox jumps over the lazy dog."
    speakers = [
        engine.open(Voice(options={"rate": rate, "variant": v})) for rate in (100, 200, 400) for v in ("f3", "m5")
    ]
    alone = [await spoken(s, text) for s in speakers]
    together = await asyncio.gather(*(spoken(s, text) for s in speakers * 5))
    for (pcm, words), (expected, expected_words) in zip(together, alone * 5, strict=True):
        assert abs(len(pcm) - len(expected)) < 0.02 * len(expected)
        assert np.allclose([w.start_ms for w in words], [w.start_ms for w in expected_words], atol=30)
    await engine.stop()


@NEED_FLITE
async def test_flite_runs_on_several_threads() -> None:
    engine: TTS = load("tts", "flite", {"workers": 4})
    await engine.start()
    jobs = [
        (v, t) for v in ("kal16", "slt") for t in ("Hello there, Bob.", "I paid $3.50 for it!", "Dr. Smith, 10:30 p.m.")
    ]
    alone = [await spoken(engine.open(Voice(name=v)), t) for v, t in jobs]
    together = await asyncio.gather(*(spoken(engine.open(Voice(name=v)), t) for v, t in jobs * 4))
    for (pcm, words), (expected, expected_words), (voice, _) in zip(together, alone * 4, jobs * 4, strict=True):
        assert words == expected_words
        assert len(pcm) == len(expected)
        assert voice != "kal16" or pcm == expected  # the others have random breath in them
    await engine.stop()


@pytest.mark.parametrize("name", ENGINES)
async def test_engines_come_and_go_in_one_process(name: str) -> None:
    one: TTS = load("tts", name, {})
    two: TTS = load("tts", name, {})
    await one.start()
    await two.start()
    stays, goes = two.open(Voice()), one.open(Voice())
    assert (await spoken(goes, "Hello."))[0]
    await one.stop()
    await one.stop()  # twice does no harm
    with pytest.raises(TTSError, match="not started"):
        await spoken(goes, "Hello.")
    assert (await spoken(stays, "Hello."))[0]
    await one.start()
    assert (await spoken(goes, "Hello."))[0]
    await one.stop()
    await two.stop()


@pytest.mark.parametrize("voice", [Voice(name="EN-US"), Voice(name="en-gb"), Voice(name="English (America)")])
async def test_espeak_knows_a_language_by_all_its_names(voice: Voice) -> None:
    assert load("tts", "espeak", {}).open(voice)


async def test_espeak_variants_change_the_voice() -> None:
    engine: TTS = load("tts", "espeak", {})
    await engine.start()
    text = "Every character has a voice of its own."
    plain, _ = await spoken(engine.open(Voice()), text)
    for options in ({"variant": "f3"}, {"variant": "croak"}, {"pitch": 90}, {"pitch_range": 99}, {"volume": 20}):
        other, _ = await spoken(engine.open(Voice(options=options)), text)
        shorter = min(len(plain), len(other)) // 2
        a, b = (np.frombuffer(x, "<i2")[:shorter].astype(float) for x in (plain, other))
        assert np.abs(a - b).mean() > 0.2 * np.abs(a).mean(), options
    with pytest.raises(ConfigError, match="f5"):
        engine.open(Voice(options={"variant": "x9"}))
    await engine.stop()


async def test_espeak_speaks_the_character_s_language() -> None:
    engine: TTS = load("tts", "espeak", {})
    await engine.start()
    english, _ = await spoken(engine.open(Voice()), "Nachtigall")
    german, _ = await spoken(engine.open(Voice(language="de")), "Nachtigall")
    assert german != english
    text = "今天天气很好"
    _, words = await spoken(engine.open(Voice(language="zh")), text)
    assert "".join(cut(text, words)) == text
    assert len(words) > 3
    await engine.stop()


def test_espeak_s_configured_voice_is_that_of_characters_that_name_no_language() -> None:
    def voice(configured: str, asked: Voice) -> str:
        return str(load("tts", "espeak", {"voice": configured})._manner(asked).voice)

    assert voice("de", Voice()) == voice("en-us", Voice(language="de")) == "gmw/de"
    assert voice("de", Voice(options={"variant": "f3"})) == "gmw/de+f3"
    assert voice("de+f3", Voice(language="de")) == "gmw/de+f3"
    assert voice("de", Voice(language="en")) == "gmw/en"
    assert voice("en-us", Voice(language="en")) == voice("en-us", Voice()) == "gmw/en-US"
    assert voice("de", Voice(name="fr")) == "roa/fr"


class Taker:
    """Takes so many pieces and then wants no more."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken: list[bytes] = []

    def __call__(self, speech: Speech) -> bool:
        self.taken.append(speech.pcm)
        return len(self.taken) < self.most


def test_espeak_stops_at_the_next_callback(tmp_path: Path) -> None:
    copy = _libespeak.Copy(tmp_path / "library")
    copy.load()
    manner = _libespeak.Manner("gmw/en-US")
    copy.say("This is a long sentence that nobody will hear to its end. " * 20, manner, first := Taker(2))
    copy.say("Hello.", manner, second := Taker(1000))
    assert len(first.taken) == 2
    assert len(b"".join(second.taken)) > 10_000
    copy.close()


def test_espeak_is_set_up_anew_only_for_another_manner(tmp_path: Path) -> None:
    """Every call into the library gives up the interpreter's lock, and has to get it back."""
    copy, chosen = _libespeak.Copy(tmp_path / "library"), list[bytes]()
    copy.load()
    choose = copy._library.espeak_SetVoiceByName
    copy._library.espeak_SetVoiceByName = lambda name: chosen.append(name) or choose(name)

    def length(manner: _libespeak.Manner) -> int:
        copy.say("Good evening to you.", manner, taker := Taker(1000))
        return len(b"".join(taker.taken))

    slow, fast = (_libespeak.Manner("gmw/en-US", rate=rate) for rate in (120, 300))
    lengths = [length(manner) for manner in (slow, fast, fast)]
    with pytest.raises(TTSError, match="nobody"):
        length(_libespeak.Manner("nobody"))
    lengths += [length(manner) for manner in (fast, slow)]
    copy.close()
    assert chosen == [b"gmw/en-US", b"gmw/en-US", b"nobody", b"gmw/en-US", b"gmw/en-US"]
    assert lengths == pytest.approx([lengths[0], *[lengths[1]] * 3, lengths[0]], rel=0.02)
    assert lengths[0] > 1.5 * lengths[1]


@NEED_FLITE
@pytest.mark.parametrize("voice", flite.NAMES)
def test_flite_stops_at_the_next_callback(voice: str) -> None:
    flite.say("Nobody will hear this to its end.", flite.Manner(voice), first := Taker(2))
    flite.say("Hello.", flite.Manner(voice), second := Taker(1000))
    assert len(first.taken) == 2
    assert len(b"".join(second.taken)) > 10_000


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(EngineUnavailable, match=r"libflite_nobody.*apt-get install libflite1"):
        _libflite._open("flite_nobody")


async def test_espeak_says_where_its_library_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "libespeak-ng.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(_libespeak.espeakng_loader, "get_library_path", lambda: str(broken))
    engine = espeak.create()
    with pytest.raises(EngineUnavailable, match="espeakng-loader"):
        await engine.start()


async def test_espeak_leaves_no_files_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    engine = espeak.create()
    await engine.start()
    await engine.stop()
    assert not os.listdir(tmp_path)


class TestWords:
    def test_several_events_of_one_word_are_one(self) -> None:
        words = Words("pays $3.50 now")
        got = [words.begin(at, ms) for at, ms in [(0, 0), (5, 100), (6, 200), (7, 300), (7, 400), (11, 500)]]
        assert sum(got, ()) + words.finish(600) == (Word(0, 4, 0, 100), Word(5, 10, 100, 500), Word(11, 14, 500, 600))

    def test_a_word_without_an_event_belongs_to_the_one_before(self) -> None:
        words = Words("out of the box")
        words.begin(0, 0)
        assert words.begin(11, 300) == (Word(0, 10, 0, 300),)

    def test_events_that_go_back_are_ignored(self) -> None:
        words = Words("one two three")
        words.begin(4, 100)
        assert words.begin(0, 150) == ()
        assert words.begin(8, 200) == (Word(4, 7, 100, 200),)

    def test_punctuation_is_no_word(self) -> None:
        words = Words('"Hi," — he said.')
        assert words.begin(1, 0) + words.begin(9, 50) + words.begin(12, 90) == (Word(1, 3, 0, 50), Word(8, 10, 50, 90))

    def test_no_event_no_word(self) -> None:
        assert Words("one").finish(10) == ()

    @pytest.mark.parametrize(
        ("text", "positions", "told"),
        [
            ("- one two", [0, 6], ["one", "two"]),
            ("one - two", [0, 4], ["one", "two"]),
            ("one, - two", [0, 5], ["one", "two"]),
            ("one two -", [0, 4, 8], ["one", "two"]),
        ],
    )
    def test_a_dash_that_stands_alone_is_where_the_word_behind_it_begins(self, text, positions, told):
        words = Words(text)
        ended = [word for n, at in enumerate(positions) for word in words.begin(at, 100 * n)]
        ended += words.finish(900)
        assert [text[word.start : word.end] for word in ended] == told
        assert [word.start_ms for word in ended] == [0, 100]


class TestPieces:
    def test_a_short_text_stays_whole(self) -> None:
        assert pieces("One. Two. Three.", 100) == [(0, "One. Two. Three.")]

    def test_nothing_is_lost_and_offsets_hold(self) -> None:
        text = "One two, three four. Five six seven; eight! " * 30 + "x" * 300 + " 12345678901234567890 😀😀😀😀"
        for limit in (10, 37, 100):
            cut_ = pieces(text, limit)
            assert "".join(piece for _, piece in cut_) == text
            assert all(text.startswith(piece, at) for at, piece in cut_)

    def test_it_cuts_after_a_sentence_else_a_clause_else_a_word_else_anywhere(self) -> None:
        assert [p for _, p in pieces("One two. Three, four.", 14)] == ["One two. ", "Three, four."]
        assert [p for _, p in pieces("One two, three four", 14)] == ["One two, ", "three four"]
        assert [p for _, p in pieces("One two three four", 14)] == ["One two three ", "four"]
        assert [p for _, p in pieces("x" * 20, 14)] == ["x" * 14, "x" * 6]

    def test_what_takes_long_to_say_makes_shorter_pieces(self) -> None:
        assert len(pieces("9" * 100, 60)[0][1]) == 10
        assert len(pieces("😀" * 100, 60)[0][1]) == 5
