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
    *("faults", "calls", "acknowledged", "documents", "conversations"),
    *("lost", "doubled", "interleaved", "other", "longest unavailable"),
)
ROW = "{:<40}{:>8}{:>10}{:>14}{:>11}{:>15}{:>6}{:>9}{:>13}{:>7}{:>21}"
OWN_COLUMNS = (Broken.LOST, Broken.DOUBLED, Broken.INTERLEAVED)


def row(name: str, injected: int, history: History, faults: Sequence[Fault]) -> str:
    """One line of the table; its columns `calls` and `acknowledged` have calls about memories."""
    counts = Counter(fault.kind for fault in faults)
    own = [counts.pop(kind, 0) for kind in OWN_COLUMNS]
    return ROW.format(
        name,
        f"{injected:,}",
        f"{history.count:,}",
        f"{history.acknowledged:,}",
        f"{history.answered['documents']:,}",
        f"{history.answered['conversations']:,}",
        *own,
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
