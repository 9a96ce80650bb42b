"""What a back end is asked and what it sends, read and checked."""

import base64

import numpy as np
import pytest

from server.errors import ProtocolError, UpstreamError
from server.pipelines.codec._tokens import WIDTH
from server.pipelines.engines import Coded
from server.pipelines.tiers.chunks import Audio, Complete
from server.pipelines.tiers.requests import Request, request
from tests.tiers_parts import parts

TOKENS = {"status": "streaming", "tokens": [1, 2], "embedding": [0.0] * WIDTH}
AUDIO = {"status": "streaming", "format": "pcm_16", "audio_chunk": "AQACAA==", "sample_rate": 24_000}
DONE = {"status": "complete", "total_chunks": 1}


def test_messages_are_read():
    coded, end = parts(TOKENS | {"chunk": 1}, DONE)
    assert isinstance(coded, Coded)
    assert end == Complete()
    assert parts({"status": "queued"}, AUDIO, DONE)[0] == Audio(b"\1\0\2\0", 24_000)
    assert parts({"status": "complete", "tokens": [4], "embedding": [0] * WIDTH})[0].tokens.tolist() == [4]


def test_the_float_audio_of_a_plain_back_end_is_understood():
    floats = base64.b64encode(np.array([0.5, -0.5, np.nan], "<f4").tobytes()).decode()
    assert parts({"status": "streaming", "format": "pcm_24", "audio_chunk": floats, "sample_rate": 24_000}, DONE)[
        0
    ] == Audio(np.array([16384, -16384, 0], "<i2").tobytes(), 24_000)


@pytest.mark.parametrize(
    ("messages", "says", "code"),
    [
        ([TOKENS], "stopped in the middle, after 1", "upstream_died"),
        ([], "stopped in the middle, after 0", "upstream_died"),
        ([TOKENS | {"chunk": 2}], "chunk 2 came where 1", "upstream_garbled"),
        ([TOKENS, DONE | {"total_chunks": 3}], "of 3 chunks 1 came", "upstream_garbled"),
        ([TOKENS | {"tokens": [99_999]}], "chunk 1: tokens: out of range", "upstream_garbled"),
        ([TOKENS | {"embedding": [1]}], "chunk 1: embedding", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": "?"}], "base64", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": "AQ=="}], "whole number", "upstream_garbled"),
        ([AUDIO | {"audio_chunk": 5}], "base64", "upstream_garbled"),
        ([AUDIO | {"sample_rate": "x"}], "sample_rate", "upstream_garbled"),
        ([{"status": "error", "error": "CUDA out of memory"}], "CUDA out of memory", "upstream_failed"),
        ([{"error": {"message": "no such voice"}}], "no such voice", "upstream_failed"),
    ],
)
def test_what_is_missing_or_wrong_is_told(messages, says, code):
    with pytest.raises(UpstreamError, match=says) as error:
        parts(*messages)
    assert error.value.code == code


def test_requests_are_read_bare_and_as_runpod_wraps_them():
    body = {"text": "Hello.", "voice": "ada", "stream": True, "output_format": "pcm_16", "service": "echotts"}
    assert request(body, 100) == request({"input": body}, 100) == Request("Hello.", "ada", "", True, "pcm_16")
    assert request({"text": "Hello."}, 100).stream is False


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "object"),
        ({"input": 3}, "object"),
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": "  ?! "}, "text"),
        ({"text": 5}, "text"),
        ({"text": "a" * 101}, "text: 101 characters"),
        ({"text": "a", "voice": 5}, "voice"),
        ({"text": "a", "stream": "yes"}, "stream"),
        ({"text": "a", "output_format": "mp3"}, "output_format"),
        ({"text": "a", "sample_rate": 8_000}, "sample_rate"),
        ({"text": "a", "max_chars": 3}, "max_chars"),
        ({"text": "a", "voice_options": []}, "voice_options"),
        ({"text": "a", "txet": "b"}, "txet: unknown"),
    ],
)
def test_requests_that_are_none_are_told_which_field(body, field):
    with pytest.raises(ProtocolError, match=field):
        request(body, 100)
