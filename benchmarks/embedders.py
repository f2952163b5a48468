"""What the embedders cost: loading, memory, a query, and a text among many.

python benchmarks/embedders.py

Each runs in a process of its own with one thread of BLAS, as a server has it, and embeds the
queries and facts of `facts.txt`. Times are the least of several rounds; memory is what the process
has more than before, once all is embedded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from memoryd.recall.embedders.embedder import KNOWN, EmbedderUnavailable, embed_contents, load
from memoryd.recall.signals import meaning_of_text

ROUNDS = 5
QUERIES = 100
TEXTS = 256
AT_ONCE = 16
MARK = "? "


def resident() -> float:
    """The memory that this process has, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(choice: str) -> None:
    """Print a row of the table."""
    import numpy as np  # noqa: F401, PLC0415  counts for no embedder

    lines = Path(__file__).with_name("facts.txt").read_text(encoding="utf-8").splitlines()
    queries = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)][:QUERIES]
    texts = [line for line in lines if line[:1].isalpha()][:TEXTS]
    before = resident()
    began = time.perf_counter()
    embedder = load(choice)
    if embedder is None:
        raise SystemExit(f"{choice} is no embedder")
    embedder.embed(queries[:1])
    loading = time.perf_counter() - began
    alone, together = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for query in queries:
            meaning_of_text(query, embedder)
        alone.append((time.perf_counter() - began) / len(queries))
        began = time.perf_counter()
        for start in range(0, len(texts), AT_ONCE):
            embed_contents(embedder, texts[start : start + AT_ONCE])
        together.append((time.perf_counter() - began) / len(texts))
    print(
        f"{choice:14}{loading:9.2f}{resident() - before:8.0f}"
        f"{min(alone) * 1e3:11.3f}{min(together) * 1e3:11.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="measure this one, in this process")
    only = parser.parse_args().only
    if only:
        measure(only)
        return
    print(f"{'':14}{'load s':>9}{'MB':>8}{'ms a query':>11}{'ms a text':>11}", flush=True)
    for choice in KNOWN:
        try:
            load(choice)
        except EmbedderUnavailable as error:
            print(error)
            continue
        command = [sys.executable, __file__, "--only", choice]
        subprocess.run(command, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})  # noqa: S603  our own


if __name__ == "__main__":
    main()
