"""What ways to serve cost a call: servers take turns in one run, and each is divided by the first.

Processor time is the server process's, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from harness import KINDS
from measuring import measure, prepare_requests
from work import WORK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from measuring import Target
    from work import Requests


@dataclass(frozen=True)
class Variant:
    """A way to serve."""

    name: str
    variables: Mapping[str, str]


V = TypeVar("V", bound=Variant)


async def compare(
    description: str | None,
    variants: Sequence[V],
    bring_up: Callable[[AsyncExitStack, str, V], Awaitable[tuple[Target, Requests]]],
) -> None:
    """Print a line for each kind of call and database, as the command line asks.

    `bring_up` starts and fills a server.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", nargs="+", default=["get", "store"], choices=list(WORK))
    parser.add_argument("--callers", type=int, default=64)
    options = parser.parse_args()
    first, *others = variants
    header = "".join(f"{variant.name:>9}{f'÷ {first.name}':>20}" for variant in others)
    print(f"{'CPU µs a call':32}{'':12}{first.name:>9}{header}")
    for kind in KINDS:
        async with AsyncExitStack() as stack:
            servers = [await bring_up(stack, kind, variant) for variant in variants]
            for name in options.work:
                line = await _line(kind, name, servers, options)
                print(line, flush=True)


async def _line(
    kind: str,
    name: str,
    servers: Sequence[tuple[Target, Requests]],
    options: argparse.Namespace,
) -> str:
    costs: list[list[float]] = [[] for _ in servers]
    for number in range(options.rounds):
        turns = list(zip(servers, costs, strict=True))
        for (target, requests), taken in turns if number % 2 else turns[::-1]:
            sent = prepare_requests(WORK[name], requests, options.seconds)
            sample = await measure(
                target, WORK[name], sent, callers=options.callers, seconds=options.seconds
            )
            taken.append(sample.cpu)
    line = f"{WORK[name].label:32}{kind:12}{statistics.median(costs[0]):9,.0f}"
    for taken in costs[1:]:
        ratios = [on / off for off, on in zip(costs[0], taken, strict=True)]
        spread = f"({min(ratios):.2f}–{max(ratios):.2f})"
        line += f"{statistics.median(taken):9,.0f}{statistics.median(ratios):8.3f} {spread}"
    return line
