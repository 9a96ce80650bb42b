"""What a speaker makes of a text, as a whole."""

from contextlib import aclosing

from server.pipelines.engines import Speaker, Word


async def spoken(speaker: Speaker, text: str) -> tuple[bytes, list[Word]]:
    pcm, words = bytearray(), []
    async with aclosing(speaker.speak(text)) as speech:
        async for piece in speech:
            pcm += piece.pcm
            words += piece.words
    return bytes(pcm), words
