"""Plots of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt
from results import ECHO
from work import WORK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from results import Results

ROWS = ("store", "get", "top_small", "query")


def plot_load(results: Results, folder: Path) -> None:
    """Median and 99th percentile of the latency against the number of callers."""
    figure, places = plt.subplots(1, len(ROWS), figsize=(4 * len(ROWS), 4), sharey=True)
    for axes, row in zip(places, ROWS, strict=True):
        loads = WORK[row].callers
        for colour, kind in enumerate((ECHO, "sqlite", "postgresql")):
            for what, style in (("p50", "-"), ("p99", ":")):
                axes.plot(
                    loads,
                    [results.median(row, kind, callers, what) for callers in loads],
                    style,
                    color=f"C{colour}",
                    marker="o",
                    label=f"{kind} {what}",
                )
        axes.set(xscale="log", yscale="log", xlabel="callers", title=WORK[row].label)
        axes.set_xticks(loads, loads)
        axes.grid(alpha=0.3)
    places[0].set_ylabel("ms")
    places[-1].legend(fontsize="small")
    _save(figure, folder / "latency.png")


def plot_growth(sizes: Sequence[int], lines: Mapping[str, Sequence[float]], file: Path) -> None:
    """Latencies in milliseconds against the number of memories in the tables."""
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, values in lines.items():
        axes.plot(sizes, values, marker="o", label=name)
    axes.set(xscale="log", ylim=0, xlabel="memories in the tables", ylabel="p50 of one caller, ms")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, file)


def _save(figure: Any, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    figure.tight_layout()
    figure.savefig(file, dpi=100)
