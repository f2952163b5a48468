"""Effective importance: what is important fades, unless it is used."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ACCESS_BOOST = 0.02
"""Gained with each access."""
MAX_ACCESS_BOOST = 0.2

SECONDS_A_DAY = 86_400.0


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
    The formula is the contract's; `storage.dialect` says the same in SQL.
    """
    age_days = max(0.0, (now - created_at).total_seconds() / SECONDS_A_DAY)
    decayed = importance * math.exp2(-age_days / half_life_days)
    return min(1.0, decayed + min(MAX_ACCESS_BOOST, ACCESS_BOOST * access_count))


def effective_importances(
    importance: Floats,
    created_at: Floats,
    access_count: Floats,
    *,
    now: datetime,
    half_life_days: float,
) -> Floats:
    """`effective_importance` of many memories, given and answered in arrays of one shape.

    `created_at` is in seconds since 1970, UTC.
    """
    age_days = np.maximum(0.0, now.timestamp() - created_at) / SECONDS_A_DAY
    boost = np.minimum(MAX_ACCESS_BOOST, ACCESS_BOOST * access_count)
    effective: Floats = np.minimum(1.0, importance * np.exp2(-age_days / half_life_days) + boost)
    return effective
