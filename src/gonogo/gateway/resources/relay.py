"""The way of a streamed request to the relays, and how its answer ends when a relay is killed. Pure.

A relay's answer ends where its connection ends (`gonogo.gateway.relay.server`), so that a killed relay looks to Envoy
like an answer that has ended, and not like a broken one, which Envoy could only break off as well. The filter sees the
answer go by and keeps the rules of a stream: only whole events go out, and one without `[DONE]` gets an error event.
"""

from __future__ import annotations

import json
from typing import Sequence

from gonogo.gateway.resources.convert import METADATA, Json

RELAY_CLUSTER = "relay"
RELAY_HEADER = "x-gonogo-relay"
LUA = "envoy.filters.http.lua"

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_LUA_TYPE = "type.googleapis.com/envoy.extensions.filters.http.lua.v3"
_LOST = {
    "message": "The gateway lost this answer in the middle: the process that passed it on ended. Try again.",
    "type": "server_error",
    "param": None,
    "code": "relay_lost",
    "hop": "gateway",
    "request_id": "REQUEST_ID",
}
_MOST_HELD_BYTES = 8 * 1024 * 1024

_SCRIPT = """
local lost = [==[data: %(lost)s

data: [DONE]

]==]

function envoy_on_response(handle)
  local kind = handle:headers():get("content-type") or ""
  if handle:headers():get(":status") ~= "200" or kind:sub(1, 17) ~= "text/event-stream" then
    return
  end
  local id = (handle:headers():get("x-request-id") or ""):gsub("[^%%w-]", "")
  local rest, last, chunk_was = "", "", nil
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    chunk_was = chunk
    if size > 0 then
      local tail = chunk:getBytes(size > 14 and size - 14 or 0, size > 14 and 14 or size)
      if rest == "" and tail:sub(-2) == "\\n\\n" then
        last = tail
      else
        local all = rest .. chunk:getBytes(0, size)
        local whole = all:match("^.*\\n\\n") or ""
        if #all - #whole > %(most)d then
          whole = all
        end
        rest = all:sub(#whole + 1)
        if whole ~= "" then
          last = whole:sub(-14)
        end
        chunk:setBytes(whole)
      end
    end
  end
  if last ~= "data: [DONE]\\n\\n" and chunk_was ~= nil then
    handle:logInfo("relay lost")
    local said = lost:gsub("REQUEST_ID", id)
    local given = chunk_was:length() > 0 and chunk_was:getBytes(0, chunk_was:length()) or ""
    chunk_was:setBytes(given .. said)
  end
end
"""


def relay_cluster(sockets: tuple[str, ...]) -> Json:
    """The relays, each on a unix socket. One that is dead refuses at once, and the request goes to the other.

    No ejection, for the reason that policy servers have none. A hung one is found by the health check, and ended by
    control. Every stream has a connection of its own: it is kept by nobody.
    """
    hosts = [_host(index, path) for index, path in enumerate(sockets)]
    return {
        "name": RELAY_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "load_assignment": {"cluster_name": RELAY_CLUSTER, "endpoints": [{"lb_endpoints": hosts}]},
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 1000}
            ]
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "1s",
                # A deployment that starts has relays that do not listen yet: a streamed request waits for nobody.
                "no_traffic_interval": "0.25s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/healthz", "host": "localhost"},
            }
        ],
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def relay_route(match: Json, retries: Json, body_bytes: int, removed: Sequence[str]) -> Json:
    """A streamed request that policy marked goes to a relay. Until an answer begins, it may go to the other one."""
    marked = {"name": RELAY_HEADER, "string_match": {"exact": "1"}}
    return {
        "match": {**match, "headers": [*match.get("headers", ()), marked]},
        "route": {"cluster": RELAY_CLUSTER, "timeout": "0s", "retry_policy": retries},
        "request_headers_to_remove": [*removed, RELAY_HEADER],
        "request_body_buffer_limit": body_bytes,
        "typed_per_filter_config": {
            LUA: {"@type": f"{_LUA_TYPE}.LuaPerRoute", "source_code": {"inline_string": _script()}}
        },
    }


def ending_filter() -> Json:
    """The filter itself, which does nothing but what a route gives it to do."""
    return {"name": LUA, "typed_config": {"@type": f"{_LUA_TYPE}.Lua"}}


def _script() -> str:
    envelope = json.dumps({"error": _LOST}, separators=(",", ":"))
    return _SCRIPT % {"lost": envelope, "most": _MOST_HELD_BYTES}


def _host(index: int, path: str) -> Json:
    return {
        "endpoint": {"address": {"pipe": {"path": path}}, "hostname": f"{RELAY_CLUSTER}-{index}"},
        "metadata": {"filter_metadata": {METADATA: {"replica": ""}}},
    }
