"""When the words of a piece of speech sound, once it is part of a whole. Pure."""

from server.pipelines.engines import Speech, Word


def later(speech: Speech, characters: int, ms: float) -> Speech:
    """`speech` moved to its place in a whole; `ms` below zero: earlier, though not to before the beginning."""
    if not speech.words or not (characters or ms):
        return speech
    return Speech(speech.pcm, tuple(_moved(word, characters, ms) for word in speech.words))


def _moved(word: Word, characters: int, ms: float) -> Word:
    begin, end = max(0.0, word.start_ms + ms), max(0.0, word.end_ms + ms)
    return Word(word.start + characters, word.end + characters, begin, end)
