"""Generate the Python stubs, and the image that buf lints.

python protos/generate.py stubs OUT     modules and type stubs, below OUT
python protos/generate.py image FILE    a FileDescriptorSet with imports and source info

Imports come from installed packages, so that nothing is fetched: google/api and google/rpc from
googleapis-common-protos, google/protobuf from grpcio-tools, and buf/validate from protovalidate,
which carries that file as a descriptor only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import google.rpc
import grpc_tools
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    timestamp_pb2,
)
from grpc_tools import protoc
from protovalidate._gen.buf.validate import validate_pb

PROTOS = Path(__file__).resolve().parent
VALIDATE = "buf/validate/validate.proto"


def validate_descriptors() -> bytes:
    """A FileDescriptorSet of buf/validate/validate.proto and what it imports."""
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet()
    for known in (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2):
        known.DESCRIPTOR.CopyToProto(files.file.add())
    files.file.add().ParseFromString(validate_pb.desc().proto.to_binary())
    for file in files.file:
        pool.Add(file)  # fails here, with a name, if an import is missing
    return files.SerializeToString(deterministic=True)


def run_protoc(*arguments: str) -> None:
    with tempfile.NamedTemporaryFile(suffix=".binpb") as known:
        known.write(validate_descriptors())
        known.flush()
        status = protoc.main(
            [
                "protoc",
                f"--descriptor_set_in={known.name}",
                f"--proto_path={PROTOS}",
                f"--proto_path={Path(next(iter(google.rpc.__path__))).parents[1]}",
                f"--proto_path={Path(next(iter(grpc_tools.__path__))) / '_proto'}",
                *arguments,
            ],
        )
    if status:
        sys.exit(status)


def own_protos() -> list[str]:
    return sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))


def main() -> None:
    match sys.argv[1:]:
        case ["stubs", out]:
            run_protoc(f"--python_out={out}", f"--mypy_out={out}", *own_protos(), VALIDATE)
            own = own_protos()
            services = [name for name in own if "\nservice " in (PROTOS / name).read_text()]
            run_protoc(f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *services)
        case ["image", out]:
            options = ("--include_imports", "--include_source_info")
            run_protoc(f"--descriptor_set_out={out}", *options, *own_protos())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
