"""The client in one process with another package's release of protovalidate."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, sys
from google.protobuf import descriptor_pb2, descriptor_pool

# Another release's: its own rules, under the same names and numbers.
other = descriptor_pb2.FileDescriptorProto(
    name="buf/validate/validate.proto",
    package="buf.validate",
    dependency=["google/protobuf/descriptor.proto"],
)
other.message_type.add(name="FieldConstraints").field.add(name="old", number=1, label=1, type=8)
other.extension.add(
    name="field",
    number=1159,
    label=1,
    type=11,
    type_name=".buf.validate.FieldConstraints",
    extendee=".google.protobuf.FieldOptions",
)
descriptor_pool.Default().Add(other)

from memoryd.client import MemoryClient, MemorydError


async def main(target):
    async with MemoryClient(target) as client:
        await client.store("ada", "prefers e-mail")
        print([memory.content async for memory in client.list("ada")])
        try:
            await client.get("-", "x")
        except MemorydError as error:
            print(sorted(each.field for each in error.violations))


asyncio.run(main(sys.argv[1]))
strangers = {"buf", "protobuf", "protovalidate"}
print(sorted(strangers & {name.partition(".")[0] for name in sys.modules}))
"""


def test_another_release_of_the_rules_is_in_the_process_first(command_line, database_url):
    address = command_line.serve(MEMORYD_DATABASE_URL=database_url).address()
    done = subprocess.run(  # noqa: S603  this interpreter, a constant script
        [sys.executable, "-c", PROGRAM, address],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [
        "['prefers e-mail']",
        "['memory_id', 'session_id']",
        "[]",
    ], done.stderr
