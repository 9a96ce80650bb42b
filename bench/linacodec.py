"""`python -m bench.linacodec`: the tiers and the codec. What speech costs on the wire, when it is first heard, what the
middleware adds, how long a chunk takes to encode and decode here, and how it sounds: A/B files to listen to.

The tiers run with the embedded voice and a codec that costs next to nothing; the codec itself with `--model`, or with
random weights of the real size, which are no speech but take as long.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from bench import spectrogram
from server.audio import SAMPLE, milliseconds, wav
from server.errors import EngineUnavailable
from server.pipelines.codec._lina.imports import present
from server.pipelines.codec._tokens import CODEBOOK, RATE, SPAN, WIDTH, to_packed, to_wire
from server.pipelines.engines import Codec, Coded, Voice
from server.pipelines.loading import load
from server.pipelines.tiers.backend import Backend
from server.pipelines.tiers.clients import client
from server.pipelines.tiers.relay import Relay
from server.pipelines.tiers.services import Service, TierRules
from tests.fake_codec import fake_codec
from tests.tiers_app import asked, mounted, serving

TEXT = (
    "The map was drawn by a man who had never left his harbor. He asked every sailor what lay beyond the reef, and "
    "drew what they told him, sea by sea. Years later they bought it themselves, and trusted it more than their eyes."
)
OUT = Path("out/linacodec")


async def spoken(text: str = TEXT) -> tuple[bytes, int]:
    """`text` by the embedded voice."""
    tts = load("tts", "espeak", {})
    await tts.start()
    try:
        async with aclosing(tts.open(Voice()).speak(text)) as speech:
            return b"".join([piece.pcm async for piece in speech]), tts.rate
    finally:
        await tts.stop()


async def wire(codec: Codec) -> Iterator[str]:
    """Bytes per second of speech, as each of the tiers sends it."""
    pcm, rate = await spoken()
    seconds = milliseconds(pcm, rate) / 1000
    coded = await codec.encode(pcm, rate)
    first = msgpack.packb(to_packed(coded))
    sizes = {
        "PCM, 48 kHz": RATE * SAMPLE * seconds,
        f"PCM as the voice gives it, {rate / 1000:g} kHz": len(pcm),
        "tokens in JSON, a chunk with its embedding": len(json.dumps(to_wire(coded), separators=(",", ":"))),
        "tokens in msgpack, a chunk with its embedding": len(first),
        "tokens in msgpack, the embedding sent before": len(first) - 4 * WIDTH,
    }
    whole = sizes["PCM, 48 kHz"]
    return (f"{what:48} {n / seconds:9,.0f} B/s  1 : {whole / n:,.0f}" for what, n in sizes.items())


async def first_audio(times: int) -> list[float]:
    """Milliseconds from a listener's request to the first PCM, through middleware and back end, both with sockets."""
    tts = load("tts", "espeak", {})
    await tts.start()
    far, near = fake_codec(), fake_codec()
    backend = Backend(lambda voice, engine, options: (tts, Voice()), far)
    rules = TierRules(services={"far": Service(kind="ndjson", url="http://127.0.0.1:9")})
    found = []
    async with client() as http, serving(mounted(rules, Relay(rules, http, None, backend), backend)) as back:
        rules = TierRules(services={"far": Service(url=back)})
        async with serving(mounted(rules, Relay(rules, http, near), None)) as middle, asked(middle) as listener:
            for _ in range(times):
                begin = time.perf_counter()
                body = {"text": TEXT, "voice": "default", "service": "far"}
                async with listener.stream("POST", "/api/tts/stream", json=body) as response:
                    await anext(response.aiter_bytes())
                    found.append((time.perf_counter() - begin) * 1000)
    for each in (far, near, tts):
        await each.stop()
    return found


class Instant:
    """A decoder that costs nothing: what is left is the middleware's own."""

    pcm = bytes(100 * SPAN * SAMPLE)

    async def pieces(self, coded: Coded) -> AsyncGenerator[bytes, None]:
        yield self.pcm


async def overhead(chunks: int) -> float:
    """Milliseconds the middleware adds to a chunk of 8 s, beyond the decoder: read, parsed, checked, sent."""
    coded = Coded(np.random.default_rng(1).integers(0, CODEBOOK, 100), np.zeros(WIDTH, np.float32))
    line = (json.dumps({"status": "streaming", **to_wire(coded)}) + "\n").encode()
    body = line * chunks + b'{"status": "complete"}\n'

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        head = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    rules = TierRules(services={"far": Service(kind="ndjson", url="http://127.0.0.1:9")}, total_timeout_s=120)
    async with client() as http, serving(answer) as back:
        rules = rules.model_copy(update={"services": {"far": Service(kind="ndjson", url=back)}})
        relay = Relay(rules, http, Instant())  # type: ignore[arg-type]
        async with serving(mounted(rules, relay, None)) as middle, asked(middle) as listener:
            begin = time.perf_counter()
            request = {"text": "a", "voice": "a", "service": "far"}
            async with listener.stream("POST", "/api/tts/stream", json=request) as response:
                received = sum([len(piece) async for piece in response.aiter_bytes()])
            assert received == chunks * len(Instant.pcm)
            return (time.perf_counter() - begin) * 1000 / chunks


@contextmanager
def checkpoint(model: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """A model to measure, and what it needs to be trusted with: the one given, else random weights of the real size."""
    if model:
        yield model, ()
        return
    from tests.lina_checkpoint import REAL, write

    with tempfile.TemporaryDirectory() as folder:
        yield str(write(Path(folder), REAL)), ("tests",)


async def device(model: str, name: str) -> AsyncGenerator[str, None]:
    """Encoding and decoding of a chunk of each length, alone and four at once."""
    with checkpoint(model) as (path, trust):
        codec = load("codec", "linacodec", {"model": path, "device": name, "trust": list(trust), "whole": 10_000})
        await codec.start()
        network = codec.worker.network
        weights = "the model" if model else "random weights, real size for decoding, small for encoding"
        yield f"{weights}; on {network._device}, autocast {network._autocast}"
        for tokens in (12, 26, 62, 124):
            coded = Coded(np.arange(tokens), np.zeros(WIDTH, np.float32))
            pcm = np.random.default_rng(1).normal(0, 3_000, tokens * 1_920).astype("<i2").tobytes()
            alone = await _median(lambda coded=coded: codec.decode(coded))  # type: ignore[misc]
            four = await _median(lambda coded=coded: _at_once(codec, coded))  # type: ignore[misc]
            encode = await _median(lambda pcm=pcm: codec.encode(pcm, 24_000))  # type: ignore[misc]
            each = f"decode {alone:7.1f} ms, four at once {four / 4:7.1f} ms each, encode {encode:7.1f} ms"
            yield f"{tokens:4} tokens, {tokens * 0.08:5.2f} s: {each}"
        await codec.stop()


async def _at_once(codec: Codec, coded: Coded) -> None:
    await asyncio.gather(*(codec.decode(coded) for _ in range(4)))


async def _median(work: Any, times: int = 3) -> float:
    await work()
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        await work()
        found.append((time.perf_counter() - begin) * 1000)
    return statistics.median(found)


async def compare(codec: Codec, folder: Path) -> None:
    """The same sentence with and without the codec: two WAV files, and their spectrograms side by side."""
    pcm, rate = await spoken()
    through = await codec.convert(pcm, rate)
    _keep(folder, (pcm, rate), (through, RATE))


def _keep(folder: Path, without: tuple[bytes, int], through: tuple[bytes, int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "without.wav").write_bytes(wav(*without))
    (folder / "with.wav").write_bytes(wav(*through))
    pictures = [spectrogram.spectrogram(pcm, rate) for pcm, rate in (without, through)]
    spectrogram.write(folder / "without-and-with.png", *pictures)


async def figures(model: str = "", name: str = "auto", times: int = 20) -> bool:
    """Print everything; whether the budgets were met."""
    codec = fake_codec()
    print("What a second of speech costs on the wire\n")
    for line in await wire(codec):
        print(f"  {line}")
    found = sorted(await first_audio(times))
    added = await overhead(200)
    p50, p95 = statistics.median(found), found[int(len(found) * 0.95)]
    print("\nThe three tiers in one process, espeak and a codec without a model\n")
    print(f"  to the first audio            p50 {p50:6.1f} ms  p95 {p95:6.1f} ms   (budget 1000 ms)")
    print(f"  the middleware adds           {added:10.2f} ms a chunk of 8 s (budget 5 ms)")
    print("\nThe codec itself\n")
    try:
        if not present():
            raise EngineUnavailable("not installed: pip install -e '.[linacodec]'")
        async with aclosing(device(model, name)) as lines:
            async for line in lines:
                print(f"  {line}")
        if model:
            codec = load("codec", "linacodec", {"model": model, "device": name})
            await codec.start()
    except EngineUnavailable as error:
        print(f"  {error}")
    await compare(codec, OUT)
    print(
        f"\n{OUT}: the same sentence without and with the {'codec' if model else 'fake codec'}, and their spectrograms"
    )
    await codec.stop()
    return p50 < 1_000 and added < 5


def main() -> int:
    parser = argparse.ArgumentParser("python -m bench.linacodec", description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="", help="a directory, or a name on the hub (default: random weights)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--times", type=int, default=20, metavar="N", help="listeners, one after the other")
    given = parser.parse_args()
    return 0 if asyncio.run(figures(given.model, given.device, given.times)) else 1


if __name__ == "__main__":
    sys.exit(main())
