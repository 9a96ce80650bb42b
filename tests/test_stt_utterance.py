"""What goes to a decoder and when: pieces, segments, a new voice heard twice, a dead decoder, too much to keep."""

import pytest

from server.pipelines.stt._utterance import (
    ACQUAINTANCE,
    BACKLOG,
    CHUNK,
    LATE,
    SECOND,
    SEGMENT,
    Utterance,
    VoiceMean,
    clean,
)


def known() -> VoiceMean:
    return VoiceMean("41,2,3")


class Decoder:
    """Answers the steps of an utterance as a decoder would: its text tells how much it has heard."""

    def __init__(self, utterance: Utterance, wordless: bool = False, word: str = "w") -> None:
        self.utterance = utterance
        self.wordless = wordless
        self.word = word
        self.means: list[str] = []
        self.heard: list[bytes] = []  # audio of each time it began
        self.largest = 0

    def run(self, most: int = 100_000) -> None:
        while most and (step := self.utterance.step()):
            most -= 1
            kind, body = step
            if kind == "begin":
                self.means.append(body.decode())
                self.heard.append(b"")
            elif kind == "audio":
                assert self.utterance.step() is None  # one unanswered piece at a time
                self.heard[-1] += body
                self.largest = max(self.largest, len(body))
                self.utterance.heard(self.text())
            else:
                assert self.utterance.step() is None
                self.utterance.ended("50,6,7", self.text())

    def text(self) -> str:
        return "" if self.wordless else f"{self.word}{len(self.heard[-1]) // SECOND}"


def ramp(length: int, start: int = 0) -> bytes:
    return b"".join(((start + i) % 65536).to_bytes(2, "little") for i in range(length // 2))


def test_every_byte_goes_out_once_in_order_in_small_pieces():
    utterance = Utterance(known())
    decoder = Decoder(utterance)
    audio = ramp(3 * SECOND)
    for i in range(0, len(audio), 640):
        utterance.push(audio[i : i + 640])
        decoder.run()
    assert utterance.settled
    utterance.end()
    decoder.run()
    assert decoder.heard == [audio]
    assert decoder.means == ["41,2,3"]
    assert decoder.largest <= CHUNK
    assert utterance.result == "w3"


def test_what_waited_is_caught_up_in_pieces():
    utterance = Utterance(known())
    utterance.push(ramp(10 * SECOND))
    utterance.end()
    decoder = Decoder(utterance)
    decoder.run(1)
    assert utterance.result is None
    decoder.run()
    assert decoder.largest == CHUNK
    assert utterance.result == "w10"


def test_a_new_voice_is_heard_twice_and_its_mean_is_kept():
    mean = VoiceMean()
    utterance = Utterance(mean)
    decoder = Decoder(utterance, word="oh w")
    audio = ramp(3 * SECOND)
    for i in range(0, len(audio), 1024):
        utterance.push(audio[i : i + 1024])
        decoder.run()
    utterance.end()
    decoder.run()
    assert decoder.means == ["", "50,6,7"]
    assert ACQUAINTANCE <= len(decoder.heard[0]) <= ACQUAINTANCE + CHUNK
    assert decoder.heard[1] == audio
    assert mean.value == "50,6,7"
    again = Utterance(mean)
    again.push(audio)
    again.end()
    later = Decoder(again)
    later.run()
    assert later.heard == [audio]


def test_a_new_voice_that_says_little_is_heard_again_at_the_end():
    utterance = Utterance(VoiceMean())
    decoder = Decoder(utterance)
    utterance.push(ramp(SECOND))
    decoder.run()
    assert len(decoder.heard) == 1
    utterance.end()
    decoder.run()
    assert [len(heard) for heard in decoder.heard] == [SECOND, SECOND]
    assert utterance.result == "w1"


def test_a_voice_that_first_speaks_late_is_not_heard_again():
    utterance = Utterance(VoiceMean())
    decoder = Decoder(utterance, wordless=True)
    utterance.push(ramp(LATE + SECOND))
    decoder.run()
    decoder.wordless = False
    utterance.push(ramp(SECOND))
    utterance.end()
    decoder.run()
    assert len(decoder.heard) == 1


def test_noise_without_words_says_nothing_about_a_voice():
    mean = VoiceMean()
    utterance = Utterance(mean)
    utterance.push(ramp(2 * SECOND))
    utterance.end()
    Decoder(utterance, wordless=True).run()
    assert utterance.result == ""
    assert mean.value == ""


def test_a_cough_is_not_what_a_voice_is_remembered_by():
    mean = VoiceMean()
    for word, kept in (("if", ""), ("oh w", "50,6,7")):
        utterance = Utterance(mean)
        utterance.push(ramp(SECOND))
        utterance.end()
        decoder = Decoder(utterance, word=word)
        decoder.run()
        assert decoder.means == ["", "50,6,7"]
        assert utterance.result == f"{word}1"
        assert mean.value == kept


def test_a_long_utterance_is_several_segments_and_one_text():
    utterance = Utterance(known())
    decoder = Decoder(utterance)
    audio = ramp(70 * SECOND)
    for i in range(0, len(audio), SECOND):
        utterance.push(audio[i : i + SECOND])
        decoder.run()
    assert utterance.text.startswith("w30 w30")
    utterance.end()
    decoder.run()
    assert b"".join(decoder.heard) == audio
    assert [len(heard) for heard in decoder.heard] == [SEGMENT, SEGMENT, 10 * SECOND]
    assert utterance.result == "w30 w30 w10"


def test_an_utterance_that_ends_with_its_segment_ends_once():
    utterance = Utterance(known())
    utterance.push(ramp(SEGMENT))
    utterance.end()
    decoder = Decoder(utterance)
    decoder.run()
    assert (utterance.result, len(decoder.heard)) == ("w30", 1)


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_after_a_death_the_segment_begins_again(steps):
    utterance = Utterance(known())
    audio = ramp(31 * SECOND + 640)
    utterance.push(audio)
    Decoder(utterance).run(steps)
    utterance.step()  # a piece that is never answered
    utterance.replay()
    utterance.end()
    second = Decoder(utterance)
    second.run()
    assert b"".join(second.heard) == audio
    assert utterance.result == "w30 w1"


def test_what_waits_too_long_loses_its_oldest_and_counts_it():
    utterance = Utterance(known())
    for i in range(65):
        utterance.push(ramp(SECOND, i))
    assert utterance.dropped == 65 * SECOND - BACKLOG
    decoder = Decoder(utterance)
    utterance.end()
    decoder.run()
    assert sum(len(heard) for heard in decoder.heard) == BACKLOG
    assert decoder.heard[-1].endswith(ramp(SECOND, 64))


def test_an_utterance_without_audio_needs_no_decoder():
    utterance = Utterance(known())
    assert not utterance.unheard
    assert utterance.step() is None
    utterance.end()
    assert utterance.result == ""


def test_an_odd_byte_is_left_out():
    utterance = Utterance(known())
    utterance.push(b"\0" * 641)
    utterance.end()
    Decoder(utterance).run()
    assert utterance.result == "w0"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("<s> Hello the(2) world </s>", "hello the world"),
        ("[NOISE] okay <sil> ++UH++ ++BREATH++ right(3)", "okay right"),
        ("  i'll   see ", "i'll see"),
        ("", ""),
    ],
)
def test_text_is_words(raw, words):
    assert clean(raw) == words
