"""Stock tools read the protos, with nothing but what lies in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PROTOS = Path(__file__).parent.parent / "protos"
BIN = Path(sys.executable).parent
OWN = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "memoryd").rglob("*.proto"))
ALL = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(  # noqa: S603  our own command
        command, cwd=cwd, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def protoc(folder: Path, *arguments: str) -> None:
    run(sys.executable, "-m", "grpc_tools.protoc", "-I", PROTOS, *arguments, cwd=folder)


def descriptors(*paths: Path) -> list[dict[str, bytes]]:
    """The files of sets by their names, without comments, options in one order."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(paths[0].read_bytes()).file:
        pool.Add(file)
    # Of this pool, which knows all options.
    kind = GetMessageClass(pool.FindMessageTypeByName(FileDescriptorSet.DESCRIPTOR.full_name))
    sets = []
    for path in paths:
        files = kind.FromString(path.read_bytes()).file
        for file in files:
            file.ClearField("source_code_info")
        sets.append({file.name: file.SerializeToString(deterministic=True) for file in files})
    return sets


def test_protoc_makes_stubs_of_all(tmp_path):
    protoc(tmp_path, f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", *ALL)
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*_pb2.py")}
    assert made == {f"{name.removesuffix('.proto')}_pb2.py" for name in ALL}


def test_buf_reads_what_protoc_reads(tmp_path):
    by_protoc, by_buf = tmp_path / "protoc.binpb", tmp_path / "buf.binpb"
    protoc(tmp_path, f"--descriptor_set_out={by_protoc}", "--include_imports", *ALL)
    run(BIN / "buf", "build", PROTOS, "--as-file-descriptor-set", "-o", by_buf, cwd=tmp_path)
    assert len(OWN) >= 9
    wanted, found = descriptors(by_protoc, by_buf)
    assert {name: found[name] for name in OWN} == {name: wanted[name] for name in OWN}
    assert found.keys() == wanted.keys()


@pytest.mark.parametrize("name", OWN)
def test_every_file_says_where_its_stubs_go(name, tmp_path):
    image = tmp_path / "image.binpb"
    protoc(tmp_path, f"--descriptor_set_out={image}", name)
    (file,) = FileDescriptorSet.FromString(image.read_bytes()).file
    assert file.options.csharp_namespace == "Memoryd.V1"
    assert file.options.go_package == "memoryd/v1;memorydv1"
    assert file.options.java_package == "com.memoryd.v1"
    assert file.options.java_multiple_files


@pytest.mark.parametrize("name", ALL)
def test_no_option_has_an_extension_inside_braces(name):
    """Loaders for JavaScript cannot parse it; a path in parentheses says the same."""
    code = re.sub(r"//.*", "", (PROTOS / name).read_text())
    assert not re.search(r"\[\s*[a-z_]\w*(\.\w+)+\s*\]\s*[:{]", code)


def test_the_client_asks_for_no_more_than_its_stubs_need():
    root = PROTOS.parent
    asked = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    stubs = [*(root / "service").rglob("*_pb2.py"), *(root / "service").rglob("*_pb2_grpc.py")]
    said = {
        found
        for stub in stubs
        for found in re.findall(
            r"(?m)^(# Protobuf Python Version: |GRPC_GENERATED_VERSION = ')([\d.]+)",
            stub.read_text(),
        )
    }
    (grpcio,) = (version for name, version in said if name.startswith("GRPC"))
    (protobuf,) = (version for name, version in said if not name.startswith("GRPC"))
    assert {f"grpcio>={grpcio}", f"protobuf>={protobuf}"} < set(asked)
