"""Calls services that it has never seen: messages and methods come from the server's reflection, never from generated code.

Knows gRPC and protobuf. Knows nothing of Tramite.
"""

from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Reflected:
    """Everything that a server says of itself."""

    def __init__(self, channel):
        self._channel = channel
        self._database = ProtoReflectionDescriptorDatabase(channel)
        self._pool = descriptor_pool.DescriptorPool(self._database)

    def services(self):
        """Full names of the services that the server lists."""
        return sorted(self._database.get_services())

    def message(self, full_name, **fields):
        """A new message of a type, by its full name."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(full_name))(**fields)

    def call(self, service, method, request, timeout=20, **context):
        """Calls a method by name, streaming or not as its descriptor says."""
        described = self._pool.FindServiceByName(service).methods_by_name[method]
        answer = message_factory.GetMessageClass(described.output_type)
        shapes = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
            (True, True): self._channel.stream_stream,
        }
        shape = shapes[(described.client_streaming, described.server_streaming)]
        stub = shape(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return stub(request, timeout=timeout, **context)
