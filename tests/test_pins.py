"""What is pinned is what pyproject.toml asks for, in one version everywhere."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MODULES = {file.stem for file in (ROOT / "service/memoryd/integrations").glob("*.py")}
FRAMEWORKS = tuple(extra for extra in EXTRAS if extra in MODULES)
SERVED = ("mcp",)
"""Frameworks that a server loads too."""
PINNED = {
    "constraints.txt": tuple(
        extra for extra in EXTRAS if extra not in FRAMEWORKS or extra in SERVED
    ),
    "constraints-integrations.txt": FRAMEWORKS,
    "constraints-server.txt": ("server", "semantic"),
    "constraints-aws.txt": ("aws",),
    "constraints-mcp.txt": ("mcp",),
    "constraints-telemetry.txt": ("telemetry",),
}


def test_every_extra_is_installed_somewhere():
    makefile = (ROOT / "Makefile").read_text()
    named = {
        kind: tuple(re.search(rf"^{kind} := (.*)$", makefile, re.MULTILINE)[1].split())
        for kind in ("EXTRAS", "FRAMEWORKS")
    }
    assert sorted(named["FRAMEWORKS"]) == sorted(FRAMEWORKS)
    assert sorted(named["EXTRAS"]) == sorted(PINNED["constraints.txt"])


def pins(file: str) -> dict[str, set[str]]:
    """The versions of each package; there may be several, each for some Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (ROOT / file).read_text(), re.MULTILINE
    ):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize("file", PINNED)
def test_what_is_asked_for_is_pinned(file):
    pinned = pins(file)
    wanted = [*PROJECT["dependencies"], *(one for extra in PINNED[file] for one in EXTRAS[extra])]
    for requirement in map(Requirement, wanted):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, f"make lock: {requirement.name} is not in {file}"
        assert all(version in requirement.specifier for version in versions), requirement


APART = {"constraints.txt", "constraints-integrations.txt"}
"""What is compared with, and what is installed apart from it."""


@pytest.mark.parametrize("file", sorted(PINNED.keys() - APART))
def test_what_serves_is_what_is_tested(file):
    everything = pins("constraints.txt")
    for name, versions in pins(file).items():
        assert versions <= everything[name], name


@pytest.mark.parametrize("file", PINNED)
def test_every_pin_has_hashes_and_no_address(file):
    text = (ROOT / file).read_text()
    packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert packages
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in text
