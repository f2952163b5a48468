"""The board, the alerts and the compose profile: all that they name exists, and is explained."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml
from tests.scrapes import scrape

from memoryd.telemetry.metrics import METRICS, Kind
from memoryd.v1 import memory_pb2 as pb

ROOT = Path(__file__).parents[1]
BOARD = json.loads((ROOT / "deploy/grafana/dashboards/memoryd.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts_test.yml").read_text())["tests"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

PROMETHEUS_OWN = {"job", "instance"}
"""The labels that Prometheus gives every series that it scrapes."""
OF_WORKERS = "worker"
GRAFANAS = {"$__rate_interval": "5m", "$job": "x", "$instance": "x"}


def board_expressions() -> list[str]:
    found = [target["expr"] for panel in PANELS for target in panel["targets"]]
    for name, value in GRAFANAS.items():
        found = [expression.replace(name, value) for expression in found]
    return found


EXPRESSIONS = [*board_expressions(), *(rule["expr"] for rule in RULES)]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def groupings(expression: str) -> set[str]:
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
async def known(running) -> dict[str, set[str]]:
    """The series that a server tells of, with their labels."""
    request = pb.StoreMemoryRequest(session_id="user-123", content="prefers e-mail")
    await running.memory.StoreMemory(request)
    found = await scrape(running.server.http_address)
    series: dict[str, set[str]] = {"up": set()}
    for family in found.families.values():
        for sample in family.samples:
            of_process = family.name.startswith(("process_", "python_"))
            more = {OF_WORKERS} if of_process else set()
            series.setdefault(sample.name, set()).update(sample.labels, more)
    for metric in METRICS:  # some have no sample yet
        for name in metric.series:
            bound = {"le"} if name.endswith("_bucket") else set()
            series.setdefault(name, set()).update(metric.labels, bound)
    return series


async def test_expressions_name_what_servers_tell_of(known):
    assert len(EXPRESSIONS) > 30
    for expression in EXPRESSIONS:
        used = selectors(expression)
        assert used, expression
        labels = set(PROMETHEUS_OWN)
        for selector in used:
            assert selector.name in known, expression
            labels |= known[selector.name]
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert asked <= known[selector.name] | PROMETHEUS_OWN, expression
        assert groupings(expression) <= labels, expression


def test_an_expression_that_names_nothing_would_be_found():
    (selector,) = selectors('sum by (nothing) (rate(memoryd_nothing_total{no="x"}[5m]))')
    assert selector.name == "memoryd_nothing_total"
    assert [matcher.name for matcher in selector.matchers.matchers] == ["no"]
    assert groupings("sum by (nothing) (up)") == {"nothing"}
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(")


def test_every_metric_is_on_the_board():
    shown = {s.name for expression in board_expressions() for s in selectors(expression)}
    for metric in METRICS:
        assert shown & set(metric.series), metric.name


class TestTheBoard:
    def test_every_panel_says_what_it_shows(self):
        ids = [panel["id"] for panel in BOARD["panels"]]
        assert len({*ids}) == len(ids)
        titles = [panel["title"] for panel in PANELS]
        assert len({*titles}) == len(titles)
        for panel in PANELS:
            assert panel["description"].endswith("."), panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
            for target in panel["targets"]:
                assert target["datasource"]["uid"] == "${datasource}"
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    assert label in target["expr"] or label in {"instance", "worker"}

    def test_every_series_is_of_the_chosen_instances(self):
        for panel in PANELS:
            for target in panel["targets"]:
                count = len(selectors(target["expr"].replace("$__rate_interval", "5m")))
                assert target["expr"].count('job=~"$job",instance=~"$instance"') == count

    def test_no_panel_covers_another(self):
        places = [(panel["title"], panel["gridPos"]) for panel in BOARD["panels"]]
        for (one, a), (other, b) in itertools.combinations(places, 2):
            beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
            below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            assert beside or below, (one, other)
        assert all(place["x"] + place["w"] <= 24 for _, place in places)

    def test_its_variables_are_there(self):
        names = {variable["name"] for variable in BOARD["templating"]["list"]}
        assert names == {"datasource", "job", "instance"}


class TestTheAlerts:
    def test_each_has_what_its_reader_needs(self):
        page = (ROOT / "docs/alerts.md").read_text()
        for rule in RULES:
            name = rule["alert"]
            assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}, name
            assert re.fullmatch(r"Memoryd[A-Z][A-Za-z]+", name)
            assert rule["labels"]["severity"] in {"critical", "warning"}, name
            assert rule["annotations"]["summary"], name
            assert rule["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
            assert f"### {name}\n" in page, f"docs/alerts.md does not say what to do about {name}"

    def test_the_page_names_no_other(self):
        page = (ROOT / "docs/alerts.md").read_text()
        named = re.findall(r"^### (Memoryd\w+)$", page, re.MULTILINE)
        assert named == [rule["alert"] for rule in RULES]

    def test_each_is_tested_where_it_is_due_and_where_it_is_not(self):
        cases = [case for test in TESTS for case in test["alert_rule_test"]]
        for rule in RULES:
            due = [bool(c.get("exp_alerts")) for c in cases if c["alertname"] == rule["alert"]]
            assert {*due} == {True, False}, rule["alert"]

    async def test_their_tests_feed_series_that_there_are(self, known):
        for test in TESTS:
            for given in test["input_series"]:
                (selector,) = selectors(given["series"])
                asked = {matcher.name for matcher in selector.matchers.matchers}
                assert asked <= known[selector.name] | PROMETHEUS_OWN, given["series"]


class TestThePage:
    PAGE = (ROOT / "docs/telemetry.md").read_text()

    def test_its_table_is_that_of_the_code(self):
        table = re.search(r"<!-- metrics -->\n(.*?)\n<!-- end of metrics -->", self.PAGE, re.DOTALL)
        assert table is not None
        lines = ["| metric | type | labels | what it tells |", "|---|---|---|---|"]
        for metric in METRICS:
            name = metric.series[0] if metric.kind is Kind.COUNTER else metric.name
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            cells = (f"`{name}`", metric.kind.value, labels, metric.help)
            lines.append("".join(f"| {cell} " if cell else "| " for cell in cells) + "|")
        assert table[1].splitlines() == lines

    def test_its_commands_print_what_it_says(self, command_line, database_url):
        server = command_line.serve(MEMORYD_DATABASE_URL=database_url)
        server.address()
        http = server.output.partition("memoryd http on http://")[2].splitlines()[0]
        printed = self.PAGE.partition("<!-- session")[2].partition("```console\n")[2]
        parts = [part.partition("\n") for part in printed.partition("```")[0].split("$ ")[1:]]
        assert len(parts) == 3
        for command, _, output in parts:
            assert command_line.shell(command.replace("localhost:50052", http)) == output


class TestTheProfile:
    def test_its_images_are_pinned_and_its_ports_are_this_machines(self):
        services = COMPOSE["services"]
        of_profile = [s for s in services.values() if s.get("profiles") == ["observability"]]
        assert len(of_profile) == 3
        for service in of_profile:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
            assert all(port.startswith("127.0.0.1:") for port in service["ports"])
            for volume in service.get("volumes", ()):
                source = volume.partition(":")[0]
                is_named = source in COMPOSE["volumes"]
                assert is_named or (ROOT / source).is_dir(), volume

    def test_it_scrapes_the_port_that_the_service_publishes(self):
        scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        (job,) = scraped["scrape_configs"]
        assert job["job_name"] == "memoryd"
        assert job["static_configs"][0]["targets"] == ["memoryd:50052"]
        assert any(p.endswith(":50052") for p in COMPOSE["services"]["memoryd"]["ports"])

    def test_the_board_is_where_grafana_looks(self):
        provider = yaml.safe_load(
            (ROOT / "deploy/grafana/provisioning/dashboards/memoryd.yml").read_text()
        )["providers"][0]
        path = provider["options"]["path"]
        volumes = COMPOSE["services"]["grafana"]["volumes"]
        assert f"./deploy/grafana/dashboards:{path}:ro" in volumes
