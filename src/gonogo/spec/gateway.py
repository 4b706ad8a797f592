"""The spec's section `gateway`: where it listens, under which names, and how it reaches the service's replicas."""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from gonogo.spec.part import FilePath, Part

HostName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$", json_schema_extra={"x-name-of": "Host"})
]


def _address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise PydanticCustomError("NotAnAddress", "not an IP address", {}) from None
    if "%" in value:
        raise PydanticCustomError("NotAnAddress", "an address with a zone", {})
    return str(address)


class Balancing(str, Enum):
    """Who of a service's replicas gets the next request. `token_aware`: as policy picks, by what each holds; where it
    is silent, the one with the fewest requests.
    """

    TOKEN_AWARE = "token_aware"  # noqa: S105 (no secret)
    LEAST_REQUEST = "least_request"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"


class Gateway(Part):
    """Where the gateway listens, the names in its certificate beside the address, and how it reaches replicas.

    Address and port are the service's wish; `balancing` and `connect_timeout_s` hold for its replicas alone.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"certificate_file": ["key_file"], "key_file": ["certificate_file"]},
        }
    )

    address: Annotated[
        str,
        Field(description="IP address to listen on; 0.0.0.0 (or ::) opens the service to the network."),
        AfterValidator(_address),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="TCP port to listen on, TLS 1.3 only.")] = 8443
    hostnames: Annotated[
        tuple[HostName, ...],
        Field(max_length=64, description="Host names that clients use; they go into the certificate."),
    ] = ()
    certificate_file: Annotated[
        FilePath | None,
        Field(description="Your own certificate (PEM, whole chain); absent: gonogo's own CA makes one."),
    ] = None
    key_file: Annotated[FilePath | None, Field(description="The private key (PEM) of `certificate_file`.")] = None
    balancing: Annotated[
        Balancing, Field(description="Which replica gets the next request; `token_aware` counts what each holds.")
    ] = Balancing.TOKEN_AWARE
    connect_timeout_s: Annotated[
        float, Field(ge=0.05, le=60, description="Seconds to reach a replica, then the next one is tried.")
    ] = 1.0

    @model_validator(mode="after")
    def _certificate_with_key(self) -> Gateway:
        given = {"certificate_file": self.certificate_file, "key_file": self.key_file}
        missing = [name for name, value in given.items() if value is None]
        if len(missing) == 1:
            raise PydanticCustomError("MissingField", "a certificate and its key come together", {"at": missing[0]})
        return self
