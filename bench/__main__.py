"""`python -m bench`: what Parley adds to its engines, and how the embedded ones do. See docs/bench.md."""

import argparse
import asyncio
import os
import sys

from bench import conversation, embedded, linacodec, speech
from bench.engines import Delays
from bench.house import opened
from bench.leaks import leaks


def main() -> int:
    given = _parser().parse_args()
    return asyncio.run(_run(given))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m bench", description="What Parley adds to its engines, and their own figures."
    )
    parser.add_argument("--sessions", default="1,10,25,50", help="how many at once, one level after the other")
    parser.add_argument(
        "--leaks", type=int, default=1_000, metavar="N", help="short sessions for the leak check; 0: none"
    )
    parser.add_argument("--sentences", type=int, default=8, metavar="N", help="spoken to the embedded engines; 0: none")
    parser.add_argument("--speech", type=int, default=4, metavar="N", help="rounds of the speech services; 0: none")
    parser.add_argument("--tiers", type=int, default=20, metavar="N", help="texts through the three tiers; 0: none")
    return parser


async def _run(given: argparse.Namespace) -> int:
    missed = 0
    if (load := os.getloadavg()[0]) > (cores := os.cpu_count() or 1) / 4:
        print(f"This machine is busy (load {load:.1f} on {cores} cores): times are longer than they need be.\n")
    levels = [int(level) for level in given.sessions.split(",") if level]
    if levels or given.leaks:
        missed = await _fakes(levels, given.leaks)
    if given.sentences:
        print("\nThe embedded engines, with flite's voice at the microphone\n")
        print(await embedded.figures(given.sentences))
    if given.speech:
        print("\nThe speech and chunked-LLM services\n")
        missed += await speech.printed([1, 2, 4, 8], given.speech)
    if given.tiers:
        print("\nThe tiers and LinaCodec\n")
        missed += not await linacodec.figures(times=given.tiers)
    return 1 if missed else 0


async def _fakes(levels: list[int], short: int) -> int:
    """How many budgets were missed."""
    delays, kept = Delays(), list[tuple[str, bool]]()
    ms = ", ".join(f"{name} {value * 1000:.0f}" for name, value in vars(delays).items())
    print(f"Engines of known delay ({ms} ms), a server and its users in a process each\n")
    async with opened("bench.house") as address:
        if levels:
            measured = [await conversation.level(address, sessions, delays) for sessions in levels]
            print(conversation.table(measured))
            kept += conversation.budgets(measured)
        if short:
            left = await leaks(address, short)
            print(f"\n{left}")
            kept += left.budgets()
    print("\nBudgets")
    for text, met in kept:
        print(f"{'met   ' if met else 'MISSED'}  {text}")
    return sum(not met for _, met in kept)


if __name__ == "__main__":
    sys.exit(main())
