"""Z-scores: what is unusual in a collection, whatever the unit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from memoryd.recall.weights import ENOUGH_MEMORIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NO_SPREAD = 1e-9
"""A smaller one is what rounding leaves: it says nothing."""

_CANCELLED = 1e-6
"""With so little of a sum of squares left, each value is compared with the mean instead."""


class Standard(NamedTuple):
    """What turns values into z-scores, a row a signal: (value − mean) · scale."""

    means: list[float]
    scales: list[float]
    """0 where all values are equal."""

    def of(self, values: Floats) -> Floats:
        """The z-scores of values of shape (rows, memories)."""
        means, scales = (np.array(numbers)[:, np.newaxis] for numbers in self)
        scores: Floats = (values - means) * scales
        return scores

    def weighed(self, weights: Sequence[float]) -> tuple[Floats, Floats]:
        """What the values count for, and constants, so that z-scores count as much as `weights`.

        Of each row. Shape (rows,).
        """
        scales = [weight * scale for weight, scale in zip(weights, self.scales, strict=True)]
        means = zip(scales, self.means, strict=True)
        return np.array(scales), np.array([-scale * mean for scale, mean in means])


def standard(
    values: Floats, usual: Sequence[float], known: Sequence[int], enough: int = ENOUGH_MEMORIES
) -> Standard:
    """Of each row of values; shape (rows, memories).

    So many values of each row are `known`, the others are 0 and do not count. Of less than `enough`
    the missing ones are taken to spread as is `usual` for the row, about the same mean.
    """
    sums = np.add.reduce(values, axis=1).tolist()
    squares = np.vecdot(values, values).tolist()
    means, scales = [], []
    for row, total, square, spread, width in zip(values, sums, squares, usual, known, strict=True):
        count = max(width, enough)
        mean = total / max(1, width)
        around = square - total * mean
        if around < _CANCELLED * square:
            centred = row - mean
            around = float(centred @ centred) - (len(row) - width) * mean * mean
        deviation = math.sqrt(max(0.0, around + (count - width) * spread * spread) / count)
        means.append(mean)
        scales.append(1.0 / deviation if deviation > NO_SPREAD else 0.0)
    return Standard(means, scales)
