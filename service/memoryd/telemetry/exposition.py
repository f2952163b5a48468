"""What a scrape is answered: the families of all metrics, in the form that the scraper takes."""

from __future__ import annotations

import json
from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from memoryd.telemetry.instruments import NO_TENANT, OTHER_TENANT
from memoryd.telemetry.metrics import METRICS, MOST_TENANTS, TENANT, Kind, Of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from memoryd.telemetry.gauges import Reading
    from memoryd.telemetry.metrics import Metric

    Counts = Mapping[str, tuple[float, ...]]
    Series = dict[tuple[str, ...], list[float]]

OPENMETRICS = "application/openmetrics-text"

_COMBINED: dict[Of, Callable[[list[float]], float]] = {Of.SUM: sum, Of.LEAST: min, Of.GREATEST: max}
_WORKER = "worker"
"""The label of a series that each process has for itself."""


def exposed(
    accept: str, counts: Sequence[Counts], readings: Sequence[Reading], *, with_tenants: bool
) -> tuple[bytes, str]:
    """Give the body of an answer, and its content type.

    `counts` and `readings` are those of each process; `with_tenants`, whether the scraper may know
    the tenants.
    """
    # Who does not care gets OpenMetrics.
    encode, content_type = choose_encoder(OPENMETRICS if accept in {"", "*/*"} else accept)
    registry = CollectorRegistry()
    registry.register(_Families(counts, readings, with_tenants=with_tenants))
    return encode(registry), content_type


class _Families(Collector):
    def __init__(
        self, counts: Sequence[Counts], readings: Sequence[Reading], *, with_tenants: bool
    ) -> None:
        self._readings = readings
        self._counted = _added(counts)
        self._told_tenants = with_tenants and not self._has_too_many_tenants()

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            if metric.kind is Kind.GAUGE:
                yield self._gauge(metric)
            else:
                yield self._counted_family(metric)
        yield from _of_processes(self._readings)
        yield from _of_collectors(self._readings)
        yield from PlatformCollector(registry=None).collect()

    def _has_too_many_tenants(self) -> bool:
        tenants = {
            labels[metric.labels.index(TENANT)]
            for metric in METRICS
            if TENANT in metric.labels
            for labels in self._counted[metric.name]
        }
        return len(tenants - {NO_TENANT}) > MOST_TENANTS or OTHER_TENANT in tenants

    def _counted_family(self, metric: Metric) -> Family:
        labels, series = metric.labels, self._counted[metric.name]
        if TENANT in labels and not self._told_tenants:
            place = labels.index(TENANT)
            labels, series = labels[:place], _summed(series, place)
        seen = {key[0] for key in series if key}
        for value in metric.known:
            if value not in seen:
                series = {**series, (value, *[""] * (len(labels) - 1)): [0.0]}
        nothing = [0.0] * (len(metric.buckets) + 2)
        if metric.beside:
            series = {(*key[:-1], metric.beside): nothing for key in series} | series
        if not labels and not series:
            series = {(): nothing}
        if metric.kind is Kind.COUNTER:
            counter = CounterMetricFamily(metric.name, metric.help, labels=labels)
            for key, numbers in sorted(series.items()):
                counter.add_metric(key, numbers[0])
            return counter
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels, unit=metric.unit)
        for key, numbers in sorted(series.items()):
            histogram.add_metric(key, _cumulative(metric.buckets, numbers[1:]), numbers[0])
        return histogram

    def _gauge(self, metric: Metric) -> Family:
        found: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
        for reading in self._readings:
            for name, labels, value in reading.gauges:
                if name == metric.name:
                    found[labels].append(value)
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        for labels, values in sorted(found.items()):
            family.add_metric(labels, _COMBINED[metric.workers](values))
        return family


def _added(counts: Iterable[Counts]) -> defaultdict[str, Series]:
    """The series of each metric, with what all processes have counted."""
    found: defaultdict[str, Series] = defaultdict(dict)
    for of_process in counts:
        for key, numbers in of_process.items():
            name, *labels = json.loads(key)
            _add(found[name], tuple(labels), numbers)
    return found


def _summed(series: Series, place: int) -> Series:
    """The series without a label."""
    found: Series = {}
    for labels, numbers in series.items():
        _add(found, labels[:place] + labels[place + 1 :], numbers)
    return found


def _add(series: Series, labels: tuple[str, ...], numbers: Sequence[float]) -> None:
    before = series.get(labels)
    if before is None:
        series[labels] = [*numbers]
    else:
        series[labels] = [one + more for one, more in zip(before, numbers, strict=True)]


def _cumulative(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each counts those below it too."""
    total, found = 0.0, []
    for bound, count in zip((*bounds, inf), counts, strict=True):
        total += count
        found.append(("+Inf" if bound == inf else str(bound), total))
    return found


def _of_processes(readings: Iterable[Reading]) -> Iterator[Family]:
    """Those of the library, of each process; with workers they say which."""
    families: dict[str, Family] = {}
    for reading in readings:
        pid = reading.pid
        collector = ProcessCollector(pid=lambda: pid, registry=None)  # noqa: B023  called at once
        for found in collector.collect():
            family = families.setdefault(
                found.name, Family(found.name, found.documentation, found.type)
            )
            for sample in found.samples:
                of_worker = dict(zip(_labels(reading), _values(reading), strict=True))
                family.add_sample(sample.name, of_worker, sample.value)
    yield from families.values()


def _of_collectors(readings: Sequence[Reading]) -> Iterator[Family]:
    """What Python's garbage collector has done, named as the library names it."""
    for name, field, text in (
        ("python_gc_objects_collected", "collected", "Objects collected during gc"),
        ("python_gc_objects_uncollectable", "uncollectable", "Uncollectable objects found"),
        ("python_gc_collections", "collections", "Number of times a generation was collected"),
    ):
        family = CounterMetricFamily(name, text, labels=("generation", *_labels(readings[0])))
        for reading in readings:
            for generation, done in enumerate(reading.collections):
                family.add_metric((str(generation), *_values(reading)), done[field])
        yield family


def _labels(reading: Reading) -> tuple[str, ...]:
    return (_WORKER,) if reading.worker else ()


def _values(reading: Reading) -> tuple[str, ...]:
    return (reading.worker,) if reading.worker else ()
