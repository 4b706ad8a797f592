"""Writes an external server's own name of the model into a request, where policy says that it stands. Pure.

Policy knows the place (`gonogo.gateway.policy.renaming`) and may not change a body; Envoy holds all of it by then. The
filter does nothing but on the routes to external replicas, and nothing there where both have one name.
"""

from __future__ import annotations

from gonogo.gateway.policy.renaming import SERVED_AS, SPAN
from gonogo.gateway.resources.convert import Json

RENAMING = "gonogo.renaming"
_SCRIPT = "renaming"
_LUA = "type.googleapis.com/envoy.extensions.filters.http.lua.v3"
_CODE = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  local name, span = headers:get("{SERVED_AS}"), headers:get("{SPAN}")
  if name == nil or span == nil then
    return
  end
  local first, last = span:match("^(%d+)-(%d+)$")
  local body = handle:body()
  if first == nil or body == nil then
    return
  end
  local bytes = body:getBytes(0, body:length())
  local size = body:setBytes(bytes:sub(1, tonumber(first)) .. name .. bytes:sub(tonumber(last) + 1))
  if headers:get("content-length") ~= nil then
    headers:replace("content-length", tostring(size))
  end
end
"""


def renaming_filter() -> Json:
    """Behind policy: the headers that it reads are policy's."""
    config: Json = {
        "@type": f"{_LUA}.Lua",
        "source_codes": {_SCRIPT: {"inline_string": _CODE}},
        # what it changes leads nowhere else
        "clear_route_cache": False,
    }
    return {"name": RENAMING, "typed_config": config}


def renamed() -> Json:
    """For a route's `typed_per_filter_config`."""
    return {RENAMING: {"@type": f"{_LUA}.LuaPerRoute", "name": _SCRIPT}}
