"""What a token is, how tokens travel, and what a checkpoint may call."""

import numpy as np
import pytest

from server.errors import CodecError, ConfigError
from server.pipelines.codec._lina.checkpoint import approve
from server.pipelines.codec._tokens import CODEBOOK, WIDTH, from_wire, to_packed, to_wire
from server.pipelines.engines import Coded


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        ([], "at least one"),
        ([[1, 2]], "one dimension"),
        ([0.5], "integers"),
        ([True], "integers"),
        ([-1], "out of range"),
        ([CODEBOOK], "out of range"),
        (["a"], "integers"),
        ([[1], [2, 3]], "numbers"),
        ([1] * 45_001, "at most"),
        (b"\0", "at least one"),
        ([2**70], "integers"),
    ],
)
def test_what_is_no_token_is_refused(tokens, says):
    with pytest.raises(CodecError, match=says) as error:
        from_wire({"tokens": tokens, "embedding": [0.0] * WIDTH})
    assert error.value.code == "bad_tokens"


@pytest.mark.parametrize(
    "embedding",
    [
        [],
        [0.0] * 3,
        [1e39] * WIDTH,
        [0.0] * (WIDTH - 1) + [float("nan")],
        [True] * WIDTH,
        ["x"] * WIDTH,
        None,
        "abc",
        [[0.0]] * WIDTH,
    ],
)
def test_what_is_no_embedding_is_refused(embedding):
    with pytest.raises(CodecError, match="embedding"):
        from_wire({"tokens": [1, 2], "embedding": embedding})


@pytest.mark.parametrize(
    "extra", [{"num_samples": -1}, {"num_samples": 10**9}, {"num_samples": 1.5}, {"gain": "x"}, {"gain": -1}]
)
def test_odd_lengths_and_gains_are_refused(extra):
    with pytest.raises(CodecError, match=next(iter(extra))):
        from_wire({"tokens": [1, 2], "embedding": [0.0] * WIDTH} | extra)


@pytest.mark.parametrize("pack", [to_wire, to_packed])
def test_there_and_back_on_the_wire(pack):
    there = Coded(np.array([0, 1, CODEBOOK - 1]), np.linspace(-3, 3, WIDTH).astype(np.float32), 11_000, 0.25)
    back = from_wire(pack(there))
    assert back.tokens.tolist() == there.tokens.tolist()
    assert np.allclose(back.embedding, there.embedding, rtol=1e-6)
    assert (back.samples, back.gain) == (11_000, 0.25)


def test_a_plain_chunk_of_another_back_end_is_enough():
    back = from_wire({"status": "streaming", "tokens": [5], "embedding": [0] * WIDTH})
    assert (back.samples, back.gain) == (None, 1.0)


@pytest.mark.parametrize(
    "config",
    [
        {"a": {"class_path": "os.system"}},
        {"a": {"class_path": "Popen"}},
        {"a": [{"b": {"class_path": "linacodecs.Evil"}}]},
        {"a": "subprocess.Popen"},
        {"a": ["__main__.Evil"]},
    ],
)
def test_what_is_not_of_the_package_is_not_called(config):
    with pytest.raises(ConfigError, match="would call"):
        approve(config, ())


def test_what_is_of_the_package_or_trusted_or_no_name_of_a_class_is_left():
    approve({"a": {"class_path": "linacodec.model.LinaCodecModel"}, "b": "vocos.heads.ISTFTHead"}, ())
    approve({"a": {"class_path": "tests.tiny_ssl.TinySSL"}, "b": "tests.tiny_ssl.TinySSL"}, ("tests",))
    approve({"padding": "center", "file": "wavlm_base_plus.pth", "rate": 0.5, "hub": "a/b.c"}, ())
