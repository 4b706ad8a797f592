"""A static Envoy configuration, without a control process: for a reader who only wants a file that Envoy accepts.

It is the guide's sample (§4.1) made whole. Not the gateway that `gonogo up` runs: no TLS, no keys, no health checks.
"""

from __future__ import annotations

from typing import Annotated, Literal

import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from pydantic import Field, StringConstraints

from gonogo.gateway.resources.convert import Json, to_message
from gonogo.spec.gateway import HostName
from gonogo.spec.part import Part

_HTTP = "type.googleapis.com/envoy.extensions.filters"
Port = Annotated[int, Field(ge=1, le=65535)]


class Address(Part):
    """A host name or an IP address, and a port."""

    host: HostName
    port: Port


class StaticGateway(Part):
    """One plain HTTP listener in front of one cluster. `connect_timeout_s` is in seconds."""

    cluster: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,60}$")]
    listen: Address
    endpoints: Annotated[tuple[Address, ...], Field(min_length=1, max_length=64, strict=False)]
    connect_timeout_s: Annotated[float, Field(gt=0, le=60)] = 0.25
    balancing: Literal["round_robin", "least_request", "random"] = "round_robin"
    prefix: Annotated[str, StringConstraints(pattern=r"^/")] = "/"


def read_static_gateway(text: str) -> StaticGateway:
    """From YAML. Raises `pydantic.ValidationError` or `yaml.YAMLError`, which say what is wrong and where."""
    return StaticGateway.model_validate(yaml.safe_load(text))


def render_envoy(given: StaticGateway) -> str:
    """The YAML of a whole Envoy configuration. Equal input, equal text."""
    content = _content(given)
    to_message(content, bootstrap_pb2.Bootstrap())  # raises on a field that Envoy does not know
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _content(given: StaticGateway) -> Json:
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "listener",
                    "address": _address(given.listen),
                    "filter_chains": [{"filters": [_connection_manager(given)]}],
                }
            ],
            "clusters": [_cluster(given)],
        }
    }


def _connection_manager(given: StaticGateway) -> Json:
    route = {"match": {"prefix": given.prefix}, "route": {"cluster": given.cluster}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": given.cluster,
            "route_config": {
                "name": "local_route",
                "virtual_hosts": [{"name": "local_service", "domains": ["*"], "routes": [route]}],
            },
            "http_filters": [
                {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_HTTP}.http.router.v3.Router"}}
            ],
        },
    }


def _cluster(given: StaticGateway) -> Json:
    return {
        "name": given.cluster,
        "connect_timeout": f"{given.connect_timeout_s:g}s",
        "type": "STRICT_DNS",
        "lb_policy": given.balancing.upper(),
        "load_assignment": {
            "cluster_name": given.cluster,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(e)}} for e in given.endpoints]}],
        },
    }


def _address(given: Address) -> Json:
    return {"socket_address": {"address": given.host, "port_value": given.port}}
