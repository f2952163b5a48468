"""The protos of what is served, with their rules, which only the server knows.

The stubs have none, so that a client lives in one process with any release of
buf/validate/validate.proto. The protos as they are written lie beside this module, as descriptors;
they are kept in a pool of their own, since the process has another for the stubs.
"""

from __future__ import annotations

from pathlib import Path

import protovalidate
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from memoryd.v1 import memory_pb2


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    descriptors = Path(__file__).with_name("rules.binpb").read_bytes()
    files = FileDescriptorSet.FromString(descriptors).file
    # Imports all that is ours.
    root = FileDescriptorProto(name="memoryd/all.proto", package="memoryd")
    root.dependency.extend(file.name for file in files if file.name.startswith("memoryd/"))
    root.message_type.add(name="All")
    for file in (*files, root):
        pool.Add(file)
    return pool


POOL = _load()
"""The protos with their rules."""


def validator() -> protovalidate.Validator:
    """Give one that judges messages of the stubs by the rules of the protos.

    It reads a file's rules once, from the first message that needs the file, and knows files by
    their names. So it gets all of ours from a message of this pool before it sees any of the stubs.
    """
    made = protovalidate.Validator()
    made.collect_violations(GetMessageClass(POOL.FindMessageTypeByName("memoryd.All"))())
    if not made.collect_violations(memory_pb2.GetMemoryRequest()):
        raise RuntimeError("the installed protovalidate does not take the protos' rules")
    return made
