"""From the plan's listeners and clusters to the snapshot that Envoy is to have. Pure: same input, same bytes.

Not here: how each resource looks (`resources/`), what clients read on errors (`replies`), how it is served (`ads`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf.message import Message

from gonogo.actions.model import ClusterPlan, ListenerPlan
from gonogo.facts.part import TASKS
from gonogo.facts.request_record import RPC
from gonogo.gateway import snapshot
from gonogo.gateway.resources import (
    asking,
    clusters,
    fallback,
    inner,
    listeners,
    local_front,
    queue,
    relay,
    routes,
    rpc,
    secrets,
)
from gonogo.gateway.resources.convert import to_message


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayInput:
    """Everything that the gateway's configuration is made of. Paths are absolute; the PEM chain is leaf first.

    `rpc_socket`: where the gRPC server listens; `queue_socket`: where the queue's HTTP interface does; `front_socket`:
    where the gRPC server and the queue's workers come back to Envoy with HTTP.
    `system_ca_file`: the CAs that this system trusts, for external servers whose spec names no CA.
    """

    listeners: tuple[ListenerPlan, ...]
    clusters: tuple[ClusterPlan, ...]
    policy_sockets: tuple[str, ...]
    certificate_chain_pem: str
    private_key_pem: str = field(repr=False)
    access_log_path: str
    rpc_socket: str
    front_socket: str
    queue_socket: str
    relay_sockets: tuple[str, ...] = ()
    """Where the relays listen; empty: streamed requests go to the engines as the others do."""
    inner_socket: str = ""
    inner_log_path: str = ""
    fallback_keys: Mapping[str, str] = field(default_factory=dict)
    """By path the files with keys of hosted APIs that can be read, each with what changes when the file does. A
    fallback whose file is not among them is left out: Envoy would refuse the secrets, and no change be acknowledged."""
    system_ca_file: str = "/etc/ssl/certs/ca-certificates.crt"


def translate(given: GatewayInput) -> snapshot.Snapshot:
    """The snapshot for this input."""
    plans = sorted((_usable(plan, given) for plan in given.clusters), key=lambda plan: plan.name)
    cds: dict[str, Message] = {
        plan.name: to_message(clusters.cluster(plan, given.system_ca_file), cluster_pb2.Cluster()) for plan in plans
    }
    cds[asking.POLICY_CLUSTER] = to_message(clusters.policy_cluster(given.policy_sockets), cluster_pb2.Cluster())
    cds[asking.ASKING] = to_message(asking.cluster(), cluster_pb2.Cluster())
    cds[TASKS] = to_message(queue.queue_cluster(given.queue_socket), cluster_pb2.Cluster())
    cds[RPC] = to_message(rpc.rpc_cluster(given.rpc_socket), cluster_pb2.Cluster())
    ours = [plan for plan in plans if plan.external is None]
    eds = {plan.name: to_message(clusters.endpoints(plan), endpoint_pb2.ClusterLoadAssignment()) for plan in ours}
    lds = {
        listeners.listener_name(plan): to_message(
            listeners.listener(plan, given.access_log_path), listener_pb2.Listener()
        )
        for plan in given.listeners
    }
    relayed = bool(given.relay_sockets)
    rds: dict[str, Message] = {}
    sds: dict[str, Message] = {}
    for plan in plans:
        _add_fallback(plan, given, cds, sds)
    if given.listeners:
        lds[asking.ASKING] = to_message(asking.listener(), listener_pb2.Listener())
        front = local_front.local_front(given.front_socket, given.access_log_path)
        lds[local_front.NAME] = to_message(front, listener_pb2.Listener())
        # Without a listener nobody asks for these, and what nobody asks for is never acknowledged.
        others = [*rpc.rpc_routes(), *queue.queue_routes()]
        rds[routes.ROUTE_CONFIG] = to_message(
            routes.routes(plans, others, relayed=relayed), route_pb2.RouteConfiguration()
        )
        certificate = secrets.server_certificate(given.certificate_chain_pem, given.private_key_pem)
        sds[secrets.SERVER_SECRET] = to_message(certificate, secret_pb2.Secret())
    if given.listeners and relayed:
        cds[relay.RELAY_CLUSTER] = to_message(relay.relay_cluster(given.relay_sockets), cluster_pb2.Cluster())
        listener = inner.inner_listener(given.inner_socket, given.inner_log_path)
        lds[inner.INNER] = to_message(listener, listener_pb2.Listener())
        rds[inner.INNER] = to_message(inner.inner_routes(plans), route_pb2.RouteConfiguration())
    return snapshot.Snapshot(
        types={
            snapshot.SECRET: snapshot.typed(sds),
            snapshot.CLUSTER: snapshot.typed(cds),
            snapshot.ENDPOINTS: snapshot.typed(eds),
            snapshot.LISTENER: snapshot.typed(lds),
            snapshot.ROUTES: snapshot.typed(rds),
        }
    )


def _usable(plan: ClusterPlan, given: GatewayInput) -> ClusterPlan:
    known = plan.fallback is None or plan.fallback.key_file in given.fallback_keys
    return plan if known else replace(plan, fallback=None)


def _add_fallback(plan: ClusterPlan, given: GatewayInput, cds: dict[str, Message], sds: dict[str, Message]) -> None:
    if plan.fallback is None:
        return
    name, stamp = fallback.fallback_name(plan.name), given.fallback_keys[plan.fallback.key_file]
    way = fallback.fallback_cluster(plan.name, plan.fallback, given.system_ca_file, clusters.ADS)
    cds[name] = to_message(way, cluster_pb2.Cluster())
    sds[name] = to_message(fallback.fallback_secret(plan.name, plan.fallback, stamp), secret_pb2.Secret())
