"""Static embeddings: a text's vector is the mean of its tokens' vectors.

The weights are those that the wheel of `wordllama` ships (256 dimensions, distilled from the input
embeddings of large language models), read by path: the package's own loader asks the network.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from memoryd.recall.embedders.packaged import packaged_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

_PACKAGE = "wordllama"
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TENSOR = "embedding.weight"
_CACHED_WORDS = 16_384
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


class StaticEmbedder:
    """Embeds by looking tokens up; the weights (32,000 tokens, 16 MB) load at first use."""

    name = "wordllama-l2-supercat-256"
    dimensions = 256

    def __init__(self) -> None:
        self._tokens_of = functools.lru_cache(_CACHED_WORDS)(self._tokenised)
        self._files = (
            packaged_file(_PACKAGE, _WEIGHTS, extra="static"),
            packaged_file(_PACKAGE, _TOKENIZER, extra="static"),
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As in `Embedder`."""
        import numpy as np  # noqa: PLC0415  as the weights, when it is first used

        weights, tokenizer = self._loaded
        sums = np.zeros((len(texts), self.dimensions), np.float32)
        encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        for place, tokens in enumerate(encoded):
            if tokens.ids:
                sums[place] = weights[tokens.ids].sum(axis=0, dtype=np.float32)
        return unit_rows(sums)

    def embed_weighted(self, words: Sequence[str], weights: Sequence[float]) -> NDArray[np.float32]:
        """As in `WordEmbedder`; a word of several tokens is their mean."""
        import numpy as np  # noqa: PLC0415  as above

        ids: list[int] = []
        shares: list[float] = []
        for word, weight in zip(words, weights, strict=True):
            tokens = self._tokens_of(word)
            ids += tokens
            shares += [weight / len(tokens)] * len(tokens) if tokens else []
        if not ids:
            return np.zeros(self.dimensions, np.float32)
        total = (np.array([shares], np.float32) @ self._loaded[0][ids].astype(np.float32))[0]
        length = np.sqrt(np.add.reduce(total * total))
        vector: NDArray[np.float32] = total / length if length else total
        return vector

    def _tokenised(self, word: str) -> tuple[int, ...]:
        return tuple(self._loaded[1].encode(word, add_special_tokens=False).ids)

    @functools.cached_property
    def _loaded(self) -> tuple[NDArray[np.float16], Tokenizer]:
        from safetensors.numpy import load_file  # noqa: PLC0415  of the extra
        from tokenizers import Tokenizer  # noqa: PLC0415  of the extra

        weights_file, tokenizer_file = self._files
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights: NDArray[np.float16] = load_file(weights_file)[_TENSOR]
        return weights, tokenizer


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row brought to length 1; zeros stay zeros. Shape as given."""
    import numpy as np  # noqa: PLC0415  as above

    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units: NDArray[np.float32] = np.divide(
        rows, lengths, out=np.zeros_like(rows), where=lengths > 0
    )
    return units
