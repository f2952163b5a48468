"""What a scrape says, read by the parser of Prometheus's library."""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from .http_client import get


class Scrape:
    """The families of a scrape in OpenMetrics, by their names, and its text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def value(self, series: str, **labels: str) -> float:
        """The sum of the samples of a series that have these labels."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == series and labels.items() <= sample.labels.items()
        )

    def labels(self, series: str) -> list[dict[str, str]]:
        """The labels of each sample of a series."""
        return [
            dict(sample.labels)
            for family in self.families.values()
            for sample in family.samples
            if sample.name == series
        ]


async def scrape(http: str, key: str = "") -> Scrape:
    """Scrape an address, with a key if one is given."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    reply = await get(http, "/metrics", headers=headers)
    assert reply.status == 200, reply.body
    return Scrape(reply.body.decode())
