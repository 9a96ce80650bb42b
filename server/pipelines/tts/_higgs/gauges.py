"""What `/metrics` shows of the engine: how many speak, how many wait, how long a row takes, how many there may be."""

from collections.abc import Callable

from prometheus_client import Gauge

ACTIVE = Gauge("parley_higgs_active", "Utterances that hold a slot")
WAITING = Gauge("parley_higgs_waiting", "Utterances that wait for a slot")
ROW = Gauge("parley_higgs_row_seconds", "What a row of 40 ms of sound takes at the present number of streams")
STREAMS = Gauge("parley_higgs_streams", "Utterances at once that are made faster than they sound")


def watch(
    active: Callable[[], int], waiting: Callable[[], int], row_ms: Callable[[], float], streams: Callable[[], int]
) -> None:
    """Show these from now on; asked for when somebody looks."""
    ACTIVE.set_function(active)
    WAITING.set_function(waiting)
    ROW.set_function(lambda: row_ms() / 1000)
    STREAMS.set_function(streams)
