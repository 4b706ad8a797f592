"""The snapshot: every xDS resource that Envoy is to have, as bytes, with one version per resource type.

Not here: how the resources are made (`translate`) and how they reach Envoy (`ads`). Pure.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Iterable, Mapping

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError, Message

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 (a type, not a secret)

# Make before break: what is referred to goes out before what refers to it.
PUSH_ORDER = (SECRET, CLUSTER, ENDPOINTS, LISTENER, ROUTES)

# Envoy warms a changed cluster until its endpoints are answered again, and a changed listener until its routes are.
ANSWERED_WITH = {CLUSTER: (ENDPOINTS,), LISTENER: (ROUTES,)}


class SnapshotUnreadable(ValueError):
    """The bytes are not a snapshot that this program wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypedResources:
    """All resources of one type, sorted by name. `version` is a hash of them alone: equal content, equal version."""

    version: str
    resources: tuple[tuple[str, bytes], ...]

    def named(self, names: Iterable[str]) -> list[bytes]:
        """The packed resources with these names; names that do not exist are left out."""
        wanted = set(names)
        return [packed for name, packed in self.resources if name in wanted]

    def all(self) -> list[bytes]:
        """Every packed resource."""
        return [packed for _, packed in self.resources]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What Envoy is to have: type URL → resources. Holds the private key: never print it, write it with mode 0600."""

    types: Mapping[str, TypedResources]

    def __repr__(self) -> str:
        return "Snapshot(" + ", ".join(f"{url.rsplit('.', 1)[1]}={t.version}" for url, t in self.types.items()) + ")"

    @property
    def versions(self) -> dict[str, str]:
        """Type URL → version, in push order."""
        return {url: self.types[url].version for url in PUSH_ORDER if url in self.types}

    def to_bytes(self) -> bytes:
        """A form for the disk: a protobuf `DiscoveryResponse` per type, each with its length before it."""
        parts = []
        for url in PUSH_ORDER:
            if url not in self.types:
                continue
            response = discovery_pb2.DiscoveryResponse(type_url=url, version_info=self.types[url].version)
            # The nonce has no meaning on disk, so it carries the names, which SotW responses do not have.
            response.nonce = "\n".join(name for name, _ in self.types[url].resources)
            response.resources.extend(Any.FromString(packed) for packed in self.types[url].all())
            data = response.SerializeToString(deterministic=True)
            parts.append(len(data).to_bytes(8, "big") + data)
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """The snapshot that `to_bytes` wrote. Raises `SnapshotUnreadable`."""
        types: dict[str, TypedResources] = {}
        position = 0
        while position < len(data):
            size = int.from_bytes(data[position : position + 8], "big")
            chunk = data[position + 8 : position + 8 + size]
            if len(chunk) != size or size == 0:
                raise SnapshotUnreadable(f"cut off at byte {position} of {len(data)}")
            position += 8 + size
            try:
                response = discovery_pb2.DiscoveryResponse.FromString(chunk)
            except DecodeError as error:
                raise SnapshotUnreadable(f"not protobuf at byte {position - size}") from error
            names = response.nonce.split("\n") if response.resources else []
            packed = tuple((name, _bytes(r)) for name, r in zip(names, response.resources, strict=False))
            if response.version_info != version_of(packed) or len(names) != len(response.resources):
                raise SnapshotUnreadable(f"the content of {response.type_url} does not match its version")
            types[response.type_url] = TypedResources(version=response.version_info, resources=packed)
        if set(types) != set(PUSH_ORDER):
            raise SnapshotUnreadable(f"holds {len(types)} resource types of {len(PUSH_ORDER)}")
        return cls(types=types)


def typed(resources: Mapping[str, Message]) -> TypedResources:
    """Pack resources of one type, deterministically: same content, same bytes, in every process."""
    packed = tuple((name, _bytes(pack(resources[name]))) for name in sorted(resources))
    return TypedResources(version=version_of(packed), resources=packed)


def version_of(packed: tuple[tuple[str, bytes], ...]) -> str:
    """The first 16 hex digits of SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for name, data in packed:
        digest.update(f"{name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def pack(message: Message) -> Any:
    """`message` as an `Any` with deterministic bytes (maps sorted)."""
    return Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def _bytes(message: Any) -> bytes:
    return message.SerializeToString(deterministic=True)
