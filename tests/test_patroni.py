"""The files of deploy/patroni fit each other, and name what memoryd has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from memoryd.database.urls import check_url
from memoryd.settings.service import settings_table

FOLDER = Path(__file__).parents[1] / "deploy" / "patroni"
COMPOSE = yaml.safe_load((FOLDER / "compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
HAPROXY = (FOLDER / "haproxy.cfg").read_text()
PATRONI = yaml.safe_load((FOLDER / "patroni.yml").read_text())

NODES = {name for name in SERVICES if name.startswith("db") and name != "database"}

OF_POSTGRESQL = {"PGPASSWORD"}
"""What PostgreSQL's clients read from the environment."""


def presets() -> dict[str, str]:
    """What HAProxy's file says where the environment does not."""
    return dict(re.findall(r"(?m)^    presetenv (\w+) (\S+)$", HAPROXY))


def ours() -> dict[str, dict[str, str]]:
    """The environment of each service of memoryd's image."""
    return {
        name: service["environment"]
        for name, service in SERVICES.items()
        if service.get("image") == "memoryd"
    }


def test_variables_are_settings_and_urls_lead_to_haproxy():
    known = {name for name, _, _ in settings_table()} | OF_POSTGRESQL
    assert {"migrate", "first-key", "memoryd1", "memoryd2"} == ours().keys()
    places = {
        "MEMORYD_DATABASE_URL": presets()["PRIMARY_PORT"],
        "MEMORYD_DATABASE_READ_URL": presets()["STANDBY_PORT"],
    }
    for environment in ours().values():
        assert environment.keys() <= known
        for variable, port in places.items():
            check_url(environment[variable])
            url = make_url(environment[variable])
            assert (url.host, str(url.port), url.password) == ("haproxy", port, None)


def test_haproxy_knows_every_node():
    assert {presets()[f"DB{number}"] for number in (1, 2, 3)} == NODES
    sections = re.findall(r"(?ms)^listen (\w+)\n(.*?)(?=^\S|\Z)", HAPROXY)
    assert [name for name, _ in sections] == ["primary", "synchronous_standby"]
    for _, section in sections:
        assert set(re.findall(r'server (db\d) "\$\{DB(\d)\}', section)) == {
            (name, name[-1]) for name in NODES
        }
    ports = presets()["POSTGRESQL_PORT"], presets()["PATRONI_PORT"]
    listening = PATRONI["postgresql"]["listen"], PATRONI["restapi"]["listen"]
    assert tuple(each.rpartition(":")[2] for each in listening) == ports


@pytest.mark.parametrize("node", sorted(NODES))
def test_a_node_says_who_it_is_and_keeps_its_data(node):
    environment = SERVICES[node]["environment"]
    assert environment["PATRONI_NAME"] == node
    assert environment["PATRONI_RESTAPI_CONNECT_ADDRESS"] == f"{node}:8008"
    assert environment["PATRONI_POSTGRESQL_CONNECT_ADDRESS"] == f"{node}:5432"
    (volume,) = SERVICES[node]["volumes"]
    name, _, place = volume.partition(":")
    assert name in COMPOSE["volumes"]
    assert environment["PATRONI_POSTGRESQL_DATA_DIR"].startswith(f"{place}/")
    hosts = environment["PATRONI_ETCD3_HOSTS"].split(",")
    assert {host.partition(":")[0] for host in hosts} <= SERVICES.keys()


def test_the_variables_that_a_node_needs_are_those_that_are_set():
    comment = (FOLDER / "patroni.yml").read_text().partition("\nscope:")[0]
    named = set(re.findall(r"\bPATRONI_[A-Z0-9_]*[A-Z]\b", comment))
    optional = {"PATRONI_POSTGRESQL_BIN_DIR"}
    for node in NODES:
        own = {name for name in SERVICES[node]["environment"] if name.startswith("PATRONI_")}
        assert own == named - optional


def test_nothing_acknowledged_is_lost_and_a_lock_outlasts_its_renewal():
    dcs = PATRONI["bootstrap"]["dcs"]
    assert dcs["synchronous_mode"] is True
    assert dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]


def test_files_that_are_mounted_are_there():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("."):
                assert (FOLDER / volume.partition(":")[0]).is_file(), volume


def test_pgbouncer_goes_by_haproxy():
    text = (FOLDER / "pgbouncer.ini").read_text()
    assert f"* = host=haproxy port={presets()['PRIMARY_PORT']}\n" in text
    assert "pool_mode = transaction\n" in text


def test_every_pin_has_hashes_and_no_address():
    text = (FOLDER / "requirements.txt").read_text()
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert {"patroni", "psycopg", "setuptools"} <= {each.partition("==")[0] for each in packages}
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text
