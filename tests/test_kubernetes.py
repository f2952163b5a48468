"""The manifests of deploy/kubernetes are what Kubernetes takes, and name what memoryd has."""

from __future__ import annotations

import asyncio
import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sqlalchemy import make_url
from tests.http_client import get

from memoryd.settings.service import settings_table

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy" / "kubernetes"
RELEASES = ("1.33", kubernetes_validate.latest_version())
"""Of Kubernetes: the oldest that the manifests are for, and the newest that is known."""

BY_NAME = {"containers", "env", "volumeMounts", "volumes"}
"""Lists whose items a patch finds by their names."""


@pytest.fixture
def database_kind() -> str:
    """SQLite only: what differs is how a server is started."""
    return "sqlite"


def manifests() -> dict[str, Any]:
    """What is applied, by its kind; of each kind there is one."""
    found = list(yaml.safe_load_all((FOLDER / "memoryd.yaml").read_text()))
    by_kind = {one["kind"]: one for one in found}
    assert len(by_kind) == len(found)
    return by_kind


def patched(base: Any, patch: Any, name: str = "") -> Any:
    """As `kubectl patch` makes it: maps are merged, and so are lists whose items have names."""
    if isinstance(patch, dict):
        merged = dict(base or {})
        for key, value in patch.items():
            merged[key] = patched(merged.get(key), value, key)
        return merged
    if name not in BY_NAME:
        return patch
    items = {one["name"]: one for one in base}
    for one in patch:
        items[one["name"]] = patched(items.get(one["name"]), one)
    return list(items.values())


def deployment(*, tls: bool) -> Any:
    plain = manifests()["Deployment"]
    if not tls:
        return plain
    return patched(copy.deepcopy(plain), yaml.safe_load((FOLDER / "tls.yaml").read_text()))


def pods() -> list[Any]:
    """The specifications of every pod."""
    found = [manifests()["Job"], deployment(tls=False), deployment(tls=True)]
    return [one["spec"]["template"]["spec"] for one in found]


def containers() -> list[Any]:
    return [one for pod in pods() for one in (*pod.get("initContainers", ()), *pod["containers"])]


def variables(container: Any) -> dict[str, str]:
    """What its environment says outright."""
    own = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return {**manifests()["ConfigMap"]["data"], **own}


@pytest.mark.parametrize("release", RELEASES)
def test_kubernetes_takes_them(release):
    for one in (*manifests().values(), deployment(tls=True)):
        kubernetes_validate.validate(one, release, strict=True)


def test_what_is_wrong_would_be_found():
    wrong = deployment(tls=False)
    wrong["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[0], strict=True)


def test_variables_are_settings_and_secrets_are_referred_to():
    known = {name for name, _, _ in settings_table()}
    for container in containers():
        said = variables(container)
        assert said.keys() <= known
        referred = {one["name"] for one in container["env"] if "valueFrom" in one}
        assert referred == {"PGPASSWORD"}  # which PostgreSQL's clients know
        assert make_url(said["MEMORYD_DATABASE_URL"]).password is None


def test_no_container_has_more_rights_than_it_needs():
    (user,) = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == int(user)
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"memory"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_server_has_the_time_to_drain():
    pod = deployment(tls=False)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(variables(container)["MEMORYD_DRAIN_SECONDS"])
    ends_by_itself = 15  # after which a parent of workers ends one
    assert pause + drain + ends_by_itself <= pod["terminationGracePeriodSeconds"]


def test_everything_means_the_same_pods_and_ports():
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert (
        found["PodDisruptionBudget"]["spec"]["minAvailable"]
        < found["Deployment"]["spec"]["replicas"]
    )
    assert found["Service"]["spec"]["selector"] == labels
    assert found["Job"]["spec"]["template"]["metadata"]["labels"] != labels
    pod = deployment(tls=False)["spec"]["template"]["spec"]
    ports = {one["name"]: one["containerPort"] for one in pod["containers"][0]["ports"]}
    said = variables(pod["containers"][0])
    assert {str(port) for port in ports.values()} == {
        said["MEMORYD_PORT"],
        said["MEMORYD_HTTP_PORT"],
    }
    assert {one["targetPort"]: one["port"] for one in found["Service"]["spec"]["ports"]} == ports


def test_its_commands_run_with_its_variables(command_line, database_url):
    migrate, first_key, server_container, _ = containers()
    own = {"MEMORYD_DATABASE_URL": database_url, "MEMORYD_PORT": "0", "MEMORYD_HTTP_PORT": "0"}
    for container in (migrate, first_key, first_key):  # a job may run it twice
        done = command_line.run(*container["args"], **variables(container) | own)
        assert done.returncode == 0, done.stderr
    # Not on every address of this machine.
    local = {"MEMORYD_HOST": "127.0.0.1"}
    server = command_line.start(
        *server_container["args"], **variables(server_container) | own | local
    )
    server.address()
    (http,) = re.findall(r"^memoryd http on http://(.*)$", server.output, re.MULTILINE)
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = server_container[probe]["httpGet"]
        assert asked["port"] == "http"
        # By the address of the pod, as a kubelet does.
        answer = asyncio.run(get(http, asked["path"], headers={"host": "10.0.0.7:50052"}))
        assert answer.status == 200
    assert server.stop() == 0


def test_with_tls_nothing_is_served_in_plaintext():
    pod = deployment(tls=True)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert variables(container)["MEMORYD_ALLOW_PLAINTEXT"] == "false"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["scheme"], asked["port"]) == ("HTTPS", "http")
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "tls"]
    for name in ("MEMORYD_TLS_CERT", "MEMORYD_TLS_KEY"):
        assert variables(container)[name].startswith(f"{mount['mountPath']}/tls.")
    # Others may not read the key; the group that the pod is in may.
    (volume,) = [one for one in pod["volumes"] if one["name"] == "tls"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
