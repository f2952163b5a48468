"""The files of TLS: what stops a start, and what the message says."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.authority import DAY, Authority, Folder, Issued, pem_of

from memoryd import certificates
from memoryd.certificates import CertificateFault, is_exposed, name_in, usable_pair
from memoryd.settings.reading import SettingsError
from memoryd.settings.service import Settings, load_settings

CERT, KEY, CLIENT_CA = "MEMORYD_TLS_CERT", "MEMORYD_TLS_KEY", "MEMORYD_TLS_CLIENT_CA"


def settings_of(**variables: str) -> Settings:
    return load_settings(environ=variables, dotenv=None, flags={})


def pair_of(folder: Folder) -> certificates.TlsPair:
    files = settings_of(**folder.variables).tls_files()
    assert files is not None
    return usable_pair(files)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> Folder:
    return Folder(tmp_path / "tls", authority.issue(), authority.pem)


def fault_of(folder: Folder) -> str:
    with pytest.raises(CertificateFault) as caught:
        pair_of(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "BEGIN" not in message
    return message


def test_a_good_pair_is_taken(folder, authority):
    pair = pair_of(folder)
    assert (pair.chain, pair.key) == (folder.cert.read_bytes(), folder.key.read_bytes())
    assert pair.client_ca == authority.pem
    assert str(pair.key) not in repr(pair)


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
    ],
    ids=["RSA", "P-256", "P-384"],
)
def test_keys_that_clients_verify_are_taken(folder, authority, key):
    folder.write(authority.issue(key=key))
    assert pair_of(folder).key == pem_of(key)


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["P-521", "Ed25519"],
)
def test_keys_that_clients_do_not_verify_are_refused(folder, authority, key):
    folder.write(authority.issue(key=key))
    message = fault_of(folder)
    assert message.startswith(f"{KEY}: {folder.key} ")
    assert "use RSA, or ECDSA with P-256 or P-384" in message


def test_a_key_of_another_certificate_is_refused(folder, authority):
    folder.key.write_bytes(authority.issue().key)
    message = fault_of(folder)
    assert message.startswith(f"{KEY}: {folder.key} does not belong to")
    assert f"{folder.cert} ({CERT})" in message


def test_the_servers_own_certificate_is_the_first(folder, authority):
    folder.cert.write_bytes(authority.pem + folder.cert.read_bytes())
    assert "first certificate" in fault_of(folder)


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [
        (-2 * DAY, timedelta(seconds=-1), "has expired on"),
        (timedelta(minutes=1), DAY, "is not valid before"),
    ],
    ids=["expired", "not yet valid"],
)
def test_a_certificate_out_of_its_time_is_refused(folder, authority, begins, ends, said):
    folder.write(authority.issue(begins=begins, ends=ends))
    message = fault_of(folder)
    assert message.startswith(f"{CERT}: {folder.cert} {said}")
    assert "certificate" in message


def test_a_ca_that_has_expired_is_refused(folder):
    folder.client_ca.write_bytes(Authority(lasts=-DAY).pem)
    assert fault_of(folder).startswith(f"{CLIENT_CA}: {folder.client_ca} has expired")


def test_one_ca_of_a_bundle_may_have_expired(folder, authority):
    folder.client_ca.write_bytes(Authority(lasts=-DAY).pem + authority.pem)
    pair_of(folder)


GARBAGE = (b"", b"\0\xff", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
VARIABLES = ((CERT, "cert"), (KEY, "key"), (CLIENT_CA, "client_ca"))


@pytest.mark.parametrize("garbage", GARBAGE, ids=["empty", "binary", "damaged"])
@pytest.mark.parametrize(("variable", "name"), VARIABLES)
def test_what_is_no_pem_is_refused(folder, variable, name, garbage):
    file = getattr(folder, name)
    file.write_bytes(garbage)
    message = fault_of(folder)
    assert message.startswith(f"{variable}: {file} has no readable ")
    assert "PEM" in message


@pytest.mark.parametrize(("variable", "name"), VARIABLES)
@pytest.mark.parametrize("kind", ["missing", "folder", "huge"])
def test_what_cannot_be_read_is_refused(folder, variable, name, kind, monkeypatch):
    file = getattr(folder, name)
    if kind == "huge":
        monkeypatch.setattr(certificates, "MAX_FILE_BYTES", 5000)
        file.write_bytes(b" " * 5001)
    else:
        file.unlink()
        if kind == "folder":
            file.mkdir()
    message = fault_of(folder)
    assert message.startswith(f"{variable}: {file} ")
    assert "name a PEM file" in message


def test_a_key_with_a_passphrase_is_refused(folder):
    key = ec.generate_private_key(ec.SECP256R1())
    folder.key.write_bytes(pem_of(key, b"swordfish"))
    assert "without a passphrase" in fault_of(folder)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_key_of_others_is_refused(folder, mode):
    folder.key.chmod(mode)
    assert fault_of(folder).startswith(f"{KEY}: {folder.key} can be read by others: chmod 600 ")


@pytest.mark.parametrize(
    ("mode", "owner", "user", "exposed"),
    [
        (0o600, 1000, 1000, False),
        (0o400, 1000, 1000, False),
        (0o640, 1000, 1000, True),
        (0o640, 0, 1000, False),  # root's, and the group's that the process is in
        (0o440, 0, 1000, False),
        (0o660, 0, 1000, True),
        (0o644, 0, 1000, True),
        (0o640, 0, 0, True),
    ],
)
def test_who_may_read_a_key(mode, owner, user, exposed):
    status = SimpleNamespace(st_mode=stat.S_IFREG | mode, st_uid=owner)
    assert is_exposed(status, user) is exposed


def test_a_pair_expires_while_it_is_served(folder):
    files = settings_of(**folder.variables).tls_files()
    pair = usable_pair(files)
    pair.require_valid(datetime.now(UTC), files.certificate)
    with pytest.raises(CertificateFault, match="has expired on"):
        pair.require_valid(pair.expires, files.certificate)


@pytest.mark.parametrize(
    ("name", "found"), [("memoryd.test", "memoryd.test"), ("*.test", "memoryd.test")]
)
def test_a_name_in_a_certificate(authority, name, found):
    assert name_in(authority.issue(name).chain) == found


def test_a_certificate_may_have_no_name(authority):
    assert name_in(authority.pem) is None


PROBLEMS: list[tuple[dict[str, str], str]] = [
    ({CERT: "a"}, f"{CERT} (environment): set without {KEY}; set both {CERT} and {KEY}"),
    ({KEY: "a"}, f"{KEY} (environment): set without {CERT}; set both {CERT} and {KEY}"),
    ({CLIENT_CA: "a"}, f"{CLIENT_CA} (environment): set without {CERT} and {KEY}; set both"),
    ({"MEMORYD_TLS_MIN": "1.3"}, "MEMORYD_TLS_MIN (environment): set without MEMORYD_TLS_CERT"),
    (
        {CERT: "a", KEY: "b", "MEMORYD_TLS_MIN": "1.1"},
        'MEMORYD_TLS_MIN (environment): "1.1"; expected 1.2 or 1.3',
    ),
    (
        {"MEMORYD_PORT": "7", "MEMORYD_HEALTH_PORT": "7"},
        "MEMORYD_HEALTH_PORT (environment): 7; it is MEMORYD_PORT too: set it to another port",
    ),
]


@pytest.mark.parametrize(("variables", "problem"), PROBLEMS)
def test_settings_that_do_not_fit_together(variables, problem):
    with pytest.raises(SettingsError) as caught:
        settings_of(**variables)
    assert str(caught.value).startswith(problem)


def test_a_key_in_place_of_its_file_is_not_shown(authority):
    issued: Issued = authority.issue()
    with pytest.raises(SettingsError) as caught:
        settings_of(**{CERT: "a", KEY: issued.key.decode()})
    message = str(caught.value)
    assert message.startswith(f"{KEY} (environment): a text; expected the path of a PEM file")
    assert "PRIVATE KEY" not in message


def test_what_the_client_reads_is_no_unknown_setting():
    settings_of(MEMORYD_TARGET="localhost:50051", MEMORYD_API_KEY="mdk_x")


def test_plaintext_is_the_default():
    assert settings_of().tls_files() is None
