"""The section `replicas`: how many engines gonogo runs, or which servers of other people are the replicas.

The two exclude each other in one service: nobody can say of a server that somebody else runs which weights it holds, so
that neither a stream could be continued nor a wrong answer be explained across the two.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.part import FilePath, Part

MOST_REPLICAS = 64
DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)"
    r"(:(?P<port>[0-9]{1,5}))?(/v1)?/?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where an external replica listens. `host`: a name in lower case or an IP address, IPv6 without brackets."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """What stands in the Host header: without the port where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Scheme and authority, as it stands in a revision."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_address(self) -> bool:
        """Whether `host` is an IP address, which nobody has to look up."""
        return is_address(self.host)

    @property
    def on_this_host(self) -> bool:
        """Whether nobody on a network sees what is sent there."""
        if self.is_address:
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost" or self.host.endswith(".localhost")


def is_address(host: str) -> bool:
    """Whether this is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def server_of(url: str) -> Server:
    """The server of a base URL, with or without `/v1`. Raises ValueError: no such URL."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ValueError("not the base URL of a server")
    scheme = found["scheme"].lower()
    host = found["host"].lower().strip("[]")
    port = int(found["port"] or DEFAULT_PORTS[scheme])
    bracketed = found["host"].startswith("[")
    looks_numeric = re.fullmatch(r"[0-9.]+", host) is not None
    if not 1 <= port <= 65535 or (bracketed or looks_numeric) != is_address(host):
        raise ValueError("not an address and port")
    return Server(scheme=scheme, host=host if not is_address(host) else str(ipaddress.ip_address(host)), port=port)


def _base_url(value: str) -> str:
    try:
        return server_of(value).url
    except ValueError:
        raise PydanticCustomError("NotAServer", "not the base URL of a server", {"nearest": _nearest(value)}) from None


def _nearest(value: str) -> str:
    """A right URL that may have been meant."""
    scheme, _, rest = value.rpartition("://")
    host = re.match(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?", rest.partition("/")[0].rpartition("@")[2])
    named = f"{'https' if scheme.lower() == 'https' else 'http'}://{host[0]}" if host is not None else ""
    try:
        return server_of(named).url
    except ValueError:
        return "http://127.0.0.1:8000"


def _once_each(urls: tuple[str, ...]) -> tuple[str, ...]:
    for index, url in enumerate(urls):
        if url in urls[:index]:
            raise PydanticCustomError("DuplicateServer", "one server twice", {"at": str(index)})
    return urls


UrlPath = Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~/-]{0,200}$", json_schema_extra={"x-name-of": "Path"})]
ServerUrl = Annotated[str, Field(max_length=300), AfterValidator(_base_url)]


class Replicas(Part):
    """How many replicas run; a plain number means exactly so many.

    Scaling between the two bounds comes later: `min` run. With `external` nothing is started: the servers at those
    URLs are the replicas, and `min` and `max` are their number, filled in.
    """

    min: Annotated[int, Field(ge=1, le=MOST_REPLICAS, description="Replicas that always run.")]
    max: Annotated[int, Field(ge=1, le=MOST_REPLICAS, description="Replicas that may run when scaling asks for them.")]
    external: Annotated[
        Annotated[
            tuple[ServerUrl, ...],
            # a list by the time that it comes here: the validator of the short forms has made it Python's
            Field(min_length=1, max_length=MOST_REPLICAS, strict=False),
            AfterValidator(_once_each),
        ]
        | None,
        Field(description="Base URLs of OpenAI-compatible servers that run already, here or elsewhere."),
    ] = None
    ca_file: Annotated[
        FilePath | None,
        Field(description="CA (PEM) that their https certificates are held against; absent: the system's."),
    ] = None
    health_path: Annotated[
        UrlPath | None,
        Field(
            description="What they answer with 200 while well; absent: `/health`, or `/v1/models` where there is none.",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, int):
            return {"min": value, "max": value}
        if isinstance(value, dict) and value.get("external") is not None:
            urls = value["external"]
            count = max(1, min(len(urls), MOST_REPLICAS)) if isinstance(urls, (list, tuple)) else 1
            return {"min": count, "max": count, **value}
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise PydanticCustomError("MinAboveMax", "min above max", {"min": str(self.min), "max": str(self.max)})
        if self.external:
            for name, given in (("min", self.min), ("max", self.max)):
                if given != len(self.external):
                    raise PydanticCustomError("NotWithExternal", "a number beside servers", {"at": name})
            return self
        for name in ("ca_file", "health_path"):
            if getattr(self, name) is not None:
                raise PydanticCustomError("OnlyWithExternal", "a setting of servers without servers", {"at": name})
        return self

    @property
    def servers(self) -> tuple[Server, ...]:
        """The external replicas, in order; empty: gonogo starts its own."""
        return tuple(server_of(url) for url in self.external or ())
