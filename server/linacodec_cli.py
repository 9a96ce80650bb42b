"""`decode-linacodec`, `encode-linacodec`, `convert-voice`: the codec on the command line, between pipes and files.

Standard output holds the result and nothing else, and nothing at all where something is wrong.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from server.audio import read_wav, wav
from server.errors import CodecError, ConfigError, ParleyError, UpstreamError
from server.pipelines.codec._tokens import RATE, from_wire, to_wire
from server.pipelines.engines import Codec, Coded
from server.pipelines.loading import load
from server.pipelines.tiers.chunks import Audio, Reading
from server.pipelines.tiers.objects import Objects
from server.settings import read

T = TypeVar("T")


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands."""
    decode = commands.add_parser("decode-linacodec", help="JSON {tokens, embedding} on stdin to 48 kHz PCM on stdout")
    decode.add_argument("--wav", action="store_true", help="a WAV file instead of bare PCM")
    decode.set_defaults(run=_decode)
    encode = commands.add_parser("encode-linacodec", help="a 16-bit WAV file (or stdin) to JSON {tokens, embedding}")
    encode.add_argument("file", nargs="?", default="-", help="a WAV file; - is standard input")
    encode.set_defaults(run=_encode)
    convert = commands.add_parser("convert-voice", help="a recording in another's voice, as a WAV file")
    convert.add_argument("source", help="a WAV file: what is said; - is standard input")
    convert.add_argument("reference", type=Path, help="a WAV file: whose voice")
    convert.set_defaults(run=_convert)
    for command in (decode, encode, convert):
        command.add_argument("-o", "--output", type=Path, help="a file (default: standard output)")
        command.add_argument("--config", type=Path, help="a TOML file whose [codec] is used")
        command.add_argument("--model", help="a directory, or a name on the Hugging Face hub")
        command.add_argument("--device", help="auto, cpu, cuda, cuda:N")


def opened(options: argparse.Namespace, encoder: bool) -> Codec:
    """The codec of the settings, LinaCodec if they name none. Raises `ConfigError`, `EngineUnavailable`."""
    settings = read(options.config).codec
    given = {"model": options.model, "device": options.device}
    known = settings.options | {name: value for name, value in given.items() if value}
    if not settings.engine or settings.engine == "linacodec":
        known |= {"encoder": encoder}
    codec: Codec = load("codec", settings.engine or "linacodec", known)
    return codec


def _decode(options: argparse.Namespace) -> None:
    pieces = _pieces(sys.stdin.buffer.read())

    async def work(codec: Codec) -> bytes:
        return b"".join([await codec.decode(coded) for coded in pieces])

    pcm = _with(opened(options, False), work)
    _write(options.output, wav(pcm, RATE) if options.wav else pcm)


def _pieces(data: bytes) -> list[Coded]:
    """Objects by themselves, or the lines of a back end's stream, whole. Raises `ConfigError`, which says where it is
    wrong."""
    found, stream = list[Coded](), Reading()
    for number, message in enumerate(_messages(data), 1):
        try:
            parts = list(stream.read(message)) if "status" in message else [from_wire(message)]
        except (CodecError, UpstreamError) as error:
            raise ConfigError(f"standard input, object {number}: {error}") from None
        if any(isinstance(part, Audio) for part in parts):
            raise ConfigError(f"standard input, object {number}: audio, not tokens")
        found += [part for part in parts if isinstance(part, Coded)]
        stream = Reading() if stream.complete else stream
    if stream.chunks:
        raise ConfigError(f"standard input: the stream stops in the middle, after {stream.chunks} chunks")
    if not found:
        raise ConfigError("standard input: nothing there; JSON {tokens, embedding} is needed")
    return found


def _messages(data: bytes) -> list[dict[str, Any]]:
    objects = Objects()
    try:
        messages = objects.push(data)
        objects.finish()
    except UpstreamError as error:
        raise ConfigError(f"standard input: {str(error).replace('the server sent', 'there is')}") from None
    return messages


def _encode(options: argparse.Namespace) -> None:
    pcm, rate = _recording(options.file)

    async def work(codec: Codec) -> Coded:
        return await codec.encode(pcm, rate)

    coded = _with(opened(options, True), work)
    told = {**to_wire(coded), "sample_rate": RATE, "original_sample_rate": rate}
    _write(options.output, json.dumps(told).encode() + b"\n")


def _convert(options: argparse.Namespace) -> None:
    pcm, rate = _recording(options.source)

    async def work(codec: Codec) -> bytes:
        return await codec.convert(pcm, rate, await codec.embedding(options.reference))

    _write(options.output, wav(_with(opened(options, True), work), RATE))


def _with(codec: Codec, work: Callable[[Codec], Awaitable[T]]) -> T:
    async def go() -> T:
        await codec.start()
        try:
            return await work(codec)
        finally:
            await codec.stop()

    return asyncio.run(go())


def _recording(name: str) -> tuple[bytes, int]:
    """PCM and rate of a WAV file; `-` is standard input. Raises `ConfigError`."""
    try:
        pcm, rate = read_wav(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{'standard input' if name == '-' else name}: {error}") from None
    if not pcm:
        raise ConfigError(f"{name}: no sound in it")
    return pcm, rate


def _write(output: Path | None, data: bytes) -> None:
    try:
        if output:
            output.write_bytes(data)
            return
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise ParleyError(f"{output or 'standard output'}: {error}") from None
