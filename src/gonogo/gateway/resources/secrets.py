"""SDS: the certificate that the gateway presents, and how TLS is spoken. Pure. Not here: making certificates."""

from __future__ import annotations

from gonogo.gateway.resources.clusters import ADS
from gonogo.gateway.resources.convert import Json

SERVER_SECRET = "server"  # noqa: S105 (a name)


def server_certificate(certificate_chain_pem: str, private_key_pem: str) -> Json:
    """The certificate chain (leaf first) and its key, PEM."""
    return {
        "name": SERVER_SECRET,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate_chain_pem},
            "private_key": {"inline_string": private_key_pem},
        },
    }


def downstream_tls() -> Json:
    """TLS 1.3 only, HTTP/2 and HTTP/1.1, the certificate over SDS: renewing it drops no connection."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificate_sds_secret_configs": [{"name": SERVER_SECRET, "sds_config": ADS}],
            },
        },
    }
