"""Check that whatever is made of the protos, and the protos of others, are as they are now.

python protos/check.py
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, FileOptions
from protovalidate._gen.buf.validate import validate_pb

PROTOS = Path(__file__).resolve().parent
SERVICE = PROTOS.parent / "service"
MADE = {
    "rules": SERVICE / "memoryd" / "rpc" / "rules.binpb",
    "openapi": SERVICE / "memoryd" / "http" / "openapi.json",
    "answers": SERVICE / "memoryd" / "client" / "answers.py",
}
"""What `protos/generate.py` makes besides the stubs, by its name for it."""
BASELINE = PROTOS / "baseline.binpb"
VALIDATE = "buf/validate/validate.proto"
DESCRIPTOR = "google/protobuf/descriptor.proto"
"""Read by compilers that are older than an option we use: `debug_redact` is of protoc 22."""
STUBS_COMPILER = PROTOS.parent / "build" / "stubs-venv"
SERVED = ("memoryd/", "flagd/")


def stubs(folder: Path) -> set[Path]:
    """Find generated modules and type stubs by their names, which nothing else may have."""
    return {
        path.relative_to(folder)
        for pattern in ("*_pb2.py*", "*_pb2_grpc.py*")
        for path in folder.rglob(pattern)
        if path.suffix in {".py", ".pyi"}
    }


def drift(fresh: Path) -> list[str]:
    """Say of every stub that differs from the fresh ones how it does."""
    wanted, found = stubs(fresh), stubs(SERVICE)
    changed = {
        stub
        for stub in wanted & found
        if not filecmp.cmp(fresh / stub, SERVICE / stub, shallow=False)
    }
    return sorted(
        [f"service/{stub} is out of date: `make generate`" for stub in changed]
        + [f"service/{stub} is missing: `make generate`" for stub in wanted - found]
        + [f"service/{stub} has no proto any more: delete it" for stub in found - wanted]
    )


def strangers(image: bytes) -> list[str]:
    """Say which imports are not those of the installed packages.

    Options of files, which only say where stubs of other languages go, differ with how a package
    was made. A test beside flagd's stock provider compares its protocol.
    """
    files = FileDescriptorSet.FromString(image).file
    ours = {file.name: file for file in files}
    problems = []
    for path in sorted(PROTOS.rglob("*.proto")):
        name = str(path.relative_to(PROTOS))
        if name.startswith(SERVED):
            continue
        if name == VALIDATE:
            package = "protovalidate's source archive"
            theirs = FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
            ours[name].options.CopyFrom(FileOptions())
            theirs.options.CopyFrom(FileOptions())
            same = ours[name] == theirs
        elif name == DESCRIPTOR:
            package = "the stubs' compiler"
            (theirs,) = STUBS_COMPILER.glob(f"lib/*/site-packages/grpc_tools/_proto/{name}")
            same = path.read_text() == theirs.read_text()
        else:
            package = "googleapis-common-protos"
            theirs = metadata.distribution(package).locate_file(name)
            same = path.read_text() == theirs.read_text()
        if not same:
            problems.append(f"protos/{name} is another release's: copy it from {package}")
    return problems


def generate(kind: str, out: Path) -> None:
    command = [sys.executable, PROTOS / "generate.py", kind, out]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if run.returncode:
        sys.exit(run.stderr)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        descriptors = fresh / "descriptors.binpb"
        generate("stubs", fresh)
        generate("descriptors", descriptors)
        problems = drift(fresh) + strangers(descriptors.read_bytes())
        for kind, path in MADE.items():
            generate(kind, fresh / path.name)
            if not filecmp.cmp(fresh / path.name, path, shallow=False):
                name = path.relative_to(SERVICE)
                problems.append(f"service/{name} is out of date: `make generate`")
        if not filecmp.cmp(descriptors, BASELINE, shallow=False):
            problems.append("protos/baseline.binpb is not what is served: `make baseline`")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
