"""What a client reads who asked for a URL that there is not: what was wrong with it, and the right base URL. Pure.

A wrong base URL is the commonest mistake of agents' users: without /v1, with it twice, or the whole URL of a request
(AutoGLM-GUI issue 42, qwen-code issue 3275). Nothing is redirected: a redirected POST loses its body in many clients.
Each message stands by itself; `replies` puts the method and path before it, and the base URL behind it, where the
host name is harmless. Never the query string.
"""

from __future__ import annotations

from typing import Sequence

BASE = "/v1"

_NOT_HERE = r"/v1/(responses|messages)(/.*)?"
_RPC = r"/(gonogo|grpc)\.[^/]+/.*"
_OLLAMA = r"/api/(chat|generate|tags|show|ps|embed|version)/?"


def hints(paths: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(regular expression of a whole path, message), in order: the first that matches. `paths` all start with /v1/."""
    ends = "(" + "|".join(path.removeprefix(BASE) for path in paths) + ")"
    there = ", ".join(paths)
    return (
        (f"/v1{ends}/", "Leave out the slash at the end."),
        (f"{ends}/?", "The base URL lacks /v1 at its end."),
        (f"/v1(/v1)+{ends}/?", "The base URL has /v1 more than once."),
        (
            f"(/v1)?{ends}(/v1)?{ends}/?",
            "The base URL is the whole URL of a request. It ends in /v1: the client adds the rest.",
        ),
        ("/v1/?", f"This is the base URL itself: a client adds the rest to it. There are: {there}."),
        ("/v1/models/[^/]+/?", "A model has no URL of its own. GET /v1/models lists those that a key may use."),
        (_NOT_HERE, "This API is not offered. Use POST /v1/chat/completions: chat completions as OpenAI has them."),
        (
            _RPC,
            "This is gRPC's. Call it with a gRPC client: POST over HTTP/2, with content-type application/grpc.",
        ),
        (_OLLAMA, "This is Ollama's API, which is not offered. Set the client to OpenAI's, with the base URL."),
        (f"/.+{ends}/?", "The base URL has something else than /v1 between the host and the rest."),
    )
