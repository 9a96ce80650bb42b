"""libflite through ctypes: one blocking call that speaks a text through a callback.

Source: flite 2.2, `include/flite.h`, `cst_audio.h`. Everything a call sets (callback, speed, pitch) is set on its own
utterance, never on the voice, so calls do not disturb each other, whatever thread they run on.
"""

import ctypes as C
import ctypes.util
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from server.errors import EngineUnavailable
from server.pipelines.engines import Word

CHUNK = 8_000  # samples between two callbacks at least: half a second, of which the first is silence for the most part
STOP, GO = -1, 0
MISSING = "engine 'flite' needs the library {}: apt-get install libflite1"

_registering = threading.Lock()


class _Wave(C.Structure):
    _fields_ = [
        ("type", C.c_char_p),
        ("sample_rate", C.c_int),
        ("num_samples", C.c_int),
        ("num_channels", C.c_int),
        ("samples", C.POINTER(C.c_short)),
    ]


class _Streaming(C.Structure):
    pass


_Callback = C.CFUNCTYPE(C.c_int, C.POINTER(_Wave), C.c_int, C.c_int, C.c_int, C.POINTER(_Streaming))
_Streaming._fields_ = [
    ("min_buffsize", C.c_int),
    ("asc", _Callback),
    ("utt", C.c_void_p),
    ("item", C.c_void_p),
    ("userdata", C.c_void_p),
]

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "flite_init": (C.c_int,),
    "new_utterance": (C.c_void_p,),
    "delete_utterance": (None, C.c_void_p),
    "flite_do_synth": (C.c_void_p, C.c_void_p, C.c_void_p, C.c_void_p),
    "new_audio_streaming_info": (C.POINTER(_Streaming),),
    "audio_streaming_info_val": (C.c_void_p, C.POINTER(_Streaming)),
    "feat_set": (None, C.c_void_p, C.c_char_p, C.c_void_p),
    "feat_set_string": (None, C.c_void_p, C.c_char_p, C.c_char_p),
    "feat_set_float": (None, C.c_void_p, C.c_char_p, C.c_float),
    "get_param_float": (C.c_float, C.c_void_p, C.c_char_p, C.c_float),
    "utt_relation": (C.c_void_p, C.c_void_p, C.c_char_p),
    "relation_head": (C.c_void_p, C.c_void_p),
    "item_next": (C.c_void_p, C.c_void_p),
    "ffeature_string": (C.c_char_p, C.c_void_p, C.c_char_p),
    "ffeature_float": (C.c_float, C.c_void_p, C.c_char_p),
}
_FIRST = b"R:Token.daughter1.R:SylStructure.daughter1.daughter1.R:Segment.p.end"
_LAST = b"R:Token.daughtern.R:SylStructure.daughtern.daughtern.R:Segment.end"


def _open(name: str, kind: type[C.CDLL] = C.CDLL) -> C.CDLL:
    for file in (ctypes.util.find_library(name), f"lib{name}.so.1", f"lib{name}.dylib"):
        try:
            if file:
                return kind(file)
        except OSError:
            continue
    raise EngineUnavailable(MISSING.format(f"lib{name}"))


@functools.cache
def library() -> Any:
    """libflite, loaded and initialised once per process. Raises `EngineUnavailable`.

    Only what takes long gives up the interpreter's lock: beside a busy loop, getting it back after every little call
    would cost more than the calls."""
    flite: Any = _open("flite", C.PyDLL)
    flite.flite_do_synth = _open("flite").flite_do_synth
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(flite, name)
        function.restype, function.argtypes = result, arguments
    flite.flite_init()
    return flite


@functools.cache
def voice(name: str) -> int:
    """The voice `name` (such as `cmu_us_slt`), from its own library. Raises `EngineUnavailable`."""
    with _registering:
        library()
        register = getattr(_open(f"flite_{name}"), f"register_{name}")
        register.restype, register.argtypes = C.c_void_p, [C.c_char_p]
        return int(register(None))


def utter(
    text: str, name: str, speed: float, pitch: float, give: Callable[[bytes, int, tuple[Word, ...], bool], bool]
) -> None:
    """Speak `text` (ASCII, short, with something to say) by the voice `name`, `speed` and `pitch` being factors.

    `give` gets PCM, its rate in Hz, with the first piece when every word sounds, and whether it is the last; it returns
    False to stop. Blocks, without the interpreter's lock."""
    flite, speaker = library(), voice(name)
    utterance = flite.new_utterance()
    told = False

    def made(wave: Any, start: int, size: int, last: int, info: Any) -> int:
        nonlocal told
        words = () if told else tuple(_words(flite, utterance, text))
        told = True
        samples = C.addressof(wave[0].samples.contents) + 2 * start
        return GO if give(C.string_at(samples, 2 * size), wave[0].sample_rate, words, bool(last)) else STOP

    callback = _Callback(made)
    features = _features(utterance, 0)
    stretch = flite.get_param_float(_features(speaker, 1), b"duration_stretch", 1.0)
    flite.feat_set_string(features, b"input_text", text.encode("ascii"))
    flite.feat_set_float(features, b"duration_stretch", stretch / speed)
    flite.feat_set_float(features, b"f0_shift", pitch)
    flite.feat_set(features, b"streaming_info", _stream_to(flite, callback))
    if flite.flite_do_synth(utterance, speaker, C.cast(flite.utt_synth, C.c_void_p)):
        flite.delete_utterance(utterance)


def _features(owner: int, field: int) -> int:
    """The feature set of an utterance (its first field) or of a voice (its second)."""
    return int(C.cast(owner, C.POINTER(C.c_void_p))[field])


def _stream_to(flite: C.CDLL, callback: Any) -> int:
    info = flite.new_audio_streaming_info()  # freed with its utterance
    info[0].min_buffsize = CHUNK
    info[0].asc = callback
    return int(flite.audio_streaming_info_val(info))


def _words(flite: C.CDLL, utterance: int, text: str) -> Iterator[Word]:
    """Every token of `text` that is spoken. One token may be several spoken words ("3.50"): it is timed as one."""
    token = flite.relation_head(flite.utt_relation(utterance, b"Token"))
    at = 0
    while token:
        name = flite.ffeature_string(token, b"name").decode("ascii")
        start = text.find(name, at)
        if start >= 0:
            at = start + len(name)
            first, last = flite.ffeature_float(token, _FIRST), flite.ffeature_float(token, _LAST)
            if first < last:  # else there is nothing in it to say
                yield Word(start, at, first * 1000, last * 1000)
        token = flite.item_next(token)
