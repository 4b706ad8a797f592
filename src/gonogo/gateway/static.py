"""The gateway's configuration as one file for an Envoy that has no control process: what ADS gives, written out. Pure.

For people who run their own Envoy. Endpoints are those of the moment, and no secret is in it: keys stay in their files.
Not here: the guide's sample (`render`), and which snapshot is written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from envoy.config.bootstrap.v3 import bootstrap_pb2

from gonogo.actions.model import ListenerPlan
from gonogo.gateway.bootstrap import of_process
from gonogo.gateway.resources.convert import Json, to_json, to_message, unpacked
from gonogo.gateway.snapshot import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a snapshot is written out, and how.

    `certificate_file` and `key_file`: PEM, absolute paths (one file may be both). `service`: only this one's clusters
    and routes; None: all. `listen`: one front listener there in place of the deployed ones, so that it can run beside
    the deployed gateway: the listeners on unix sockets, which that one holds, are left out then.
    """

    certificate_file: str
    key_file: str
    service: str | None = None
    listen: ListenerPlan | None = None


def static_configuration(snapshot: Snapshot, wanted: Wanted) -> Json:
    """A whole configuration that Envoy takes with `--config-path`. Equal input, equal output."""
    routes = {name: _routes(one, wanted) for name, one in _resources(snapshot, ROUTES).items()}
    endpoints = _resources(snapshot, ENDPOINTS)
    clusters = [
        _without_sds(_cluster(one, endpoints))
        for name, one in _resources(snapshot, CLUSTER).items()
        if "/" not in name or _of_service(name, wanted)
    ]
    content: Json = {
        "node": {"id": "gonogo-static", "cluster": "gonogo"},
        "static_resources": {
            "listeners": list(_listeners(tuple(_resources(snapshot, LISTENER).values()), routes, wanted)),
            "clusters": clusters,
            "secrets": [one for name, one in _resources(snapshot, SECRET).items() if _is_file(one, name, wanted)],
        },
        **of_process(),
    }
    return to_json(to_message(content, bootstrap_pb2.Bootstrap()))  # raises on what Envoy would not know


def _resources(snapshot: Snapshot, type_url: str) -> dict[str, Json]:
    return {name: to_json(unpacked(packed)) for name, packed in snapshot.types[type_url].resources}


def _of_service(cluster: str, wanted: Wanted) -> bool:
    return wanted.service is None or cluster.partition("/")[0] == wanted.service


def _routes(config: Json, wanted: Wanted) -> Json:
    def kept(route: Json) -> bool:
        cluster = str(route.get("route", {}).get("cluster", ""))
        return "/" not in cluster or _of_service(cluster, wanted)

    hosts = [{**host, "routes": [one for one in host["routes"] if kept(one)]} for host in config["virtual_hosts"]]
    return {**config, "virtual_hosts": hosts}


def _cluster(cluster: Json, endpoints: Mapping[str, Json]) -> Json:
    """A cluster whose endpoints came over EDS, with those of the moment in it."""
    if cluster.get("type") != "EDS":
        return cluster
    fixed = {name: value for name, value in cluster.items() if name not in ("type", "eds_cluster_config")}
    name = cluster["name"]
    return {**fixed, "type": "STATIC", "load_assignment": endpoints.get(name, {"cluster_name": name})}


def _is_file(secret: Json, name: str, wanted: Wanted) -> bool:
    """Whether this is the key of a hosted API: a path, which Envoy reads by itself. The gateway's own stays away."""
    return "generic_secret" in secret and _of_service(name, wanted)


def _without_sds(part: Any) -> Any:
    """The same with secrets called by their names alone: they stand in the file."""
    if isinstance(part, list):
        return [_without_sds(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {name: _without_sds(value) for name, value in part.items() if name != "sds_config"}


def _listeners(found: Sequence[Json], routes: Mapping[str, Json], wanted: Wanted) -> Iterable[Json]:
    chosen = list(found)
    if wanted.listen is not None:
        at = {"address": wanted.listen.address, "port_value": wanted.listen.port}
        fronts = [one for one in found if "socket_address" in one.get("address", {})]
        inside = [one for one in found if "internal_listener" in one]  # which nobody outside that Envoy can reach
        chosen = [*({**one, "address": {"socket_address": at}} for one in fronts[:1]), *inside]
    return [_written_out(one, routes, wanted) for one in chosen]


def _written_out(part: Any, routes: Mapping[str, Json], wanted: Wanted) -> Any:
    """The same with what would be asked for over ADS in its place."""
    if isinstance(part, list):
        return [_written_out(one, routes, wanted) for one in part]
    if not isinstance(part, dict):
        return part
    whole = {name: _written_out(value, routes, wanted) for name, value in part.items()}
    rds = whole.pop("rds", None)
    if rds is not None:
        whole["route_config"] = routes[rds["route_config_name"]]
    if whole.pop("tls_certificate_sds_secret_configs", None) is not None:
        pair = {"certificate_chain": wanted.certificate_file, "private_key": wanted.key_file}
        whole["tls_certificates"] = [{name: {"filename": path} for name, path in pair.items()}]
    return whole
