"""The fake engine behind everybody: an Envoy that answers by itself, so that it costs next to nothing.

One worker thread, the same fixed chat completion on a plaintext port (for the gateways, as engines serve on loopback)
and on a TLS port (for the row `direct`). It is no model: it says what a gateway adds, never how fast an engine is.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

from contenders.process import CHAT, MODEL, Contender, await_answer, free_port, running
from gonogo.runtimes.programs import gateway_binary
from gonogo.security.certificates import CertificateFiles

_TYPE = "type.googleapis.com/envoy.extensions"
_COMPLETION = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1700000000,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The capital of France is Paris."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 14, "completion_tokens": 8, "total_tokens": 22},
}
_MODELS = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1700000000, "owned_by": "bench"}]}
_ANSWERS: dict[str, Any] = {
    CHAT: _COMPLETION,
    "/v1/models": _MODELS,
    "/health": {"status": "ok"},
    # What sglang-router asks a worker before it sends it requests.
    "/get_model_info": {"model_path": MODEL, "is_generation": True},
    "/get_server_info": {"model_path": MODEL, "served_model_name": MODEL},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The running fake engine: its plaintext port, and itself as a contender."""

    port: int
    direct: Contender


@contextlib.contextmanager
def upstream(folder: Path, certificates: CertificateFiles) -> Iterator[Upstream]:
    """Start it in this folder; it answers when this is entered. Raises `NotReady`."""
    plain, tls = free_port(), free_port()
    config, log = folder / "upstream.json", folder / "upstream.log"
    config.write_text(json.dumps(_config(plain, tls, certificates)))
    config.chmod(0o600)
    command = (gateway_binary(), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error")
    contender = Contender(name="direct", port=tls, key="none", asks_for_key=False, note="the fake engine itself, TLS")
    with running(command, log) as process:
        await_answer(process, contender, log, within_s=20)
        yield Upstream(port=plain, direct=contender)


def _config(plain: int, tls: int, certificates: CertificateFiles) -> dict[str, Any]:
    context = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": certificates.chain_pem},
                    "private_key": {"inline_string": certificates.key_pem},
                }
            ],
        },
    }
    secure = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
    listeners = [_listener("plain", plain, {}), _listener("tls", tls, secure)]
    return {"static_resources": {"listeners": listeners}}


def _listener(name: str, port: int, security: dict[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}]},
        "http_filters": [
            # Without it the answer would come before the body was read, and end the connection.
            {
                "name": "buffer",
                "typed_config": {
                    "@type": f"{_TYPE}.filters.http.buffer.v3.Buffer",
                    "max_request_bytes": 1024 * 1024,
                },
            },
            {"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}},
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{**security, "filters": [{"name": "http", "typed_config": manager}]}],
    }


def _routes() -> list[dict[str, Any]]:
    return [
        {
            "match": {"path": path},
            "direct_response": {"status": 200, "body": {"inline_string": json.dumps(answer)}},
            "response_headers_to_add": [
                {
                    "header": {"key": "content-type", "value": "application/json"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        }
        for path, answer in _ANSWERS.items()
    ]
