"""The newest 20 messages of a conversation of 100 messages and of one of 100,000, in turns.

python benchmarks/windows.py [--messages 100000] [--rounds 5] [--calls 300]

One caller asks for either window call by call, so that other load affects both alike. The ratio of
the medians is what counts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import AsyncExitStack

import uvloop
from connections import connected
from conversation_work import CONVERSATION_SERVICE, fill_conversation, window_of
from harness import KINDS, serving
from results import machine, verdict
from texts import Texts

SHORT = 100
BOUND = 1.2
"""Of a window's median of the long conversation, over that of the short one."""


async def compare(kind: str, options: argparse.Namespace) -> None:
    requests = {
        session: window_of(session).SerializeToString()
        for session in (f"of-{SHORT}", f"of-{options.messages}")
    }
    async with AsyncExitStack() as stack:
        server = stack.enter_context(serving(kind, MEMORYD_LOG_LEVEL="error"))
        connections = await stack.enter_async_context(connected(server.address))
        for session, messages in zip(requests, (SHORT, options.messages), strict=True):
            await fill_conversation(connections, Texts(), session, messages)
        (window, *_) = connections.calls(CONVERSATION_SERVICE, "ListMessages")
        ratios = []
        for number in range(options.rounds + 1):
            taken: dict[str, list[float]] = {session: [] for session in requests}
            for call in range(options.calls):
                for session in sorted(requests, reverse=bool(call % 2)):
                    begun = time.perf_counter()
                    await window(requests[session])
                    taken[session].append((time.perf_counter() - begun) * 1e3)
            short, long = map(statistics.median, taken.values())
            if number:  # the first round warms up
                ratios.append(long / short)
                print(f"{kind:12}{short:8.2f}{long:10.2f}{long / short:8.2f}", flush=True)
        what = f"{kind}: the newest of {options.messages:,} messages, × of {SHORT}"
        print(verdict(what, statistics.median(ratios), BOUND), flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300, help="of each in a round")
    options = parser.parse_args()
    print(f"{machine()}; medians of {options.calls} calls in ms: short, long, their ratio")
    for kind in KINDS:
        await compare(kind, options)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
