"""Reflection, under both of its names: `grpc.reflection.v1` and `grpc.reflection.v1alpha`.

Their messages and methods are the same, so what grpcio-reflection has of the older one serves both.
https://github.com/grpc/grpc/blob/master/src/proto/grpc/reflection/v1/reflection.proto
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from memoryd.domain.audit import Audited
from memoryd.rpc.methods import Method, is_any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

    from memoryd.domain.principals import Scope
    from memoryd.rpc.access import Anyone
    from memoryd.rpc.call import Call
    from memoryd.rpc.violations import Violations

_V1, _V1_ALPHA = "grpc.reflection.v1", "grpc.reflection.v1alpha"


def _describe_v1() -> None:
    """Whoever lists the services asks for the description of each."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = "grpc/reflection/v1/reflection.proto", _V1
    for message in file.message_type:
        for field in message.field:
            if field.HasField("type_name"):
                field.type_name = field.type_name.replace(_V1_ALPHA, _V1)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(_V1_ALPHA, _V1)
        method.output_type = method.output_type.replace(_V1_ALPHA, _V1)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


_describe_v1()
_service = descriptor_pool.Default().FindServiceByName
SERVICES = tuple(_service(f"{package}.ServerReflection") for package in (_V1, _V1_ALPHA))


def methods(
    names: Sequence[str], pool: descriptor_pool.DescriptorPool, needs: Scope | Anyone
) -> dict[str, Method[Any]]:
    """The table of either service.

    names: those of the services that there are.
    pool: where they are described.
    needs: who may ask.
    """
    answer = reflection.aio.ReflectionServicer(names, pool).ServerReflectionInfo
    row: Method[Any] = Method(_question, answer, needs, Audited.IN_ALL, is_plain=is_any)
    return {"ServerReflectionInfo": row}


def _question(
    request: Message, call: Call, violations: Violations
) -> reflection_pb2.ServerReflectionRequest:
    del call, violations
    return reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString())
