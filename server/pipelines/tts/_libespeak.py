"""libespeak-ng through ctypes: one private copy of the library, for one thread.

Source: espeak-ng 1.52, `include/espeak-ng/speak_lib.h`. Its state is global to the library, so every copy of the file
is a synthesiser of its own, and two threads in one copy crash. Never load Debian's library beside the loader's.
"""

import _ctypes
import ctypes as C
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import espeakng_loader

from server.errors import EngineUnavailable, TTSError
from server.pipelines.engines import Speech, Word
from server.pipelines.tts._words import Words

CHUNK_MS = 250  # of audio between two callbacks, made in about 0.3 ms: that is what aborting can cost
RATE = 22_050  # Hz
_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000
_BY_CHARACTER, _UTF8, _END_PAUSE = 1, 1, 0x1000
_SPEED, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD = 1
_RATES = 80, 450  # words per minute that the library takes


class _Id(C.Union):
    _fields_ = [("number", C.c_int), ("name", C.c_char_p), ("string", C.c_char * 8)]


class _Event(C.Structure):
    _fields_ = [
        ("type", C.c_int),
        ("unique_identifier", C.c_uint),
        ("text_position", C.c_int),  # in characters, from 1
        ("length", C.c_int),
        ("audio_position", C.c_int),  # ms
        ("sample", C.c_int),
        ("user_data", C.c_void_p),
        ("id", _Id),
    ]


_Callback = C.CFUNCTYPE(C.c_int, C.POINTER(C.c_short), C.c_int, C.POINTER(_Event))
_SYNTH = [C.c_char_p, C.c_size_t, C.c_uint, C.c_int, C.c_uint, C.c_uint, C.c_void_p, C.c_void_p]


@dataclass(frozen=True)
class Manner:
    """How to say it. `voice` is the library's identifier, with a variant or without (`gmw/en-US+f3`); `rate` is in
    words per minute, pitch and its range 0-99 (50 is normal), volume 0-200 (100 is normal)."""

    voice: str
    rate: float = 175
    pitch: float = 50
    pitch_range: float = 50
    volume: float = 100


class Copy:
    """A synthesiser. Every call, the first included, comes from the same thread."""

    def __init__(self, file: Path) -> None:
        self._file = file  # where to put the copy of the library; it may go once loaded
        self._library: Any = None
        self._manner: Manner | None = None  # what is set
        self._give: Callable[[Speech], bool] = lambda speech: False
        self._words = Words("")
        self._samples = 0
        self._callback = _Callback(self._made)

    def load(self) -> None:
        """Raises `EngineUnavailable`."""
        try:
            shutil.copyfile(espeakng_loader.get_library_path(), self._file)
            self._library = C.CDLL(str(self._file))
            data = espeakng_loader.get_data_path()
        except (OSError, RuntimeError) as error:
            raise EngineUnavailable(
                f"engine 'espeak' cannot load its library ({error}): pip install --force-reinstall espeakng-loader; "
                "if the temporary directory forbids programs, set TMPDIR to one that allows them"
            ) from error
        self._library.espeak_Synth.argtypes = _SYNTH
        rate = self._library.espeak_Initialize(_SYNCHRONOUS, CHUNK_MS, data.encode(), _DONT_EXIT)
        if rate != RATE:
            raise EngineUnavailable(
                f"engine 'espeak' cannot read {data}: pip install --force-reinstall espeakng-loader"
            )
        self._library.espeak_SetSynthCallback(self._callback)

    def close(self) -> None:
        if self._library:
            self._library.espeak_Terminate()
            unload = getattr(_ctypes, "FreeLibrary" if sys.platform == "win32" else "dlclose")
            unload(self._library._handle)
            self._library = None

    def say(self, text: str, manner: Manner, give: Callable[[Speech], bool]) -> None:
        """Speak `text`; `give` takes it piece by piece and returns False to stop. Blocks, without the interpreter's
        lock. Raises `TTSError`."""
        self._give, self._words, self._samples = give, Words(text), 0
        self._set(manner)
        encoded = text.encode()
        flags = _UTF8 | _END_PAUSE
        if code := self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, flags, None, None):
            raise TTSError(f"espeak-ng could not speak (error {code})")

    def _set(self, manner: Manner) -> None:
        if manner == self._manner:
            return
        self._manner = None
        if code := self._library.espeak_SetVoiceByName(manner.voice.encode()):
            raise TTSError(f"espeak-ng could not load the voice {manner.voice!r} (error {code})")
        low, high = _RATES
        self._library.espeak_SetParameter(_SPEED, round(min(max(manner.rate, low), high)), 0)
        self._library.espeak_SetParameter(_PITCH, round(manner.pitch), 0)
        self._library.espeak_SetParameter(_RANGE, round(manner.pitch_range), 0)
        self._library.espeak_SetParameter(_VOLUME, round(manner.volume), 0)
        self._manner = manner

    def _made(self, wave: Any, count: int, events: Any) -> int:
        """The library's callback: 0 goes on, 1 stops."""
        words: list[Word] = []
        index = 0
        while kind := events[index].type:
            if kind == _WORD:
                words += self._words.begin(events[index].text_position - 1, events[index].audio_position)
            index += 1
        pcm = C.string_at(wave, 2 * count) if wave and count else b""
        self._samples += count
        if not wave:  # the end
            words += self._words.finish(self._samples / RATE * 1000)
        return 0 if not (pcm or words) or self._give(Speech(pcm, tuple(words))) else 1
