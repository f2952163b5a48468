"""Generate the Python stubs, and the protos as descriptors.

    python protos/generate.py stubs OUT          modules and type stubs, below OUT
    python protos/generate.py image FILE         a FileDescriptorSet with imports and comments
    python protos/generate.py descriptors FILE   the same without comments
    python protos/generate.py client FILE        the image as clients need it: without rules
    python protos/generate.py rules FILE         the same as reflection answers them: without the
                                                 names in JSON, by which tools print the fields
    python protos/generate.py openapi FILE       the unary calls over HTTP, as OpenAPI
    python protos/generate.py answers FILE       the dataclasses of the Python client

Imports lie beside the protos, so that every language's tools find them, except for google/protobuf,
which comes with each of those tools. So do the protos of others that the server serves. Of these it
has descriptors alone: stubs are for who calls by them, and may be another package's in its process.

The stubs have no rules: a process has one buf/validate/validate.proto, which belongs to whoever
else is in it. The server reads the rules from descriptors. The stubs' compiler is old, and stands
in build/stubs-venv: stubs work with protobuf and grpcio of its own age and younger.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import answers
import grpc_tools
import openapi
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_tools import protoc

if TYPE_CHECKING:
    from google.protobuf.message import Message

PROTOS = Path(__file__).resolve().parent
COMPILER = PROTOS.parent / "build" / "stubs-venv" / "bin" / "python"
RULES = {"buf/validate/validate.proto", "memoryd/v1/rules.proto"}
"""The files that only rules need."""

OWN = "memoryd"
SERVED = (OWN, "flagd")
"""The folders of protos that the server serves."""

DESCRIPTORS = {"image": ("--include_source_info",), "descriptors": ()}


def write_descriptors(out: str, *options: str) -> None:
    served = (path for folder in SERVED for path in (PROTOS / folder).rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            # First the compiler's own google/protobuf: ours is for those that lack some of it.
            f"--proto_path={Path(next(iter(grpc_tools.__path__))) / '_proto'}",
            f"--proto_path={PROTOS}",
            f"--descriptor_set_out={out}",
            "--include_imports",
            *options,
            *sorted(str(path.relative_to(PROTOS)) for path in served),
        ],
    )
    if status:
        sys.exit(status)


def for_clients(image: bytes) -> Message:
    """Give our files and what they import, less rules, and less what only rules need."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(image).file:
        pool.Add(file)
    # Of this pool, in which the options of rules have names.
    kind = pool.FindMessageTypeByName(FileDescriptorSet.DESCRIPTOR.full_name)
    files: Any = GetMessageClass(kind).FromString(image)
    others = tuple(f"{folder}/" for folder in SERVED if folder != OWN)
    kept = [f for f in files.file if f.name not in RULES and not f.name.startswith(others)]
    del files.file[:]
    for file in kept:
        imports = [name for name in file.dependency if name not in RULES]
        del file.dependency[:]
        file.dependency.extend(imports)
        remove_rules(file)
        files.file.append(file)
    return files


def remove_rules(part: Any) -> None:
    """Remove rules from part of a descriptor, at any depth."""
    for field, value in part.ListFields():
        if field.is_extension and field.file.name in RULES:
            part.ClearExtension(field)
        elif field.full_name == "google.protobuf.FieldDescriptorProto.json_name":
            # Where no proto gives one, stubs made from a proto have none either.
            if value == re.sub("_(.?)", lambda found: found[1].upper(), part.name):
                part.ClearField(field.name)
        elif field.message_type is not None:
            for each in value if field.is_repeated else (value,):
                remove_rules(each)


def write_rules(out: str) -> None:
    write_descriptors(out)
    files = FileDescriptorSet.FromString(Path(out).read_bytes())
    for file in files.file:
        remove_json_names(file)
    Path(out).write_bytes(files.SerializeToString(deterministic=True))


def remove_json_names(part: Any) -> None:
    """Remove them from part of a descriptor, at any depth."""
    for message in (*getattr(part, "message_type", ()), *getattr(part, "nested_type", ())):
        remove_json_names(message)
    for field in (*getattr(part, "field", ()), *part.extension):
        field.ClearField("json_name")


def image_with_comments() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        write_descriptors(str(image), *DESCRIPTORS["image"])
        return image.read_bytes()


def write_openapi(out: str) -> None:
    found = openapi.description(image_with_comments())
    Path(out).write_text(json.dumps(found, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_client_image(out: str) -> Any:
    files: Any = for_clients(image_with_comments())
    Path(out).write_bytes(files.SerializeToString(deterministic=True))
    return files


def write_answers(out: str) -> None:
    Path(out).write_text(answers.module(image_with_comments()))


def write_stubs(out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.binpb"
        files = write_client_image(str(path))
        own = [file for file in files.file if file.name.startswith(f"{OWN}/")]
        given = f"--descriptor_set_in={path}"
        names = sorted(file.name for file in own)
        compile_stubs(given, f"--python_out={out}", f"--mypy_out={out}", *names)
        names = sorted(file.name for file in own if file.service)
        compile_stubs(given, f"--grpc_python_out={out}", f"--mypy_grpc_out={out}", *names)


def compile_stubs(*arguments: str) -> None:
    if not COMPILER.exists():
        sys.exit(f"There is no {COMPILER}, which compiles the stubs: `make generate` makes it")
    plugins = (f"--plugin={path}" for path in Path(sys.executable).parent.glob("protoc-gen-mypy*"))
    command = [COMPILER, "-m", "grpc_tools.protoc", *plugins, *arguments]
    if status := subprocess.run(command, check=False).returncode:  # noqa: S603  our own
        sys.exit(status)


def main() -> None:
    match sys.argv[1:]:
        case ["stubs", out]:
            write_stubs(out)
        case ["client", out]:
            write_client_image(out)
        case ["rules", out]:
            write_rules(out)
        case ["openapi", out]:
            write_openapi(out)
        case ["answers", out]:
            write_answers(out)
        case [("image" | "descriptors") as kind, out]:
            write_descriptors(out, *DESCRIPTORS[kind])
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
