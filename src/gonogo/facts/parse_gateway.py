"""What Envoy counts of itself right now, as its admin interface prints it (`/stats?format=json`). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from gonogo.facts.parse_json import JsonError, parse_object

_NAMES = {
    "cluster.policy.upstream_rq_active": "held_by_policy",
    "http.gateway.downstream_rq_active": "requests",
    "http.gateway.downstream_cx_active": "connections",
}
FILTER = "^(" + "|".join(name.replace(".", "\\.") for name in _NAMES) + ")$"
"""The statistics that are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayNow:
    """Requests and connections of clients right now. `held_by_policy`: requests that a policy server has not let go on
    or refused yet: those wait for room. None: Envoy does not say (no listener yet).
    """

    requests: int | None = None
    connections: int | None = None
    held_by_policy: int | None = None


def parse_gateway_now(text: str) -> GatewayNow:
    """Nothing is known of what is no such answer."""
    try:
        listed = parse_object(text.encode()).get("stats")
    except JsonError:
        return GatewayNow()
    found: dict[str, int] = {}
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, dict) and one.get("name") in _NAMES and isinstance(one.get("value"), int):
            found[_NAMES[one["name"]]] = one["value"]
    return GatewayNow(**found)
