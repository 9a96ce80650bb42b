"""`say`: a text spoken by any engine and character, into a WAV file or the loudspeaker."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from server import characters
from server.audio import milliseconds, wav
from server.errors import ConfigError, TTSError
from server.manner import manner
from server.pipelines.engines import TTS, Voice
from server.pipelines.loading import load
from server.settings import Settings, engine_for

PLAYERS = {
    "aplay": ["-q"],
    "afplay": [],
    "pw-play": [],
    "paplay": [],
    "ffplay": ["-nodisp", "-autoexit", "-loglevel", "error"],
}  # programs that play a WAV file, and what they are told besides its name
UNHEARD = "say.wav"  # what is written where none of them is


@dataclass(frozen=True)
class Told:
    """Speech that was made: PCM at `rate` Hz, by which engine, and how long the first of it and all of it took."""

    pcm: bytes
    rate: int
    engine: str
    first_ms: float
    made_ms: float

    def __str__(self) -> str:
        length = milliseconds(self.pcm, self.rate) / 1000
        return f"{length:.2f} s at {self.rate} Hz by {self.engine}, first audio after {self.first_ms:.0f} ms"


async def speech(settings: Settings, text: str, character: str = "", engine: str = "", voice: str = "") -> Told:
    """`text` as `character` (the first one where empty) says it. `engine`: a TTS engine, or a name under [voices], in
    place of the character's own; `voice`: one of its voices. Raises `ConfigError`, `EngineError`."""
    everybody = characters.read(settings.characters.directory)
    who = characters.chosen(everybody, [character or next(iter(everybody))])[0]
    chosen = engine_for(settings, engine or who.voice.engine)
    tts = load("tts", chosen.engine, chosen.options)
    await tts.start()
    try:
        return await _spoken(tts, chosen.engine, manner(settings, who, chosen.engine, voice), text)
    finally:
        await tts.stop()


async def _spoken(tts: TTS, engine: str, voice: Voice, text: str) -> Told:
    speaker = tts.open(voice)
    began, first, pieces = time.perf_counter(), 0.0, list[bytes]()
    try:
        async with aclosing(speaker.speak(text)) as made:
            async for piece in made:
                first = first or time.perf_counter() - began
                pieces.append(piece.pcm)
    finally:
        await speaker.close()
    if not (pcm := b"".join(pieces)):
        raise TTSError("there is nothing in this text that can be spoken")
    return Told(pcm, tts.rate, engine, first * 1000, (time.perf_counter() - began) * 1000)


def player() -> str:
    """The first of `PLAYERS` on this machine; empty where there is none."""
    return next((name for name in PLAYERS if shutil.which(name)), "")


def play(told: Told, program: str) -> None:
    """Play it to its end. Raises `ConfigError` where that cannot be done."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(wav(told.pcm, told.rate))
        file.flush()
        done = subprocess.run([program, *PLAYERS[program], file.name], capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise ConfigError(f"{program} could not play it ({reason[0]}); write a file with --out")


def say(settings: Settings, text: str, character: str, engine: str, voice: str, out: str) -> int:
    """Speak `text` into the file `out` ("-": standard output); empty: aloud, or into `UNHEARD` where nothing plays."""
    told = asyncio.run(speech(settings, text, character, engine, voice))
    if not out and (program := player()):
        print(told)
        play(told, program)
    elif out == "-":
        sys.stdout.buffer.write(wav(told.pcm, told.rate))
    else:
        write(told, out or UNHEARD)
        print(f"{out or UNHEARD}: {told}")
    return 0


def write(told: Told, out: str) -> None:
    """Write it as a WAV file. Raises `ConfigError` where that cannot be done."""
    try:
        Path(out).write_bytes(wav(told.pcm, told.rate))
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from error
