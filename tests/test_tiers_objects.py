"""JSON objects out of bytes, however the network cut or joined them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import UpstreamError
from server.pipelines.tiers.objects import Objects

MESSAGES = [
    {"status": "streaming", "text": 'a "quoted" brace } and \\ and é漢🎈', "tokens": [1, 2, [3]], "deep": {"a": {}}},
    {},
    {"s": '\\"', "t": "\\\\", "n": None},
    {"status": "complete"},
]
PRETTY = b"".join(json.dumps(m, indent=2, ensure_ascii=False).encode() for m in MESSAGES)
LINES = b"".join(json.dumps(m).encode() + b"\n" for m in MESSAGES)
JOINED = b"".join(json.dumps(m, ensure_ascii=False).encode() for m in MESSAGES)


@pytest.mark.parametrize(
    "data", [PRETTY, LINES, JOINED, LINES.replace(b"\n", b",\r\n ")], ids=["pretty", "lines", "joined", "commas"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000_000])
def test_objects_are_read_however_the_network_cut_them(data, size):
    objects = Objects()
    found = [o for at in range(0, len(data), size) for o in objects.push(data[at : at + size])]
    objects.finish()
    assert found == MESSAGES


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text() | st.lists(st.integers()), max_size=3), max_size=4),
    st.data(),
)
def test_any_objects_in_any_pieces(messages, data):
    text = data.draw(st.sampled_from(["", "\n", "\n\n "])).join(json.dumps(m, ensure_ascii=False) for m in messages)
    raw = text.encode(errors="surrogatepass") if all(ord(c) < 0xD800 or ord(c) > 0xDFFF for c in text) else b""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    objects = Objects()
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    found = [o for piece in pieces for o in objects.push(piece)]
    objects.finish()
    assert found == (messages if raw else [])


def test_an_object_is_given_as_soon_as_it_is_whole():
    objects = Objects()
    assert objects.push(b'{"a": 1') == []
    assert objects.push(b"}") == [{"a": 1}]


@pytest.mark.parametrize(
    "data", [b"[1]", b"null", b"<html>", b'{"a": 1}garbage', b"{'a': 1}", b'{"a": \xff}', b"}", b'{"a": [}']
)
def test_what_is_no_object_is_told(data):
    with pytest.raises(UpstreamError, match="JSON object") as error:
        Objects().push(data + b"]}")
    assert error.value.code == "upstream_garbled"


def test_half_an_object_at_the_end_is_told():
    objects = Objects()
    objects.push(b'{"a": 1}\n{"b"')
    with pytest.raises(UpstreamError, match="in the middle") as error:
        objects.finish()
    assert error.value.code == "upstream_died"


def test_an_object_without_end_is_refused_before_it_fills_the_memory():
    objects = Objects(largest=10_000)
    objects.push(b'{"a": "' + b"x" * 9_000)
    with pytest.raises(UpstreamError, match="more than 10000 bytes"):
        objects.push(b"x" * 1_000)


@pytest.mark.parametrize("content", [b"QUJD" * 2_500_000, b"\\n" * 1_000_000, b'\\"' * 1_000_000])
def test_a_large_object_in_small_pieces_takes_linear_time(content):
    """Ten megabytes in 16 kB reads: were every read, or every escape, to look at all of it, this would take minutes."""
    data = b'{"audio_chunk": "' + content + b'"}'
    objects = Objects()
    found = [o for at in range(0, len(data), 16_384) for o in objects.push(data[at : at + 16_384])]
    assert len(found) == 1
