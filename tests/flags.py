"""Stubs of flagd's protocol, generated from its protos, in the pool of the test's process."""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parents[1] / "protos"
NAMES = tuple(f"flagd/evaluation/{version}/evaluation" for version in ("v1", "v2"))


def _generate(folder: str) -> None:
    imports = Path(next(iter(grpc_tools.__path__))) / "_proto"
    out = (f"--python_out={folder}", f"--grpc_python_out={folder}")
    files = (f"{name}.proto" for name in NAMES)
    assert not protoc.main(["protoc", f"-I{PROTOS}", f"-I{imports}", *out, *files])


with tempfile.TemporaryDirectory() as _folder:
    _generate(_folder)
    sys.path.insert(0, _folder)
    v1, v2 = (import_module(f"{name.replace('/', '.')}_pb2") for name in NAMES)
    v1_grpc, v2_grpc = (import_module(f"{name.replace('/', '.')}_pb2_grpc") for name in NAMES)
    sys.path.remove(_folder)
