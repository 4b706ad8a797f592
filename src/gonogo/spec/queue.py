"""The section `queue`: where the queue's bell hangs when not on the deployment's own Valkey, and how much it takes.

The queue is the deployment's, not a service's: the first service that brings the section decides, as with the gateway's
certificate, and a service that names another server is refused (`gonogo.checks.queue`). No password stands in a spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.part import FilePath, Part
from gonogo.spec.replicas import is_address

DEFAULT_PORT = 6379
NEAREST = "redis://127.0.0.1:6379/0"
_URL = re.compile(
    r"(?P<scheme>rediss?)://((?P<user>[A-Za-z0-9._~-]{1,64})@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r"(:(?P<port>[0-9]{1,5}))?(/(?P<db>[0-9]{1,3}))?/?",
    re.ASCII,
)
_SOCKET = re.compile(r"unix://(?P<path>/[A-Za-z0-9._~/+-]{1,100})(\?db=(?P<db>[0-9]{1,3}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueServer:
    """Where a Redis or Valkey listens: `host` and `port`, or `path` of a unix socket. `db`: a database's number."""

    db: int
    host: str = ""
    port: int = DEFAULT_PORT
    path: str | None = None
    user: str | None = None
    encrypted: bool = False

    @property
    def url(self) -> str:
        """As it stands in a revision, complete."""
        if self.path is not None:
            return f"unix://{self.path}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"redis{'s' if self.encrypted else ''}://{user}{host}:{self.port}/{self.db}"


def queue_server_of(url: str) -> QueueServer:
    """The server of a URL: redis://, rediss:// (TLS) or unix://. Raises ValueError: no such URL."""
    socket = _SOCKET.fullmatch(url)
    if socket is not None:
        return QueueServer(path=socket["path"], db=int(socket["db"] or 0))
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("not the URL of a queue's server")
    host, port = found["host"].lower().strip("[]"), int(found["port"] or DEFAULT_PORT)
    bracketed = found["host"].startswith("[")
    looks_numeric = re.fullmatch(r"[0-9.]+", host) is not None
    if not 1 <= port <= 65535 or (bracketed or looks_numeric) != is_address(host):
        raise ValueError("not an address and port")
    return QueueServer(
        host=host, port=port, user=found["user"], db=int(found["db"] or 0), encrypted=found["scheme"] == "rediss"
    )


def _url(value: str) -> str:
    user = value.rpartition("://")[2].rpartition("@")[0]
    if ":" in user or "password=" in value.lower():
        raise PydanticCustomError("PasswordInUrl", "a password in the text of a spec", {})
    try:
        return queue_server_of(value).url
    except ValueError:
        raise PydanticCustomError("NotAQueue", "not the URL of a queue's server", {"nearest": NEAREST}) from None


QueueUrl = Annotated[str, Field(max_length=400), AfterValidator(_url)]


class Queue(Part):
    """Where the queue's bell hangs, and how much one key may leave. Tasks themselves never leave this machine."""

    url: Annotated[
        QueueUrl | None,
        Field(description="A Redis or Valkey: redis://, rediss:// (TLS) or unix:///; absent: the deployment's own."),
    ] = None
    password_file: Annotated[
        FilePath | None, Field(description="The file whose first line is that server's password; absent: none.")
    ] = None
    ca_file: Annotated[
        FilePath | None,
        Field(description="CA (PEM) that a rediss:// server's certificate is held against; absent: the system's."),
    ] = None
    tasks_per_key: Annotated[
        int, Field(ge=1, le=10_000_000, description="Open tasks that one key may have through /v1/tasks.")
    ] = 100_000
    file_gib_per_key: Annotated[
        float, Field(gt=0, le=100_000, description="GiB of uploaded files that one key may keep, and have in batches.")
    ] = 20.0

    @model_validator(mode="after")
    def _of_a_server(self) -> Queue:
        server = None if self.url is None else queue_server_of(self.url)
        if self.password_file is not None and server is None:
            raise PydanticCustomError("OnlyWithQueue", "a setting of a server without one", {"at": "password_file"})
        if self.ca_file is not None and not (server and server.encrypted):
            raise PydanticCustomError("OnlyWithQueue", "a setting of TLS without it", {"at": "ca_file"})
        return self

    @property
    def server(self) -> QueueServer | None:
        """The server; None: the deployment's own Valkey."""
        return None if self.url is None else queue_server_of(self.url)
