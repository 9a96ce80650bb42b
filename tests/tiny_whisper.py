"""A Whisper of some thousand random weights, in the form that faster-whisper loads: real files, and nothing it says
means anything. It writes a few letters, which depend on what it hears."""

from pathlib import Path

import numpy as np
import pytest

tokenizers = pytest.importorskip("tokenizers", reason="pip install -e '.[whisper]'")
whisper_spec = pytest.importorskip("ctranslate2.specs.whisper_spec", reason="pip install -e '.[whisper]'")

WIDTH, HEADS, INNER, MELS = 16, 2, 32, 80
LETTERS = "abcdeĠ"  # the last is how a space is written
TASKS = ("endoftext", "startoftranscript", "en", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
SEED = 0
ENDS = 1.0  # how much it likes to end its text
ATTENTIVE = 1.5  # how much it matters what is heard


def make(path: Path) -> Path:
    """Write the model into the directory `path`."""
    path.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(path / "tokenizer.json"))
    words = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    spec = whisper_spec.WhisperSpec(1, HEADS, 1, HEADS)
    weights = Weights(np.random.default_rng(SEED))
    weights.encoder(spec.encoder)
    weights.decoder(spec.decoder, words)
    spec.register_vocabulary(words)
    spec.config.suppress_ids = spec.config.suppress_ids_begin = []
    spec.config.lang_ids, spec.config.alignment_heads = [words.index("<|en|>")], [(0, 0)]
    spec.validate()
    spec.optimize()
    spec.save(str(path))
    return path


def _tokenizer():
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens([f"<|{name}|>" for name in (*TASKS, "notimestamps")])
    made.add_special_tokens([f"<|{i * 0.02:.2f}|>" for i in range(1501)])
    return made


class Weights:
    """Fills the layers of a model with random numbers, always the same."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random

    def some(self, *shape: int, scale: float = 0.3) -> np.ndarray:
        return self._random.normal(0, scale, shape).astype(np.float32)

    def linear(self, layer, out: int, into: int, scale: float = 0.3) -> None:
        layer.weight, layer.bias = self.some(out, into, scale=scale), self.some(out)

    def norm(self, layer) -> None:
        layer.gamma, layer.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def attention(self, layer, shapes: tuple[int, ...], scale: float = 0.3) -> None:
        self.norm(layer.layer_norm)
        for linear, wide in zip(layer.linear, shapes, strict=True):
            self.linear(linear, wide * WIDTH, WIDTH, scale)

    def feed_forward(self, layer) -> None:
        self.norm(layer.layer_norm)
        self.linear(layer.linear_0, INNER, WIDTH)
        self.linear(layer.linear_1, WIDTH, INNER)

    def encoder(self, encoder) -> None:
        encoder.conv1.weight, encoder.conv1.bias = self.some(WIDTH, MELS, 3), self.some(WIDTH)
        encoder.conv2.weight, encoder.conv2.bias = self.some(WIDTH, WIDTH, 3), self.some(WIDTH)
        encoder.position_encodings.encodings = self.some(1500, WIDTH)
        self.norm(encoder.layer_norm)
        for layer in encoder.layer:
            self.attention(layer.self_attention, (3, 1))
            self.feed_forward(layer.ffn)

    def decoder(self, decoder, words: list[str]) -> None:
        decoder.embeddings.weight = decoder.projection.weight = self.some(len(words), WIDTH)
        bias = np.full(len(words), -50, np.float32)
        bias[[words.index(letter) for letter in LETTERS]] = 0
        bias[words.index("<|endoftext|>")] = ENDS
        decoder.projection.bias = bias
        decoder.position_encodings.encodings = self.some(448, WIDTH)
        self.norm(decoder.layer_norm)
        for layer in decoder.layer:
            self.attention(layer.self_attention, (3, 1))
            self.attention(layer.attention, (1, 2, 1), scale=ATTENTIVE)
            self.feed_forward(layer.ffn)
