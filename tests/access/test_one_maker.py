"""Where session keys are made: from a request by one maker, which knows the caller."""

from __future__ import annotations

import ast
from pathlib import Path

import memoryd
from memoryd.domain.records import Session

ROOT = Path(memoryd.__file__).parent


def makers(tree: ast.AST) -> int:
    """How many calls make a session key; the message `session_pb2.Session` is none."""
    called = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    names = (name.split(".") for name in called if "_pb2." not in name)
    return sum(parts[-1] == Session.__name__ for parts in names)


def test_requests_have_one_maker_of_session_keys():
    """It takes the tenant from the credential, and holds the name against its rules.

    All others read rows of the database, which have their tenant.
    """
    modules = [*ROOT.joinpath("rpc").rglob("*.py"), *ROOT.joinpath("cli").rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix(): count
        for path in (*modules, ROOT / "server.py")
        if (count := makers(ast.parse(path.read_text())))
    }
    assert found == {"rpc/call.py": 1}
