"""Fuzzing by rounds, each repeatable from a seed and a number."""

from __future__ import annotations

import itertools
import random
import secrets
import sys
import time
from collections.abc import Callable


def fuzz(module: str, check: Callable[[random.Random], None]) -> None:
    """Run `python -m MODULE SECONDS [SEED[:ROUND]]`: call `check` with a round's random source.

    Without ROUND, run rounds until the time is over or one fails.
    """
    seconds, *given = sys.argv[1:]
    seed, _, only = (given[0] if given else secrets.token_hex(4)).partition(":")
    end = time.monotonic() + float(seconds)
    for number in [int(only)] if only else itertools.count():
        if not only and time.monotonic() >= end:
            sys.stdout.write(f"{module}: nothing found in {number:,} rounds of seed {seed}\n")
            return
        try:
            check(random.Random(f"{seed}:{number}"))  # noqa: S311  repeatable, not secret
        except BaseException:
            sys.stderr.write(f"to repeat: python -m {module} {seconds} {seed}:{number}\n")
            raise
