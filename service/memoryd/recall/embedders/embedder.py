"""What makes vectors of texts, and how it is chosen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeGuard, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

KNOWN = {
    "multilingual": "memoryd.recall.embedders.multilingual:MultilingualEmbedder",
    "static": "memoryd.recall.embedders.static:StaticEmbedder",
    "minilm": "memoryd.recall.embedders.minilm:MiniLmEmbedder",
}
"""The embedders that have a name. Their packages are the extras `semantic`, `static`, `minilm`."""


class EmbedderUnavailable(ValueError):
    """The embedder cannot be had. The message says why, and what would bring it."""


class Embedder(Protocol):
    """Makes vectors of texts. Called from any thread, one call at a time."""

    @property
    def name(self) -> str:
        """Of the embedder and its weights; vectors of another name are made again."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A row of length 1 for each text, or of zeros where there is nothing to embed.

        Shape: (texts, dimensions).
        """


@runtime_checkable
class WordEmbedder(Protocol):
    """An embedder that adds up words, so that those of a query can weigh what they tell."""

    def embed_weighted(self, words: Sequence[str], weights: Sequence[float]) -> NDArray[np.float32]:
        """The sum of the words' vectors, each times its weight, brought to length 1.

        Shape: (dimensions,); zeros where there is nothing to embed.
        """


def adds_up_words(embedder: Embedder) -> TypeGuard[WordEmbedder]:
    """Whether it is a WordEmbedder; quicker than `isinstance` tells."""
    return hasattr(embedder, "embed_weighted")


class QueryTokens(NamedTuple):
    """The tokens of a query, for `maxsim`."""

    vectors: NDArray[np.float32]
    """Shape (tokens, token_dimensions); rows of length 1."""
    words: tuple[str, ...]
    """Of each token the word of the query that it is part of, as `words_of` has it."""


@runtime_checkable
class TokenEmbedder(Protocol):
    """An embedder that also has a vector for each token of a text."""

    @property
    def token_dimensions(self) -> int: ...

    def embed_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.int8]]]:
        """What `embed` has of each text, and its first tokens that tell something.

        Shapes: (texts, dimensions), and for each text (tokens, token_dimensions).
        """

    def embed_query(self, text: str) -> tuple[NDArray[np.float32], QueryTokens]:
        """What `embed` has of a query, shape (dimensions,), and all of its tokens."""


class Embedding(NamedTuple):
    """What is kept of a memory's content."""

    vector: NDArray[np.float16]
    """Shape (dimensions,), of length 1, or zeros."""
    tokens: NDArray[np.int8] | None = None
    """Shape (tokens, token_dimensions); None unless a `TokenEmbedder` made it."""


def embed_contents(embedder: Embedder, contents: Sequence[str]) -> list[Embedding]:
    """What is to be kept of each content; blocks."""
    if isinstance(embedder, TokenEmbedder):
        vectors, tokens = embedder.embed_with_tokens(contents)
        return [*map(Embedding, vectors.astype("float16"), tokens)]
    return [*map(Embedding, embedder.embed(contents).astype("float16"))]


def load(choice: str) -> Embedder | None:
    """The embedder of a name in `KNOWN`, of an import path `package.module:Class`, or none.

    A class is called without arguments. Weights are loaded when the embedder is first used.

    Raises `EmbedderUnavailable`.
    """
    if choice == "none":
        return None
    path = KNOWN.get(choice, choice)
    module, _, attribute = path.partition(":")
    if not module or not attribute:
        raise EmbedderUnavailable(
            f"There is no embedder {choice!r}; choose none, {', '.join(KNOWN)} or an import path"
            " package.module:Class."
        )
    try:
        embedder: Embedder = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise EmbedderUnavailable(f"The embedder {choice!r} cannot be loaded: {error}") from error
    return embedder
