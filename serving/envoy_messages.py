"""The messages of Envoy's ext_authz and access-log services, as far as botsieve reads and writes them.

Field numbers are those of Envoy's API, v3 (envoy/service/auth/v3, envoy/service/accesslog/v3, envoy/data/accesslog/v3,
envoy/config/core/v3, envoy/type/v3). What is not named here is skipped on reading. They live in a pool of their own: generated
modules of all of Envoy's API would bring, and collide with, modules that other libraries generate.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory, struct_pb2, wrappers_pb2

_PACKAGE = "botsieve.envoy"
_TYPE = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _TYPE.TYPE_STRING, "bytes": _TYPE.TYPE_BYTES, "int32": _TYPE.TYPE_INT32, "int64": _TYPE.TYPE_INT64,
    "uint64": _TYPE.TYPE_UINT64, "bool": _TYPE.TYPE_BOOL,
}  # fmt: skip
_FIELDS = {
    # what Envoy asks
    "CheckRequest": "attributes 1 Attributes",
    "Attributes": "source 1 Peer, request 4 Request",
    "Peer": "address 1 Address",
    "Address": "socket_address 1 SocketAddress",
    "SocketAddress": "address 2 string",
    "Request": "http 2 HttpRequest",
    "HttpRequest": "method 2 bytes, headers 3 *Entry, path 4 bytes, size 9 int64, body 11 bytes, raw_body 12 bytes",
    "Entry": "key 1 bytes, value 2 bytes",  # what clients write need not be UTF-8
    # what it is answered; an enumeration travels as an int32
    "CheckResponse": "status 1 Status, denied_response 2 Denied, ok_response 3 Ok, dynamic_metadata 4 .google.protobuf.Struct",
    "Status": "code 1 int32, message 2 string",
    "Denied": "status 1 HttpStatus, headers 2 *HeaderOption, body 3 string",
    "HttpStatus": "code 1 int32",
    "HeaderOption": "header 1 Header, append_action 3 int32",
    "Header": "key 1 string, value 2 string",
    "Ok": "headers_to_remove 5 *string",
    # how requests ended
    "LogMessage": "http_logs 2 HttpLogs",
    "HttpLogs": "log_entry 1 *LogEntry",
    "LogEntry": "common_properties 1 Common, response 4 Response",
    "Common": "metadata 17 Metadata, duration 23 .google.protobuf.Duration, intermediate_log_entry 27 bool",
    "Metadata": "filter_metadata 1 *MetadataEntry",
    "MetadataEntry": "key 1 string, value 2 .google.protobuf.Struct",
    "Response": "response_code 1 .google.protobuf.UInt32Value, response_body_bytes 3 uint64",
    "LogResponse": "",
}
"""Fields by message: name, number, type; `*` marks what repeats (maps are repeated entries)."""


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="botsieve/envoy.proto", package=_PACKAGE, syntax="proto3")
    file.dependency.extend(module.DESCRIPTOR.name for module in (duration_pb2, struct_pb2, wrappers_pb2))
    for message, fields in _FIELDS.items():
        made = file.message_type.add(name=message)
        for text in filter(None, fields.split(", ")):
            name, number, kind = text.split()
            label = _TYPE.LABEL_REPEATED if kind.startswith("*") else _TYPE.LABEL_OPTIONAL
            field = made.field.add(name=name, number=int(number), label=label)
            bare = kind.removeprefix("*")
            if bare in _SCALARS:
                field.type = _SCALARS[bare]
            else:
                field.type, field.type_name = (
                    _TYPE.TYPE_MESSAGE,
                    bare if bare.startswith(".") else f".{_PACKAGE}.{bare}",
                )
    return file


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for module in (duration_pb2, struct_pb2, wrappers_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_file().SerializeToString())
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """Return the class of a message of `_FIELDS`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


CheckRequest, CheckResponse = message("CheckRequest"), message("CheckResponse")
LogMessage, LogResponse = message("LogMessage"), message("LogResponse")
