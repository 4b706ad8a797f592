"""The members of a cluster of external replicas: looked up by DNS, their certificates verified. Pure.

Docs: docs/network.md; why so: docs/decisions/0012-external-replicas.md.
"""

from __future__ import annotations

from gonogo.actions.model import ExternalPlan
from gonogo.gateway.resources.convert import METADATA, Json
from gonogo.spec.replicas import Server

MATCH = "envoy.transport_socket_match"
DNS_REFRESH = "5s"


def members(cluster: str, plan: ExternalPlan, system_ca_file: str) -> Json:
    """Where the servers are, and how each is spoken to."""
    ca_file = plan.ca_file or system_ca_file
    secured = [one for one in plan.servers if one.scheme == "https"]
    where: Json = {
        "type": "STRICT_DNS",
        # A name that has both kinds of addresses is reached by IPv4: the default prefers IPv6, also where no way leads.
        "dns_lookup_family": "V4_PREFERRED",
        # Not the record's own time: Envoy has no bound for it, and a member that moved would be missed for a day.
        "dns_refresh_rate": DNS_REFRESH,
        "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "5s"},
        "load_assignment": {
            "cluster_name": cluster,
            "endpoints": [{"lb_endpoints": [_endpoint(one) for one in plan.servers]}],
        },
    }
    if secured:
        where["transport_socket_matches"] = [_tls(one, ca_file) for one in secured]
    return where


def _endpoint(server: Server) -> Json:
    # Inside Envoy, in its log and its admin interface, a server is called by its authority.
    metadata: Json = {METADATA: {"replica": server.authority}}
    if server.scheme == "https":
        metadata[MATCH] = {"server": server.authority}
    return {
        "endpoint": {
            "address": {"socket_address": {"address": server.host, "port_value": server.port}},
            # what the route writes into the Host header: a proxy in front of several servers tells them apart by it
            "hostname": server.authority,
            "health_check_config": {"hostname": server.authority},
        },
        "metadata": {"filter_metadata": metadata},
    }


def _tls(server: Server, ca_file: str) -> Json:
    """TLS to one server: its chain must lead to the CA, and its certificate must be for the host in its URL."""
    kind = "IP_ADDRESS" if server.is_address else "DNS"
    context: Json = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["http/1.1"],
            "validation_context": {
                # without this field Envoy would trust anybody; a file that is not there it refuses
                "trusted_ca": {"filename": ca_file},
                "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": server.host}}],
            },
        },
    }
    if not server.is_address:
        context["sni"] = server.host
    return {
        "name": server.authority,
        "match": {"server": server.authority},
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
    }
