"""What the tiers count, and how long each of their stages takes."""

from prometheus_client import Counter, Histogram

STREAMS = Counter(
    "parley_tier_streams_total", "Requests by tier, service and how they ended", ["tier", "service", "end"]
)
CHUNKS = Counter("parley_tier_chunks_total", "Chunks of speech that passed", ["tier"])
AUDIO = Counter("parley_tier_audio_bytes_total", "PCM given to listeners", ["service"])
STAGE = Histogram(
    "parley_tier_seconds",
    "Each stage: synthesis, encode (back end); first_chunk, chunk, decode, first_byte (middleware)",
    ["stage"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


def stage(name: str, seconds: float) -> None:
    """One stage of one chunk is over."""
    STAGE.labels(name).observe(seconds)
