"""Telemetry: Prometheus metrics, one log line a turn, and logging that carries the session."""

import asyncio
import contextvars
import json
import logging
import time
from collections import deque
from typing import Any, Literal

from prometheus_client import Counter, Gauge, Histogram

log = logging.getLogger("parley")
session_id: contextvars.ContextVar[str] = contextvars.ContextVar("session", default="-")

SESSIONS = Gauge("parley_sessions", "Conversations under way")
REFUSED = Counter("parley_sessions_refused_total", "Connections refused", ["reason"])
TURNS = Counter("parley_turns_total", "Turns answered", ["kind"])
REPLIES = Counter("parley_replies_total", "Replies by how they ended", ["end"])
INTERRUPTIONS = Counter("parley_interruptions_total", "Replies interrupted", ["reason"])
RESUMED = Counter("parley_resumed_total", "Pauses that were no interruption", ["reason"])
DRAFTS = Counter("parley_drafts_total", "Answers prepared before the turn had ended", ["fate"])
STAGE = Histogram(
    "parley_stage_seconds",
    "From the end of speech to each stage of a turn",
    ["stage"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10),
)
TOKENS = Counter("parley_tokens_total", "Tokens of the model's: generated, and saved by an interruption", ["fate"])
RESTED = Counter("parley_model_rested_seconds_total", "How long models rested while enough was ahead of the listener")
ERRORS = Counter("parley_errors_total", "Errors by code", ["code"])
QUEUE = Gauge("parley_queue_depth", "Items waiting, over all sessions", ["queue"])
DROPPED = Counter("parley_dropped_total", "What had to be dropped: ms of microphone, frames of audio", ["what"])
LAG = Gauge("parley_loop_lag_seconds", "How late the event loop last was")
LAG_MAX = Gauge("parley_loop_lag_max_seconds", "The worst of the last minute")


def turn_over(turn: int, kind: str, end: str, stages: dict[str, float]) -> None:
    """One turn has been answered: its metrics and its log line."""
    REPLIES.labels(end).inc()
    for stage, ms in stages.items():
        if stage in _STAGES:
            STAGE.labels(stage).observe(max(0.0, ms / 1000))
    TOKENS.labels("generated").inc(stages.get("tokens", 0))
    TOKENS.labels("saved").inc(stages.get("tokens_saved", 0))
    RESTED.inc(stages.get("rested_ms", 0) / 1000)
    log.info("turn", extra={"fields": {"turn": turn, "kind": kind, "end": end, **stages}})


_STAGES = {"turn_end", "transcript", "first_token", "first_sentence", "first_audio", "first_sent", "first_heard"}


async def watch_loop(interval: float = 0.25) -> None:
    """Measure how late the event loop runs, until cancelled."""
    clock, recent = asyncio.get_running_loop().time, deque[float](maxlen=round(60 / interval))
    while True:
        due = clock() + interval
        await asyncio.sleep(interval)
        recent.append(max(0.0, clock() - due))
        LAG.set(recent[-1])
        LAG_MAX.set(max(recent))


class _Carry(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.session = session_id.get()
        return True


class _Line(logging.Formatter):
    """One structured line: key=value pairs, or a JSON object."""

    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "session": getattr(record, "session", "-"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(fields, ensure_ascii=False, default=str)
        head = f"{fields.pop('time')} {fields.pop('level'):7} {fields.pop('session')} {fields.pop('message')}"
        return " ".join([head, *(f"{key}={value}" for key, value in fields.items())])


def set_up(style: Literal["text", "json"] = "text", level: int = logging.INFO) -> None:
    """Log to standard error in one format, Parley's lines and uvicorn's alike."""
    handler = logging.StreamHandler()
    handler.addFilter(_Carry())
    handler.setFormatter(_Line(style))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # They tell addresses whole, with tokens in them. httpx2 is what openai's client asks by.
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
