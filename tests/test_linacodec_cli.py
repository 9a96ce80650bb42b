"""The codec's commands: what goes to standard output, what to standard error, and the exit status."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from server import __main__, linacodec_cli
from server.audio import read_wav, wav
from server.pipelines.codec._lina.imports import present
from server.pipelines.codec._tokens import SPAN, WIDTH
from tests.fake_codec import fake_codec, pitch, tone

GOOD = {"tokens": [1050, 1050], "embedding": [0.0] * WIDTH}
STREAMED = json.dumps(GOOD | {"status": "streaming", "chunk": 1}).encode()


@pytest.fixture
def command(monkeypatch, capfdbinary):
    """A command with a fake codec: `command(arguments, standard input) -> (status, stdout, stderr)`."""
    monkeypatch.setattr(linacodec_cli, "opened", lambda options, encoder: fake_codec())

    def run(arguments, data=b""):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        status = __main__.main(arguments)
        out, err = capfdbinary.readouterr()
        return status, out, err.decode()

    return run


def test_tokens_in_pcm_out(command):
    status, out, err = command(["decode-linacodec"], json.dumps(GOOD).encode())
    assert (status, err) == (0, "")
    assert len(out) == 2 * SPAN * 2
    assert pitch(out, 48_000) == pytest.approx(550, abs=10)


def test_a_whole_stream_of_a_back_end_is_one_piece_of_sound(command, tmp_path):
    lines = [
        GOOD | {"status": "streaming", "chunk": 1},
        GOOD | {"status": "streaming", "num_samples": 100},
        {"status": "complete", "total_chunks": 2},
    ]
    data = b"\n".join(json.dumps(line).encode() for line in lines)
    file = tmp_path / "out.wav"
    assert command(["decode-linacodec", "--wav", "-o", str(file)], data)[:2] == (0, b"")
    pcm, rate = read_wav(file.read_bytes())
    assert (len(pcm), rate) == (2 * (2 * SPAN + 100), 48_000)


def test_two_streams_behind_each_other_are_both_heard(command):
    status, out, _ = command(["decode-linacodec"], (STREAMED + b'{"status": "complete", "total_chunks": 1}') * 2)
    assert (status, len(out)) == (0, 2 * 2 * SPAN * 2)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "nothing there"),
        (b"hello", "where a JSON object was due"),
        (b'{"tokens": [1, 2]', "in the middle"),
        (b"[1]", "JSON object"),
        (b"{}", "object 1: tokens: missing"),
        (json.dumps({"tokens": [1]}).encode(), "object 1: embedding: missing"),
        (json.dumps(GOOD | {"tokens": [99_999]}).encode(), "object 1: tokens: out of range"),
        (json.dumps(GOOD | {"embedding": [1]}).encode(), "object 1: embedding"),
        (json.dumps(GOOD).encode() + b'\n{"tokens": [], "embedding": []}', "object 2: tokens"),
        (STREAMED, "the stream stops in the middle, after 1 chunks"),
        (STREAMED + b'{"status": "error", "error": "out of memory"}', "object 2: the server failed: out of memory"),
        (STREAMED + b'{"status": "complete", "total_chunks": 3}', "object 2: of 3 chunks 1 came"),
        (STREAMED * 2, "object 2: chunk 1 came where 2 was due"),
        (b'{"status": "streaming", "audio_chunk": "AAA="}', "object 1: audio, not tokens"),
    ],
)
def test_what_is_wrong_is_said_on_standard_error_and_nothing_is_put_out(command, data, says):
    status, out, err = command(["decode-linacodec"], data)
    assert (status, out) == (2, b"")
    assert says in err
    assert err.count("\n") == 1


def test_encoded_and_decoded_is_the_recording(command, tmp_path):
    file = tmp_path / "in.wav"
    file.write_bytes(wav(tone(450, 1.0, 16_000, level=0.3), 16_000))
    status, coded, _ = command(["encode-linacodec", str(file)])
    assert status == 0
    told = json.loads(coded)
    assert (told["num_samples"], told["original_sample_rate"], told["sample_rate"]) == (48_000, 16_000, 48_000)
    status, out, _ = command(["decode-linacodec"], coded)
    assert len(out) == 96_000
    assert pitch(out, 48_000) == pytest.approx(450, abs=1)
    assert np.abs(np.frombuffer(out, "<i2")).max() == pytest.approx(0.3 * 32_768, rel=0.05)
    assert command(["encode-linacodec"], file.read_bytes())[1] == coded


def test_a_voice_is_converted(command, tmp_path):
    source, reference = tmp_path / "a.wav", tmp_path / "b.wav"
    source.write_bytes(wav(tone(300, 1.0, 16_000), 16_000))
    reference.write_bytes(wav(tone(500, 1.0, 24_000, octave=0.9), 24_000))
    status, out, _ = command(["convert-voice", str(source), str(reference)])
    assert status == 0
    pcm, rate = read_wav(out)
    spectrum = np.abs(np.fft.rfft(np.frombuffer(pcm, "<i2").astype(float)))
    assert rate == 48_000
    assert spectrum[600] / spectrum[300] > 0.5


@pytest.mark.parametrize("content", [None, b"no wav", wav(b"", 16_000)])
def test_recordings_that_are_none_are_named(command, tmp_path, content):
    file = tmp_path / "x.wav"
    if content is not None:
        file.write_bytes(content)
    for arguments in (["encode-linacodec", str(file)], ["convert-voice", str(file), str(file)]):
        status, out, err = command(arguments)
        assert (status, out) == (2, b"")
        assert "x.wav" in err


def test_bad_input_is_told_before_a_model_is_looked_for():
    """As a process of its own: the exit status is the shell's."""
    done = subprocess.run(
        [sys.executable, "-m", "server", "decode-linacodec"],
        input=b'{"tokens": [-1], "embedding": []}',
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"tokens: out of range" in done.stderr


def test_without_the_package_one_line_says_how_to_get_it():
    if present():
        pytest.skip("the package linacodec is installed here")
    data = json.dumps(GOOD).encode()
    done = subprocess.run([sys.executable, "-m", "server", "decode-linacodec"], input=data, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"pip install -e '.[linacodec]'" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.linacodec
def test_with_the_package_tokens_become_pcm(tmp_path):
    from tests.lina_checkpoint import write

    write(tmp_path, encoder=False)
    done = subprocess.run(
        [sys.executable, "-m", "server", "decode-linacodec", "--model", str(tmp_path), "--device", "cpu"],
        input=json.dumps(GOOD).encode(),
        capture_output=True,
    )
    assert (done.returncode, len(done.stdout)) == (0, 2 * 2 * SPAN), done.stderr
