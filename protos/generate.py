"""Generate the Python stubs, and the protos as descriptors.

    python protos/generate.py stubs OUT       modules and type stubs, below OUT
    python protos/generate.py image FILE      a FileDescriptorSet with imports and comments
    python protos/generate.py baseline FILE   the same without comments

Imports lie beside the protos, so that every language's tools find them, except for google/protobuf,
which comes with each of those tools.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent
VALIDATE = "buf/validate/validate.proto"
DESCRIPTORS = {"image": ("--include_source_info",), "baseline": ()}


def run_protoc(*arguments: str) -> None:
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={Path(next(iter(grpc_tools.__path__))) / '_proto'}",
            *arguments,
        ],
    )
    if status:
        sys.exit(status)


def own_protos() -> list[str]:
    own = (PROTOS / "memoryd").rglob("*.proto")
    return sorted(str(path.relative_to(PROTOS)) for path in own)


def main() -> None:
    match sys.argv[1:]:
        case ["stubs", out]:
            run_protoc(f"--python_out={out}", f"--mypy_out={out}", *own_protos(), VALIDATE)
            own = own_protos()
            services = [name for name in own if "\nservice " in (PROTOS / name).read_text()]
            run_protoc(f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *services)
        case [("image" | "baseline") as kind, out]:
            options = ("--include_imports", *DESCRIPTORS[kind])
            run_protoc(f"--descriptor_set_out={out}", *options, *own_protos())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
