"""The local front: the gateway's filters and routes once more, without TLS, on a unix socket for this user alone. Pure.

The gRPC server asks here with its callers' own keys. It hands on the request id and the client's address of the call,
which nobody else could forge: whoever reaches the socket is this user.
"""

from __future__ import annotations

from gonogo.gateway.resources import listeners
from gonogo.gateway.resources.convert import Json

NAME = "local-front"


def local_front(socket: str, access_log_path: str) -> Json:
    """The listener. Mode 0600."""
    identity = {
        "early_header_mutation_extensions": listeners.foreign_removed(),
        # The client's address is what the front's own Envoy wrote into x-forwarded-for.
        "use_remote_address": False,
        "preserve_external_request_id": True,
    }
    return {
        "name": NAME,
        "address": {"pipe": {"path": socket, "mode": 0o600}},
        # Its connections stand for calls that the front has counted.
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [listeners.connection_manager(access_log_path, listeners.gateway(), identity)]}],
    }
