"""From a dictionary in Envoy's field names to a checked protobuf message and back. Pure.

An unknown field, a wrong type or an unknown `@type` raises `ParseError`: that is our bug, found by the first test.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

# Needed only for their entries in protobuf's symbol table: they are named by "@type" inside dictionaries.
import envoy.extensions.access_loggers.file.v3.file_pb2
import envoy.extensions.access_loggers.filters.cel.v3.cel_pb2
import envoy.extensions.bootstrap.internal_listener.v3.internal_listener_pb2
import envoy.extensions.common.matching.v3.extension_matcher_pb2
import envoy.extensions.filters.common.matcher.action.v3.skip_action_pb2
import envoy.extensions.filters.common.set_filter_state.v3.value_pb2
import envoy.extensions.filters.http.credential_injector.v3.credential_injector_pb2
import envoy.extensions.filters.http.custom_response.v3.custom_response_pb2
import envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2
import envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2
import envoy.extensions.filters.http.json_to_metadata.v3.json_to_metadata_pb2
import envoy.extensions.filters.http.lua.v3.lua_pb2
import envoy.extensions.filters.http.router.v3.router_pb2
import envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2
import envoy.extensions.filters.http.upstream_codec.v3.upstream_codec_pb2
import envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2
import envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2
import envoy.extensions.http.custom_response.local_response_policy.v3.local_response_policy_pb2
import envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2
import envoy.extensions.http.injected_credentials.generic.v3.generic_pb2
import envoy.extensions.load_balancing_policies.least_request.v3.least_request_pb2
import envoy.extensions.load_balancing_policies.override_host.v3.override_host_pb2
import envoy.extensions.load_balancing_policies.random.v3.random_pb2
import envoy.extensions.load_balancing_policies.round_robin.v3.round_robin_pb2
import envoy.extensions.resource_monitors.downstream_connections.v3.downstream_connections_pb2
import envoy.extensions.resource_monitors.fixed_heap.v3.fixed_heap_pb2
import envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2
import envoy.extensions.transport_sockets.tls.v3.tls_pb2
import envoy.extensions.upstreams.http.v3.http_protocol_options_pb2
import envoy.type.matcher.v3.http_inputs_pb2
import envoy.type.matcher.v3.status_code_input_pb2  # noqa: F401
from google.protobuf import any_pb2, json_format, symbol_database
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

Json = dict[str, Any]
METADATA = "gonogo"
"""Under this name endpoints carry what the access log says of them."""
M = TypeVar("M", bound=Message)


def to_message(content: Json, message: M) -> M:
    """Fill `message` from `content`. Maps inside nested `Any`s are sorted, so that equal content is equal bytes."""
    json_format.ParseDict(content, message)
    _settle(message)
    return message


def to_json(message: Message) -> Json:
    """The dictionary of a message, in Envoy's field names."""
    content: Json = json.loads(json_format.MessageToJson(message, preserving_proto_field_name=True))
    return content


def unpacked(packed: bytes) -> Message:
    """The message inside a serialized `Any`."""
    return _unpack(any_pb2.Any.FromString(packed))


def _settle(message: Message) -> None:
    if isinstance(message, any_pb2.Any):
        inner = _unpack(message)
        _settle(inner)
        message.value = inner.SerializeToString(deterministic=True)
        return
    for field, value in message.ListFields():
        for child in _children(field, value):
            _settle(child)


def _children(field: FieldDescriptor, value: Any) -> list[Message]:
    if field.message_type is None:
        return []
    if field.message_type.GetOptions().map_entry:
        of_messages = field.message_type.fields_by_name["value"].message_type is not None
        return list(value.values()) if of_messages else []
    return list(value) if field.is_repeated else [value]


def _unpack(message: any_pb2.Any) -> Message:
    name = message.type_url.rsplit("/", 1)[-1]
    inner: Message = symbol_database.Default().GetSymbol(name)()
    inner.ParseFromString(message.value)
    return inner
