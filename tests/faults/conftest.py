"""The report of the fault suite, printed at the end of a run."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from .history import History
from .nodes import Pair
from .promises import Broken, Fault

HEADINGS = (
    *("faults", "calls", "acknowledged", "documents"),
    *("lost", "doubled", "other", "longest unavailable"),
)
ROW = "{:<40}{:>8}{:>10}{:>14}{:>11}{:>6}{:>9}{:>7}{:>21}"


def row(name: str, injected: int, history: History, faults: Sequence[Fault]) -> str:
    """One line of the table; only its column `documents` has calls about documents."""
    counts = Counter(fault.kind for fault in faults)
    lost, doubled = counts.pop(Broken.LOST, 0), counts.pop(Broken.DOUBLED, 0)
    return ROW.format(
        name,
        f"{injected:,}",
        f"{history.count:,}",
        f"{history.acknowledged:,}",
        f"{history.answered['documents']:,}",
        lost,
        doubled,
        counts.total(),
        f"{history.longest_unavailability():.2f} s",
    )


@pytest.fixture
def fault_report(record_property) -> Callable[[str, int, History, Sequence[Fault]], None]:
    """Report one line at the end: name, faults injected, what was recorded, what was broken."""

    def report(name: str, injected: int, history: History, faults: Sequence[Fault]) -> None:
        record_property("fault_report", row(name, injected, history, faults))

    return report


@pytest.fixture(scope="session")
def pair(postgres_server) -> Iterator[Pair]:
    """A PostgreSQL with a standby, for faults. A test restores it to working order."""
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        pair = Pair(Path(folder), postgres_server.system_user)
        yield pair
        pair.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, except under xdist, which collects it in other processes."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == "fault_report"
    ]
    if rows:
        terminalreporter.section("faults")
        for line in (ROW.format("", *HEADINGS), *rows):
            terminalreporter.write_line(line)
