"""Asks a queue's server directly: is it there, does it let us in? Bounded in time, names of hosts included.

Its password is read from its file each time: one that was renewed counts at once.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from gonogo.facts.queue import QueueFacts
from gonogo.runtimes.look_servers import system_ca_file
from gonogo.spec.queue import Queue

LIMIT_S = 3.0
CONNECT_LIMIT_S = 2.0
MOST_PASSWORD_BYTES = 4096


def password_of(queue: Queue) -> str | None:
    """The first line of the password's file; None: there is none. Raises OSError, ValueError for an empty one."""
    if queue.password_file is None:
        return None
    with open(queue.password_file, encoding="utf-8") as opened:
        text = opened.read(MOST_PASSWORD_BYTES).partition("\n")[0].rstrip("\r")
    if not text:
        raise ValueError(f"{queue.password_file} has no first line")
    return text


def look_at_queue(queue: Queue) -> QueueFacts:
    """What it says now; at most 3 s, whatever its name's servers do."""
    found: list[QueueFacts] = []
    asking = threading.Thread(target=lambda: found.append(_look(queue)), name="queue's server", daemon=True)
    asking.start()
    asking.join(LIMIT_S)
    return found[0] if found else QueueFacts(trouble="queue_silent", detail=f"no answer within {LIMIT_S:.0f} s")


def _look(queue: Queue) -> QueueFacts:
    from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

    try:
        password = password_of(queue)
    except (OSError, ValueError) as error:
        return QueueFacts(trouble="queue_password_file", detail=_short(error))
    try:
        client = _client(queue, password)
        try:
            client.ping()
        finally:
            client.close()
    except (AuthenticationError, NoPermissionError) as error:
        return QueueFacts(trouble="queue_refuses", detail=_short(error))
    except (RedisError, OSError, ValueError) as error:
        return QueueFacts(trouble="queue_silent", detail=_short(error))
    return QueueFacts()


def _client(queue: Queue, password: str | None) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    server = queue.server
    assert server is not None
    given: dict[str, Any] = {"db": server.db, "username": server.user, "password": password}
    given |= {"socket_timeout": CONNECT_LIMIT_S, "socket_connect_timeout": CONNECT_LIMIT_S}
    given["retry"] = Retry(NoBackoff(), 0)
    if server.path is not None:
        return Redis(unix_socket_path=str(Path(server.path)), **given)
    if server.encrypted:
        given |= {"ssl": True, "ssl_ca_certs": queue.ca_file or system_ca_file()}
    return Redis(host=server.host, port=server.port, **given)


def _short(error: Exception) -> str:
    return str(error)[:160] or type(error).__name__
