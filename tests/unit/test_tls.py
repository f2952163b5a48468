"""When a server takes up files of TLS that have changed, and when it warns."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.authority import DAY, Folder

from memoryd.certificates import NamedFile, TlsFiles
from memoryd.rpc import tls
from memoryd.rpc.tls import Tls


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def moved() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


@pytest.fixture
async def served(tls_folder: Folder, moved: Clock, monkeypatch) -> AsyncIterator[Tls]:
    """A server's TLS, which looks at its files only when it is told to."""
    monkeypatch.setattr(tls, "LOOK_SECONDS", 3600)
    files = TlsFiles(NamedFile("CERT", tls_folder.cert), NamedFile("KEY", tls_folder.key), None)
    served = Tls(files, moved)
    await served.start()
    yield served
    await served.stop()


def messages(caplog, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_files_in_the_middle_of_a_renewal_are_not_judged(
    tls_folder, served, authority, caplog
):
    caplog.set_level(logging.INFO, "memoryd.rpc.tls")
    renewed = authority.issue()
    tls_folder.cert.write_bytes(renewed.chain)
    served.look()
    tls_folder.key.write_bytes(renewed.key)
    served.look()
    assert messages(caplog, logging.INFO) == []
    served.look()
    assert messages(caplog, logging.INFO) == ["serving a renewed certificate"]
    assert messages(caplog, logging.WARNING) == []


async def test_a_certificate_that_expires_while_it_is_served_is_one_warning(served, moved, caplog):
    moved.now += 31 * DAY
    for _ in range(3):
        served.look()
    (warning,) = messages(caplog, logging.WARNING)
    assert "has expired on" in warning
    assert "renew the certificate" in warning


async def test_a_pair_whose_time_comes_is_taken_up(tls_folder, served, authority, moved, caplog):
    caplog.set_level(logging.INFO, "memoryd.rpc.tls")
    tls_folder.write(authority.issue(begins=timedelta(hours=1)))
    for _ in range(3):
        served.look()
    assert len(messages(caplog, logging.WARNING)) == 1
    assert messages(caplog, logging.INFO) == []
    moved.now += timedelta(hours=2)
    served.look()
    assert messages(caplog, logging.INFO) == ["serving a renewed certificate"]
