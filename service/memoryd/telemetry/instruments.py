"""What counts and times: on the event loop, in a fraction of a microsecond."""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol

from memoryd.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memoryd.telemetry.cells import Cells
    from memoryd.telemetry.metrics import Metric

OTHER_TENANT = "*"
"""Stands for each tenant beyond the most that are told apart; it is no tenant's name."""
NO_TENANT = ""
"""Of a caller who is not known."""


class Counter(Protocol):
    """Numbers that only grow, by the values of labels."""

    def add(self, amount: float, *labels: str) -> None: ...


class Histogram(Protocol):
    """How many values were at most each of some bounds, and the sum of all."""

    def observe(self, value: float, *labels: str) -> None: ...


class Instruments:
    """All of a process, which count nothing unless something is to ask for it."""

    def __init__(self, cells: Cells | None = None) -> None:
        """Without `cells` nothing is counted."""
        self._cells = cells
        self.calls = self._histogram(metrics.CALLS)
        self.stores = self._counter(metrics.STORES)
        self.refusals = self._counter(metrics.REFUSALS)
        self.write_seconds = self._histogram(metrics.WRITE_SECONDS)
        self.write_items = self._histogram(metrics.WRITE_ITEMS)
        self.cache_requests = self._counter(metrics.CACHE_REQUESTS)
        self.swept = self._counter(metrics.SWEPT)
        self._tenants: set[str] = set()

    def told_apart(self, tenant: str) -> str:
        """The tenant as a label: by its name, unless there are too many of them."""
        if tenant in self._tenants or tenant == NO_TENANT:
            return tenant
        if len(self._tenants) < metrics.MOST_TENANTS:
            self._tenants.add(tenant)
            return tenant
        return OTHER_TENANT

    def counts(self) -> Mapping[str, tuple[float, ...]]:
        """What has been counted, by the keys that `key_of` gives."""
        return {} if self._cells is None else self._cells.read()

    def _counter(self, metric: Metric) -> Counter:
        return _NOTHING if self._cells is None else _CellCounter(metric, self._cells)

    def _histogram(self, metric: Metric) -> Histogram:
        return _NOTHING if self._cells is None else _CellHistogram(metric, self._cells)


def key_of(name: str, labels: tuple[str, ...]) -> str:
    """What a series is kept by."""
    return json.dumps([name, *labels], ensure_ascii=False, separators=(",", ":"))


class _Nothing:
    def add(self, amount: float, *labels: str) -> None: ...

    def observe(self, value: float, *labels: str) -> None: ...


class _CellCounter:
    def __init__(self, metric: Metric, cells: Cells) -> None:
        self._name = metric.name
        self._cells = cells
        self._numbers = cells.numbers
        self._places: dict[tuple[str, ...], int] = {}

    def add(self, amount: float, *labels: str) -> None:
        place = self._places.get(labels)
        if place is None:
            place = self._places[labels] = self._cells.place(key_of(self._name, labels), 1)
        self._numbers[place] += amount


class _CellHistogram:
    def __init__(self, metric: Metric, cells: Cells) -> None:
        self._name = metric.name
        self._bounds = metric.buckets
        self._cells = cells
        self._numbers = cells.numbers
        self._places: dict[tuple[str, ...], int] = {}

    def observe(self, value: float, *labels: str) -> None:
        place = self._places.get(labels)
        if place is None:
            key, count = key_of(self._name, labels), len(self._bounds) + 2
            place = self._places[labels] = self._cells.place(key, count)
        # The sum, then how many are within each bound and beyond the one before it.
        numbers = self._numbers
        numbers[place] += value
        numbers[place + 1 + bisect_left(self._bounds, value)] += 1.0


_NOTHING = _Nothing()
SILENT = Instruments()
