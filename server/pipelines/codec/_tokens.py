"""What LinaCodec's tokens are: how many, how large, how much audio, and how they travel. Pure.

A token is 80 ms. Decoding is exact where their number is even: 3840 samples at 48 kHz each; an odd number is 256 short.
Source: linacodec 0.0.11, measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from server.errors import CodecError
from server.pipelines.engines import Coded, Samples

RATE = 48_000  # Hz of what is decoded
SOURCE_RATE = 24_000  # Hz of what is encoded
SPAN = 3_840  # decoded samples a token
SOURCE_SPAN = 1_920  # encoded samples a token
ODD = 256  # decoded samples missing at the end of an odd number of tokens
CODEBOOK = 12_800
WIDTH = 128  # of the embedding
MOST = 45_000  # tokens in one piece: an hour, twice what the longest text takes

Tokens = npt.NDArray[np.int64]


def length(tokens: int) -> int:
    """Samples at 48 kHz that `tokens` tokens decode to."""
    return tokens * SPAN - ODD * (tokens % 2)


def padded(samples: int) -> int:
    """`samples` at 24 kHz, filled up to an even number of tokens: then not one sample is lost."""
    pair = 2 * SOURCE_SPAN
    return max(1, -(-samples // pair)) * pair


def check(tokens: Any, codebook: int = CODEBOOK) -> Tokens:
    """`tokens` as int64 `(T,)`. Raises `CodecError`: the model itself decodes nonsense to noise without a word."""
    if isinstance(tokens, bytes):
        tokens = np.frombuffer(tokens, "<u2", len(tokens) // 2) if len(tokens) % 2 == 0 else np.empty((0, 0))
    try:
        array = np.asarray(tokens)
    except ValueError:
        raise CodecError("tokens: not a list of numbers", code="bad_tokens") from None
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise CodecError("tokens: not a list of integers (at least one, one dimension)", code="bad_tokens")
    if array.size > MOST:
        raise CodecError(f"tokens: {array.size} in one piece; at most {MOST}", code="bad_tokens")
    if array.min() < 0 or array.max() >= codebook:
        raise CodecError(f"tokens: out of range, 0 to {codebook - 1} are tokens", code="bad_tokens")
    return array.astype(np.int64)


def check_embedding(embedding: Any, width: int = WIDTH) -> Samples:
    """`embedding` as float32 `(width,)`. Raises `CodecError`."""
    if isinstance(embedding, bytes):
        embedding = np.frombuffer(embedding, "<f4", len(embedding) // 4)
    try:
        array = np.asarray(embedding)
    except ValueError:
        raise CodecError("embedding: not a list of numbers", code="bad_tokens") from None
    with np.errstate(over="ignore"):  # what 32 bits do not hold is infinite, and refused
        numbers = array.astype(np.float32) if array.dtype.kind in "iuf" else np.empty(0, np.float32)
    if numbers.shape != (width,) or not np.isfinite(numbers).all():
        raise CodecError(f"embedding: not a list of {width} finite numbers", code="bad_tokens")
    return numbers


def to_wire(coded: Coded) -> dict[str, Any]:
    """The fields of `coded` in a JSON object; numbers of the embedding to seven digits."""
    return {
        "tokens": coded.tokens.tolist(),
        "embedding": [float(f"{x:.7g}") for x in coded.embedding],
        "num_tokens": len(coded.tokens),
        "num_samples": coded.samples if coded.samples is not None else length(len(coded.tokens)),
        "gain": float(f"{coded.gain:.6g}"),
    }


def to_packed(coded: Coded) -> dict[str, Any]:
    """The same for msgpack: tokens as little-endian 16-bit integers, the embedding as 32-bit floats."""
    return to_wire(coded) | {
        "tokens": coded.tokens.astype("<u2").tobytes(),
        "embedding": coded.embedding.astype("<f4").tobytes(),
    }


def from_wire(fields: Mapping[str, Any], codebook: int = CODEBOOK, width: int = WIDTH) -> Coded:
    """Either of them read back, or what another back end sends: only `tokens` and `embedding` must be there.

    Raises `CodecError`, naming the field."""
    for name in ("tokens", "embedding"):
        if not isinstance(fields.get(name), Sequence) or isinstance(fields[name], str):
            raise CodecError(f"{name}: missing, or not a list", code="bad_tokens")
    tokens = check(fields["tokens"], codebook)
    return Coded(tokens, check_embedding(fields["embedding"], width), _samples(fields, len(tokens)), _gain(fields))


def _samples(fields: Mapping[str, Any], tokens: int) -> int | None:
    samples = fields.get("num_samples")
    if samples is None:
        return None
    if isinstance(samples, bool) or not isinstance(samples, int) or not 0 <= samples <= length(tokens):
        raise CodecError(f"num_samples: not an integer from 0 to {length(tokens)}", code="bad_tokens")
    return samples


def _gain(fields: Mapping[str, Any]) -> float:
    gain = fields.get("gain", 1.0)
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain <= 8:
        raise CodecError("gain: not a number from 0 to 8", code="bad_tokens")
    return float(gain)
