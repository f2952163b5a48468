"""Fuzz the settings: the result is a configuration, or a refusal that shows no secret.

python -m tests.fuzz.settings SECONDS [SEED[:ROUND]]

A round is an environment and a `.env` file of any bytes. Secrets appear only where they are
allowed: in a database's URL, and in tool settings that take one.
"""

from __future__ import annotations

import functools
import random
import re
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from memoryd.database.engine import Database
from memoryd.settings.reading import SettingsError
from memoryd.settings.service import Settings, settings_table
from memoryd.tools.settings import load_configuration, tool_settings_table

from .rounds import fuzz

CANARY = "c4n4ry"
_REFERENCE = re.compile(r"(?:env|secretsmanager)://[^'\"]*")
"""A reference to a secret, which is not secret itself."""
EMBEDDERS = ("none", "multilingual", "static", "minilm", "", "nowhere.at.all:Nothing", "x:", "é")
"""Any other text might name a module, which would be loaded."""
DEFAULTS = {name: default for name, default, _ in (*settings_table(), *tool_settings_table())}
NAMES = tuple(DEFAULTS)
URLS = tuple(name for name in NAMES if name.endswith("_URL"))
SECRETS = tuple(name for name in NAMES if name.endswith("_API_KEY"))
STRANGE_NAMES = (
    "",
    "MEMORYD_",
    "MEMORYD_PROT",
    "memoryd_port",
    "MEMORYD_PORT_1_TCP",
    "PATH",
    "A B",
)

VALUES = (
    *("", " ", "0", "1", "-1", "5.0", "1e400", "1e-400", "nan", "inf", "0x10", "١٢", "1_000"),
    *("9" * 400, "true", "TRUE", "yes", "production", "debug", "json", "::1", "[::1]", "a_b"),
    *("a" * 5_000, "é\u202e\x1b[2K", "a=1.0,b=2.0", "{", "[]", "null", "${PATH}", "${NO:-x}"),
)
SCHEMES = (
    *("postgresql+asyncpg", "postgresql", "postgres", "postgresql+psycopg", "POSTGRESQL+ASYNCPG"),
    *("sqlite+aiosqlite", "sqlite", "mysql", "http", "", "postgresql+asyncpg:postgresql"),
)
SEPARATORS = ("://", ":///", ":////", ":", "//", "", "://@", "://:")
HOSTS = ("db", "db:5432", "db:port", "[::1]:5432", "[::1", "a,b", "a:1,b:2", "", "é", "d b", "db:")
PASSWORDS = (
    *(CANARY, f"a@{CANARY}", f"{CANARY}@b", f"a/{CANARY}", f"{CANARY}:1", f"#{CANARY}"),
    *(f"?{CANARY}", f"%{CANARY}", f"%40{CANARY}", f"%zz{CANARY}%", f"[{CANARY}", f"{CANARY}]"),
    *(
        f" {CANARY} ",
        f"é{CANARY}\u2028",
        f"{CANARY}&x=1",
        f"'{CANARY}'",
        f'"{CANARY}',
        f"\\{CANARY}",
    ),
)
DATABASES = ("memory", "", "a/b", "a b", "a?b", "é", "a#b", ":memory:", "%2e%2e", "x" * 300)
PARAMETERS = (
    *("sslmode=require", "sslmode=nonsense", "sslmode", "sslrootcert=/no/file", "host=/tmp"),
    *("port=x", "connect_timeout=1", "connect_timeout=x", "unknown=1", "=", "&&", "%", "ssl=true"),
    *(f"password={CANARY}", f"sslpassword={CANARY}", f"passwrod={CANARY}", "mode=memory", "uri=1"),
    *("timeout=x", "check_same_thread=maybe", "isolation_level=x", "host=a&host=b", "options=-c"),
)
NOISE = (
    "\n",
    "\r\n",
    "\0",
    "=",
    "'",
    '"',
    "#",
    "\\",
    "\t",
    "export ",
    "\ufeff",
    "\x85",
    "@",
    ":",
    "%",
)


def often(usual: Sequence[str], dice: random.Random) -> str:
    """The first, or any: if everything is wrong, only one reason for refusal is tested."""
    return usual[0] if dice.random() < 0.7 else dice.choice(usual)


def url(dice: random.Random) -> str:
    """A database's URL with a secret as its password."""
    parameters = "&".join(dice.choices(PARAMETERS, k=dice.choice((0, 0, 1, 2))))
    text = (
        f"{often(SCHEMES, dice)}{often(SEPARATORS, dice)}{often(('u', '', 'é', 'u:x'), dice)}:"
        f"{dice.choice(PASSWORDS)}@{often(HOSTS, dice)}/{often(DATABASES, dice)}"
        f"{'?' if parameters else ''}{parameters}"
    )
    return disturbed(text, dice) if dice.random() < 0.2 else text


def disturbed(text: str, dice: random.Random) -> str:
    """Put noise into a text, but not into the secret, a part of which may match anything."""
    parts = text.split(CANARY)
    place = dice.randrange(len(parts))
    at = dice.randrange(len(parts[place]) + 1)
    parts[place] = parts[place][:at] + dice.choice(NOISE) + parts[place][at:]
    return CANARY.join(parts)


def value_of(name: str, dice: random.Random) -> str:
    if name in URLS:
        return url(dice)
    if name in SECRETS:
        kind = dice.choice(("", "env://", "vault://", "secretsmanager://", "ENV://", "x://"))
        return kind + dice.choice(PASSWORDS)
    if name.endswith("_EMBEDDER"):
        return dice.choice(EMBEDDERS)
    return often((DEFAULTS[name], *VALUES), dice) if name in DEFAULTS else dice.choice(VALUES)


def variables(dice: random.Random) -> dict[str, str]:
    names = dice.choices(NAMES, k=dice.randrange(4))
    if dice.random() < 0.5:
        names.append(dice.choice(URLS))
    if dice.random() < 0.1:
        names.append(dice.choice(STRANGE_NAMES))
    return {name: value_of(name, dice) for name in names}


def dotenv(dice: random.Random) -> bytes:
    """A file with mostly readable lines."""
    lines = []
    for name, value in variables(dice).items():
        quote = dice.choice(("", "", "'", '"'))
        lines.append(f"{name}{dice.choice(('=', '=', ' = ', ''))}{quote}{value}{quote}")
        if dice.random() < 0.1:
            lines[-1] = disturbed(lines[-1], dice)
    lines += dice.choices(
        ("", "# a comment", "export A=1", "'", "A", "=", "\0"), k=dice.randrange(3)
    )
    text = dice.choice(("\n", "\n", "\r\n", "\r")).join(lines).encode()
    return dice.choice((text,) * 6 + (b"\xef\xbb\xbf" + text, text + b"\xff", text[:-1]))


def check(file: Path, dice: random.Random) -> None:
    """Fail if a round ends with neither a configuration nor a refusal, or shows a secret."""
    file.write_bytes(dotenv(dice))
    environ = {k: v.replace("\0", "") for k, v in variables(dice).items()}
    given = {"database_url": url(dice)} if dice.random() < 0.2 else {}
    try:
        settings, tools = load_configuration(environ=environ, dotenv=file, flags=given)
    except SettingsError as error:
        shown = "".join(traceback.format_exception(error)) + repr(error.problems)
    else:
        shown = repr(settings) + _REFERENCE.sub("", repr(tools)) + opened(settings)
    assert CANARY not in shown, shown


def opened(settings: Settings) -> str:
    """What is shown of the database's URL when it is used to connect."""
    try:
        Database(settings.database_url.get_secret_value())
    except ValueError as error:
        return "".join(traceback.format_exception(error))
    return ""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fuzz("tests.fuzz.settings", functools.partial(check, Path(folder) / ".env"))


if __name__ == "__main__":
    main()
