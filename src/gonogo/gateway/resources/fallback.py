"""The way to the hosted API that a revision falls back to: policy marks a request, a route takes it. Pure.

What leaves the house is what is named here: of a request's headers a handful, never the client's key. The API's own key
is read by Envoy from its file, so that its text is in no configuration, no snapshot and no log of ours.
Docs: docs/network.md; why so: docs/decisions/0017-fallback.md.
"""

from __future__ import annotations

from gonogo.actions.model import ExternalPlan, FallbackPlan
from gonogo.gateway.policy.away import FALLBACK_HEADER, FALLBACK_TOLD
from gonogo.gateway.resources import external
from gonogo.gateway.resources.convert import Json
from gonogo.gateway.resources.renaming import renamed
from gonogo.spec.fallback import USUAL_BASE

KEPT_HEADERS = ("accept", "content-length", "content-type", "host", "transfer-encoding", "x-request-id")
"""What goes on of a request's headers; whatever else a client sends is for this gateway. The id is one of ours, and
without it here Envoy's log would not know it either."""
CONNECT_TIMEOUT_S = 5.0
"""A name on another continent, with TLS, takes longer than a replica in this house."""
_HTTP = "type.googleapis.com/envoy.extensions.filters.http"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_GENERIC = "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic"
_CODE = f"""
local kept = {{{", ".join(f'["{name}"] = true' for name in KEPT_HEADERS)}}}
function envoy_on_request(handle)
  local headers, gone = handle:headers(), {{}}
  local key = headers:get("authorization")
  for name, _ in pairs(headers) do
    if name:sub(1, 1) ~= ":" and not kept[name] then
      gone[#gone + 1] = name
    end
  end
  for _, name in ipairs(gone) do
    headers:remove(name)
  end
  headers:add("user-agent", "gonogo")
  headers:add("authorization", "Bearer " .. key)
end
"""


def fallback_name(revision: str) -> str:
    """Of the cluster, and of the secret that it is reached with."""
    return f"{revision}/fallback"


def fallback_cluster(revision: str, plan: FallbackPlan, system_ca_file: str, sds: Json) -> Json:
    """The API, looked up by DNS and its certificate verified. No health checks: they would be paid for."""
    name = fallback_name(revision)
    servers = ExternalPlan(servers=(plan.api.server,), health_path="", ca_file=plan.ca_file)
    return {
        "name": name,
        **external.members(name, servers, system_ca_file),
        "connect_timeout": f"{CONNECT_TIMEOUT_S:g}s",
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "common_http_protocol_options": {"idle_timeout": "30s"},
                "explicit_http_config": {"http_protocol_options": {}},
                "http_filters": _on_the_way_out(name, sds),
            }
        },
    }


def fallback_secret(revision: str, plan: FallbackPlan, stamp: str) -> Json:
    """Where the key is. `stamp` changes when the file does, which makes Envoy read it anew."""
    return {
        "name": fallback_name(revision),
        "generic_secret": {"secret": {"filename": plan.key_file}, "secrets": {"stamp": {"inline_string": stamp}}},
    }


def fallback_route(match: Json, revision: str, plan: FallbackPlan) -> Json:
    """For a request that policy marked. Its path begins with the API's own base; it is sent once: each try is paid."""
    marked = {"name": FALLBACK_HEADER, "present_match": True}
    path = str(match["path"])
    return {
        "match": {**match, "headers": [*match.get("headers", ()), marked]},
        "route": {
            "cluster": fallback_name(revision),
            "timeout": "0s",
            "auto_host_rewrite": True,
            "prefix_rewrite": plan.api.base + path.removeprefix(USUAL_BASE),
            "retry_policy": {"retry_on": "connect-failure,refused-stream", "num_retries": 2},
        },
        "typed_per_filter_config": renamed(),
    }


def told_by_fallback() -> Json:
    """The header of an answer that tells who gave it, where a fallback did."""
    value = f"%DYNAMIC_METADATA(envoy.filters.http.ext_authz:{FALLBACK_TOLD})%"
    return {"header": {"key": FALLBACK_HEADER, "value": value}, "append_action": "ADD_IF_ABSENT"}


def _on_the_way_out(secret: str, sds: Json) -> list[Json]:
    """The API's key in place of the client's, and nothing of the client's headers but `KEPT_HEADERS`."""
    credential = {"@type": _GENERIC, "credential": {"name": secret, "sds_config": sds}, "header": "authorization"}
    return [
        {
            "name": "envoy.filters.http.credential_injector",
            "typed_config": {
                "@type": f"{_HTTP}.credential_injector.v3.CredentialInjector",
                "overwrite": True,
                "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
            },
        },
        {
            "name": "envoy.filters.http.lua",
            "typed_config": {
                "@type": f"{_HTTP}.lua.v3.Lua",
                "default_source_code": {"inline_string": _CODE},
            },
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {"@type": f"{_HTTP}.upstream_codec.v3.UpstreamCodec"},
        },
    ]
