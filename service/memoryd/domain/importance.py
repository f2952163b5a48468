"""Effective importance: what is important fades, unless it is used."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ACCESS_BOOST = 0.02
"""Gained with each access."""
MAX_ACCESS_BOOST = 0.2
MAX_LEVEL = 10
"""The number of accesses from which on the boost grows no more."""

SECONDS_A_DAY = 86_400.0

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_STEPS = 2.0**40
"""Of a rank, for each halving: much finer than a double can tell effective importances apart."""
_MOST_HALVINGS = 4e6
"""Ranks fit into 64 bits."""
NEVER_ANY = -(2**62)
"""The rank of what has no importance: below all others."""


def effective_importance(
    importance: float,
    created_at: datetime,
    access_count: int,
    *,
    now: datetime,
    half_life_days: float,
) -> float:
    """Clamp to 0–1 of importance · 2^(−age / half-life) + min(0.2, 0.02 · access_count).

    Age is in days with their fractions; a memory from the future (a clock was moved) has age 0.
    The formula is the contract's; `effective_importance` of `memories.rows` says the same in SQL.
    """
    age_days = max(0.0, (now - created_at).total_seconds() / SECONDS_A_DAY)
    decayed = importance * math.exp2(-age_days / half_life_days)
    return min(1.0, decayed + min(MAX_ACCESS_BOOST, ACCESS_BOOST * access_count))


def fading_rank(importance: float, created_at: datetime, half_life_days: float) -> int:
    """Order memories by what is left of their importance, which no time changes.

    All fade by the same factor in the same time. So log2(importance) + created_at / half-life has
    the order of importance · 2^(−age / half-life) at any time, as long as none is from the future.
    """
    if importance <= 0.0:
        return NEVER_ANY
    days = (created_at - _EPOCH).total_seconds() / SECONDS_A_DAY
    halvings = math.log2(importance) + days / half_life_days
    return round(max(-_MOST_HALVINGS, min(halvings, _MOST_HALVINGS)) * _STEPS)


class Importances:
    """`effective_importance` of many memories at any time; what the time does not bear on is kept.

    2^(−age / half-life) is a product of two powers: of the time since the youngest memory, one for
    all, and of how much older each is than that one.
    """

    def __init__(
        self, importance: Floats, created_at: Floats, access_count: Floats, half_life_days: float
    ) -> None:
        """The arrays have one shape; `created_at` is in seconds since 1970, UTC."""
        import numpy as np  # noqa: PLC0415  a tenth of an idle server's memory, loaded once needed

        self._half_life = half_life_days * SECONDS_A_DAY
        self._given = importance, created_at
        self._youngest = created_at.max(initial=-math.inf).item()
        self._relative: Floats = importance * np.exp2(
            (created_at - self._youngest) / self._half_life
        )
        self._boost: Floats = np.minimum(MAX_ACCESS_BOOST, ACCESS_BOOST * access_count)

    def at(self, now: datetime) -> Floats:
        """The effective importances, in an array of their shape."""
        import numpy as np  # noqa: PLC0415  as above

        since = now.timestamp() - self._youngest
        if since < 0:  # a clock was moved
            importance, created_at = self._given
            age = np.maximum(0.0, now.timestamp() - created_at)
            effective = importance * np.exp2(-age / self._half_life)
        else:
            effective = self._relative * math.exp2(-since / self._half_life)
        effective += self._boost
        return np.minimum(effective, 1.0, out=effective)
