"""What is answered to one Envoy on one ADS stream: the rules of xDS (state of the world), without any transport. Pure.

The rules that were learned the hard way:
- a version is a hash per resource type; an equal version suppresses a push, never an answer;
- a changed cluster warms until its endpoints are sent again, a changed listener until its routes are;
- a refused (NACK) version is not sent again, or Envoy would refuse it for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.any_pb2 import Any

from gonogo.facts.gateway import ResourceStatus
from gonogo.gateway.snapshot import ANSWERED_WITH, CLUSTER, LISTENER, PUSH_ORDER, Snapshot, TypedResources

_WILDCARD = (CLUSTER, LISTENER)
_MAX_NACK_CHARACTERS = 2000


@dataclass(slots=True, kw_only=True)
class _Subscription:
    names: frozenset[str]
    nonce: str = ""
    sent_version: str | None = None
    acked_version: str | None = None
    nack: str | None = None


class Conversation:
    """One stream. `on_request` and `on_snapshot` give the responses to send, in order."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self._snapshot = snapshot
        self._subscriptions: dict[str, _Subscription] = {}
        self._responses = 0

    def on_snapshot(self, snapshot: Snapshot) -> list[discovery_pb2.DiscoveryResponse]:
        """The pushes that this new snapshot needs: changed types, and what must be answered with them."""
        self._snapshot = snapshot
        due: set[str] = set()
        for type_url, subscription in self._subscriptions.items():
            if subscription.sent_version != snapshot.types[type_url].version:
                due |= {type_url, *ANSWERED_WITH.get(type_url, ())}
        return [response for type_url in PUSH_ORDER if type_url in due for response in self._answer(type_url)]

    def on_request(self, request: discovery_pb2.DiscoveryRequest) -> list[discovery_pb2.DiscoveryResponse]:
        """The answer to a subscription, nothing for an ACK, a NACK or an outdated request."""
        type_url = request.type_url
        if type_url not in PUSH_ORDER:
            return []
        names = frozenset(request.resource_names)
        known = self._subscriptions.get(type_url)
        if known is None:
            self._subscriptions[type_url] = _Subscription(names=names)
            return self._answer(type_url)
        if request.response_nonce != known.nonce:
            return []
        if known.nonce:
            _acknowledge(known, request)
        added = names - known.names
        known.names = names
        return self._answer(type_url) if added else []

    def status(self, wanted: Snapshot) -> tuple[ResourceStatus, ...]:
        """Per resource type, in push order: what is wanted now, and what Envoy said."""
        return tuple(self._status(type_url, wanted.types[type_url]) for type_url in PUSH_ORDER)

    def _status(self, type_url: str, wanted: TypedResources) -> ResourceStatus:
        subscription = self._subscriptions.get(type_url)
        if not wanted.resources and type_url not in _WILDCARD:
            # Nobody asks for a type of which there is nothing, so nobody acknowledges it either.
            return ResourceStatus(type_url=type_url, wanted_version=wanted.version, acked_version=wanted.version)
        if subscription is None:
            return ResourceStatus(type_url=type_url, wanted_version=wanted.version, acked_version=None)
        return ResourceStatus(
            type_url=type_url,
            wanted_version=wanted.version,
            acked_version=subscription.acked_version,
            nack=subscription.nack if subscription.sent_version == wanted.version else None,
        )

    def _answer(self, type_url: str) -> list[discovery_pb2.DiscoveryResponse]:
        subscription = self._subscriptions.get(type_url)
        if self._snapshot is None or subscription is None or not (subscription.names or type_url in _WILDCARD):
            return []
        return [self._response(type_url, subscription, self._snapshot.types[type_url])]

    def _response(
        self, type_url: str, subscription: _Subscription, wanted: TypedResources
    ) -> discovery_pb2.DiscoveryResponse:
        self._responses += 1
        subscription.nonce = str(self._responses)
        subscription.nack = None
        subscription.sent_version = wanted.version
        packed = wanted.all() if type_url in _WILDCARD else wanted.named(subscription.names)
        return discovery_pb2.DiscoveryResponse(
            type_url=type_url,
            version_info=wanted.version,
            nonce=subscription.nonce,
            resources=[Any.FromString(data) for data in packed],
        )


def _acknowledge(subscription: _Subscription, request: discovery_pb2.DiscoveryRequest) -> None:
    if request.HasField("error_detail"):
        subscription.nack = request.error_detail.message[:_MAX_NACK_CHARACTERS]
        return
    subscription.acked_version = subscription.sent_version
    subscription.nack = None
